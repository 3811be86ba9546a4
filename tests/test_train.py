import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, make_batch
from PIL import Image

import train
from checkpoint import load_checkpoint, load_weights, save_weights
from config import TrainConfig
from dataset import VALIDATION_EVS
from loader import count_active_levels, make_valid_loader, stage_image_size
from loss import adversarial_loss, discriminator_loss
from model import ExposureCorrectionNet
from run_state import cosine_rate, make_networks, make_optimizers
from synthesis import quantise, shift_exposure
from utils import psnr, ssim

CPU = torch.device("cpu")
RUN_FILES = ["best.pth", "comparison.png", "curve.png", "last.pth", "log.jsonl", "previous.pth"]


@pytest.fixture
def run(train_settings, write_json, tmp_path):
    """(name of the run, changed settings) -> exit code; its files are in tmp_path / name."""

    def call(name: str = "run", **changes) -> int:
        settings = train_settings | {"model_save_dir": str(tmp_path / name)} | changes
        return train.main(["--conf", str(write_json(f"{name}.json", settings))])

    return call


@pytest.fixture
def after_step(monkeypatch):
    """(function of the number of the step, from 1) is called after every step of training."""

    def install(function) -> None:
        step, count = train.train_step, [0]

        def counted(*arguments, **settings):
            losses = step(*arguments, **settings)
            count[0] += 1
            function(count[0])
            return losses

        monkeypatch.setattr(train, "train_step", counted)

    return install


def records_of(run_dir) -> list[dict]:
    """The log without the only thing that differs between equal runs."""
    records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in r.items() if key != "seconds"} for r in records]


def is_same(value, other) -> bool:
    """Bit-equality of nested dicts, lists, tensors and plain values."""
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(is_same(value[k], other[k]) for k in value)
    if isinstance(value, list):
        return len(value) == len(other) and all(map(is_same, value, other))
    return value.equal(other) if isinstance(value, torch.Tensor) else value == other


def assert_runs_are_equal(run_dir, other_dir) -> None:
    state, other = (load_checkpoint(path / "last.pth") for path in (run_dir, other_dir))
    for key in ("networks", "optimizers", "progress"):
        assert is_same(state[key], other[key]), key
    assert records_of(run_dir) == records_of(other_dir)
    best, others = (load_checkpoint(path / "best.pth") for path in (run_dir, other_dir))
    assert is_same(best, others)


# ------------------------------------------------------------------------------- one step


@pytest.fixture
def step_parts(train_settings):
    """Networks whose heads are not zero, their optimizers, and a batch (abnormal, normal)."""
    config = TrainConfig(**train_settings)
    networks = make_networks(config, CPU)
    for unet in networks.generator.sub_networks:
        torch.nn.init.normal_(unet.head.weight, std=0.1)
    return (
        networks,
        make_optimizers(networks, config),
        (torch.rand(2, 1, 3, 32, 32), torch.rand(2, 3, 32, 32)),
    )


def take_step(step_parts, active_count: int = 2, is_adversarial: bool = True) -> dict[str, float]:
    networks, optimizers, (abnormal, normal) = step_parts
    return train.train_step(
        networks,
        optimizers,
        abnormal,
        normal,
        active_count=active_count,
        is_adversarial=is_adversarial,
        is_mixed_precision=False,
        ema_decay=0.0,
        agreement_weight=1.0,
    )


def gradients_of(network) -> list:
    return [None if p.grad is None else p.grad.clone() for p in network.parameters()]


def copy_of(network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def spy_on(optimizer, note) -> None:
    """Call note() before every step of the optimizer."""
    step = optimizer.step

    def noted(*arguments):
        note()
        return step(*arguments)

    optimizer.step = noted


def test_adversarial_gradient_reaches_every_weight_of_the_generator(step_parts, monkeypatch):
    networks, _, (abnormal, _) = step_parts
    for name in ("reconstruction_loss", "pyramid_loss"):
        monkeypatch.setattr(train, name, lambda outputs, targets: outputs[-1].sum() * 0)
    logits = networks.discriminator(networks.generator(abnormal.flatten(0, 1))[-1])
    weights = list(networks.generator.parameters())
    expected = torch.autograd.grad(adversarial_loss(logits, 2), weights)
    take_step(step_parts)
    assert all(gradient.any() for gradient in expected)
    for gradient, right in zip(gradients_of(networks.generator), expected, strict=True):
        torch.testing.assert_close(gradient, right)


def test_generators_step_leaves_the_discriminator_without_gradients(step_parts):
    networks, optimizers, _ = step_parts
    before, seen = copy_of(networks.discriminator), []
    spy_on(optimizers.generator, lambda: seen.append(gradients_of(networks.discriminator)))
    spy_on(
        optimizers.discriminator,
        lambda: seen.append(
            [p.equal(before[n]) for n, p in networks.discriminator.named_parameters()]
        ),
    )
    take_step(step_parts)
    count = len(list(networks.discriminator.parameters()))
    assert seen == [[None] * count, [True] * count]
    assert all(p.requires_grad for p in networks.discriminator.parameters())


def test_discriminators_step_leaves_the_generator_alone(step_parts):
    networks, optimizers, (abnormal, normal) = step_parts
    with torch.no_grad():
        corrected = networks.generator(abnormal.flatten(0, 1))[-1]
    logits = networks.discriminator(normal), networks.discriminator(corrected)
    weights = list(networks.discriminator.parameters())
    expected = torch.autograd.grad(discriminator_loss(*logits), weights)
    seen = []
    spy_on(optimizers.generator, lambda: seen.append(gradients_of(networks.generator)))
    spy_on(optimizers.discriminator, lambda: seen.append(copy_of(networks.generator)))
    take_step(step_parts)
    gradients, state = seen
    assert is_same(gradients, gradients_of(networks.generator))
    assert is_same(state, copy_of(networks.generator))
    for gradient, right in zip(gradients_of(networks.discriminator), expected, strict=True):
        torch.testing.assert_close(gradient, right)


def test_both_networks_learn_in_an_adversarial_step(step_parts):
    networks, _, _ = step_parts
    before = [copy_of(networks.generator), copy_of(networks.discriminator)]
    losses = take_step(step_parts)
    assert list(losses) == ["reconstruction", "pyramid", "adversarial", "discriminator"]
    for network, old in zip((networks.generator, networks.discriminator), before, strict=True):
        assert not any(p.equal(old[name]) for name, p in network.named_parameters())


def test_the_discriminator_rests_until_the_adversarial_loss_begins(step_parts):
    networks, _, _ = step_parts
    before = copy_of(networks.discriminator)
    assert list(take_step(step_parts, is_adversarial=False)) == ["reconstruction", "pyramid"]
    assert is_same(copy_of(networks.discriminator), before)
    assert set(gradients_of(networks.discriminator)) == {None}


def test_gradients_do_not_pile_up_from_step_to_step(step_parts):
    networks, optimizers, _ = step_parts
    for optimizer in (optimizers.generator, optimizers.discriminator):
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    take_step(step_parts)
    first = gradients_of(networks.generator), gradients_of(networks.discriminator)
    take_step(step_parts)
    second = gradients_of(networks.generator), gradients_of(networks.discriminator)
    for before, after in zip(first, second, strict=True):
        for gradient, other in zip(before, after, strict=True):
            torch.testing.assert_close(gradient, other)


def test_levels_that_are_not_trained_yet_stay_as_they_are(step_parts):
    networks, _, _ = step_parts
    before = copy_of(networks.generator.sub_networks[1])
    upsamplings = copy_of(networks.generator.upsamplings)
    take_step(step_parts, active_count=1, is_adversarial=False)
    assert is_same(copy_of(networks.generator.upsamplings), upsamplings)
    assert is_same(copy_of(networks.generator.sub_networks[1]), before)
    assert set(gradients_of(networks.generator.sub_networks[1])) == {None}
    assert None not in gradients_of(networks.generator.sub_networks[0])


def test_two_versions_of_a_photo_are_trained_on_and_made_to_agree(step_parts):
    networks, optimizers, (_, normal) = step_parts
    versions = make_batch(2, 2, 3, 32, 32)
    losses = take_step((networks, optimizers, (versions, normal)), is_adversarial=False)
    assert losses["agreement"] > 0
    alike = versions[:, :1].expand(-1, 2, -1, -1, -1)
    losses = take_step((networks, optimizers, (alike, normal)), is_adversarial=False)
    assert losses["agreement"] == 0


def test_a_run_with_agreement_counts_photos_and_not_versions(run, tmp_path):
    assert run(agreement_weight=0.5) == 0
    assert all("agreement" in record["losses"] for record in records_of(tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run" / "last.pth")["progress"]["epoch"] == 3


def test_losses_of_an_untrained_network_are_those_of_the_abnormal_photo(train_settings):
    config = TrainConfig(**train_settings)
    networks = make_networks(config, CPU)
    abnormal, normal = torch.full((2, 1, 3, 32, 32), 0.25), torch.full((2, 3, 32, 32), 0.5)
    parts = networks, make_optimizers(networks, config), (abnormal, normal)
    losses = take_step(parts, is_adversarial=False)
    assert losses == pytest.approx({"reconstruction": 0.25, "pyramid": 0.25}, abs=1e-5)


# ------------------------------------------------------------------------------ validation


@pytest.fixture
def valid_loader(train_settings):
    return make_valid_loader(TrainConfig(**train_settings), 2, CPU)


def test_validation_gives_the_same_score_twice(valid_loader, step_parts):
    network = step_parts[0].average
    first, _ = train.validate(network, valid_loader, 2, CPU)
    torch.manual_seed(5)
    assert train.validate(network, valid_loader, 2, CPU)[0] == first


def test_validation_of_an_untrained_network_scores_the_untouched_photos(valid_loader):
    network = ExposureCorrectionNet([1, 1], [8, 8])
    scores, samples = train.validate(network, valid_loader, 2, CPU)
    normal = valid_loader.dataset[0][1]

    def to_bytes(image: torch.Tensor):
        return (image * 255).round().byte().permute(1, 2, 0).numpy()

    assert list(scores) == ["-2", "-1", "0", "+1", "+2", "all"]
    for ev, name in zip(VALIDATION_EVS, scores, strict=False):
        abnormal = to_bytes(quantise(shift_exposure(normal, ev)))
        expected = min(psnr(abnormal, to_bytes(normal)), 100), ssim(abnormal, to_bytes(normal))
        assert (scores[name]["psnr"], scores[name]["ssim"]) == pytest.approx(expected)
    assert scores["0"] == {"psnr": 100, "ssim": pytest.approx(1)}
    for metric in ("psnr", "ssim"):
        mean = sum(scores[name][metric] for name in list(scores)[:5]) / 5
        assert scores["all"][metric] == pytest.approx(mean)
    assert samples[0].shape == (3, len(VALIDATION_EVS), 3, 32, 32)


# ---------------------------------------------------------------------------- a whole run


def test_a_run_leaves_weights_checkpoint_log_and_pictures(run, tmp_path, capsys):
    assert run(begin_use_adv_loss_epoch=2) == 0
    run_dir = tmp_path / "run"
    assert sorted(path.name for path in run_dir.iterdir()) == RUN_FILES
    records = records_of(run_dir)
    assert [record["epoch"] for record in records] == [1, 2]
    assert list(records[0]["losses"]) == ["reconstruction", "pyramid"]
    adversarial = ["reconstruction", "pyramid", "adversarial", "discriminator"]
    assert list(records[1]["losses"]) == adversarial
    for record in records:
        assert list(record["valid"]) == ["-2", "-1", "0", "+1", "+2", "all"]
        assert all(math.isfinite(loss) for loss in record["losses"].values())
    for name in ("curve.png", "comparison.png"):
        with Image.open(run_dir / name) as picture:
            picture.load()
            assert picture.format == "PNG"
    assert load_weights(run_dir / "best.pth").architecture["layer_counts"] == [1, 1]

    out = capsys.readouterr().out.splitlines()
    assert out[0] == "no CUDA GPU is visible: training on the CPU"
    for epoch, line in enumerate(out[1:3], start=1):
        assert line.startswith(f"epoch {epoch}/2  levels 2")
        assert re.search(r"reconstruction 0\.\d+ .*-2: [\d.]+ dB .*all: [\d.]+ dB", line)
    assert "best.pth" in out[3]


def test_a_config_of_the_required_keys_alone_runs(run, train_settings):
    del train_settings["mixed_precision"]
    assert len(train_settings) == 22
    assert run(epochs=1) == 0


@pytest.mark.parametrize("image_size", [[20, 45], [16, 17]])
def test_sizes_that_no_level_divides_train_too(run, image_size):
    assert run(epochs=1, image_size=image_size, begin_use_adv_loss_epoch=1) == 0


def test_photos_too_small_for_their_levels_are_exit_code_2(run, capsys):
    assert run(epochs=1, image_size=[15, 64]) == 2
    error = capsys.readouterr().err
    assert "image_size is [15, 64]" in error and "8 px or more at the coarsest level" in error
    assert run(epochs=1, image_size=[16, 64]) == 0


def test_two_runs_with_one_config_are_equal_bit_for_bit(run, tmp_path):
    torch.manual_seed(1)
    assert run("first", begin_use_adv_loss_epoch=2) == 0
    torch.manual_seed(2)
    assert run("second", begin_use_adv_loss_epoch=2) == 0
    assert_runs_are_equal(tmp_path / "first", tmp_path / "second")
    assert run("third", begin_use_adv_loss_epoch=2, seed=3) == 0
    with pytest.raises(AssertionError):
        assert_runs_are_equal(tmp_path / "first", tmp_path / "third")


def test_the_number_of_workers_changes_nothing(run, tmp_path):
    assert run("none") == 0
    assert run("two", num_workers=2) == 0
    assert_runs_are_equal(tmp_path / "none", tmp_path / "two")


def test_losses_of_an_epoch_are_means_over_its_photos(run, tmp_path, monkeypatch):
    # batches of 2, 2 and 1 photo
    monkeypatch.setattr(train, "train_step", lambda *a, **_: {"reconstruction": float(len(a[2]))})
    assert run(epochs=1) == 0
    assert records_of(tmp_path / "run")[0]["losses"] == {"reconstruction": 9 / 5}


def test_the_rate_follows_one_cosine_over_all_epochs(run, monkeypatch):
    rates, step = [], train.train_step

    def noting(networks, optimizers, *batch, **settings):
        rates.append(optimizers.generator.param_groups[0]["lr"])
        return step(networks, optimizers, *batch, **settings)

    monkeypatch.setattr(train, "train_step", noting)
    assert run() == 0
    done = [0, 2 / 5, 4 / 5, 1, 1 + 2 / 5, 1 + 4 / 5]
    assert rates == pytest.approx([cosine_rate(1e-3, 1e-5, epochs / 2) for epochs in done])


def test_stages_begin_in_their_epochs_and_at_their_sizes(run, tmp_path, monkeypatch):
    shapes, step = [], train.train_step

    def noting(networks, optimizers, abnormal, normal, **settings):
        shapes.append((settings["active_count"], *abnormal.shape[3:]))
        return step(networks, optimizers, abnormal, normal, **settings)

    monkeypatch.setattr(train, "train_step", noting)
    settings = {
        "laplacian_level_count": 3,
        "layer_count_of_every_unet": [1, 1, 1],
        "first_layer_out_channels_of_every_unet": [8, 8, 8],
        "begin_use_level_epoch": [1, 2, 4],
        "epochs": 4,
        "batch_size": 5,
    }
    assert run(**settings) == 0
    assert shapes == [(1, 16, 16), (2, 32, 32), (2, 32, 32), (3, 32, 32)]
    assert [r["active_levels"] for r in records_of(tmp_path / "run")] == [1, 2, 2, 3]


def test_stages_are_counted_and_sized_from_the_coarsest(train_settings):
    levels = {
        "laplacian_level_count": 4,
        "layer_count_of_every_unet": [1] * 4,
        "first_layer_out_channels_of_every_unet": [8] * 4,
        "image_size": [512, 384],
    }
    stages = {"begin_use_level_epoch": [1, 1, 10, 20], "epochs": 20}
    config = TrainConfig(**(train_settings | levels | stages))
    counts = {epoch: count_active_levels(config, epoch) for epoch in (1, 9, 10, 19, 20, 99)}
    assert counts == {1: 2, 9: 2, 10: 3, 19: 3, 20: 4, 99: 4}
    sizes = [stage_image_size(config, count) for count in (1, 2, 3, 4)]
    assert sizes == [(128, 96), (256, 192), (512, 384), (512, 384)]
    assert count_active_levels(TrainConfig(**(train_settings | levels)), 1) == 4


@pytest.fixture
def script_scores(monkeypatch):
    """([(PSNR of the spoilt exposures, PSNR at 0 EV) by epoch]) -> epochs whose weights win."""

    def install(psnrs: list[tuple[float, float]]) -> list[int]:
        save, validate, left, winners = train.save_weights, train.validate, list(psnrs), []

        def scripted(*arguments):
            scores, samples = validate(*arguments)
            spoilt, right = left.pop(0)
            for name in scores:
                scores[name] = {"psnr": right if name == "0" else spoilt, "ssim": 0.5}
            scores["all"] = {"psnr": (4 * spoilt + right) / 5, "ssim": 0.5}
            return scores, samples

        def noting(*arguments):
            winners.append(len(psnrs) - len(left))
            save(*arguments)

        monkeypatch.setattr(train, "validate", scripted)
        monkeypatch.setattr(train, "save_weights", noting)
        return winners

    return install


@pytest.mark.parametrize(
    ("begin_epochs", "saved"),
    # Photos have half the size while one of three levels is trained, and the full one with two.
    [(None, [1, 2, 4]), ([1, 1, 3], [1, 2, 4]), ([1, 3, 3], [1, 2, 3, 4])],
)
def test_best_weights_are_those_of_the_best_epoch_at_their_photo_size(
    run, script_scores, begin_epochs, saved
):
    winners = script_scores([(psnr, 25.0) for psnr in (10.0, 30.0, 20.0, 40.0)])
    levels = {
        "laplacian_level_count": 3,
        "layer_count_of_every_unet": [1, 1, 1],
        "first_layer_out_channels_of_every_unet": [4, 4, 4],
    }
    assert run(epochs=4, begin_use_level_epoch=begin_epochs, batch_size=5, **levels) == 0
    assert winners == saved


def test_doing_nothing_does_not_win_by_its_score_on_photos_that_are_right(
    run, script_scores, tmp_path
):
    winners = script_scores([(15.0, 100.0), (15.5, 30.0), (15.2, 99.0)])
    assert run(epochs=3, batch_size=5) == 0
    assert winners == [1, 2]
    assert [record["valid"]["all"]["psnr"] for record in records_of(tmp_path / "run")] == [
        pytest.approx(psnr) for psnr in (32, 18.4, 31.96)
    ]
    assert load_checkpoint(tmp_path / "run" / "last.pth")["progress"]["best_psnr"] == 15.5


def test_the_psnr_that_decides_is_the_mean_over_wrong_exposures():
    psnrs = {"-2": 10.0, "-1": 20.0, "0": 100.0, "+1": 30.0, "+2": 12.0, "all": 34.4}
    scores = {name: {"psnr": psnr, "ssim": 0.5} for name, psnr in psnrs.items()}
    assert train.spoilt_psnr(scores) == 18


def test_the_average_of_the_weights_is_what_is_saved(run, tmp_path):
    assert run(ema_decay=0.99, epochs=1) == 0
    networks = load_checkpoint(tmp_path / "run" / "last.pth")["networks"]
    name = "sub_networks.0.head.bias"
    averaged = networks["average"][name]
    assert not averaged.equal(networks["generator"][name])
    weights = load_weights(tmp_path / "run" / "best.pth").state_dict()
    assert weights[name].equal(averaged.half().float())


# --------------------------------------------------------------- interrupted and resumed

HARD = {  # everything that has a state: stages, averages, weight decay, adversarial phase
    "epochs": 3,
    "begin_use_level_epoch": [1, 2],
    "begin_use_adv_loss_epoch": 2,
    "ema_decay": 0.9,
    "weight_decay": 1e-4,
    "discriminator_weight_decay": 1e-4,
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_under_way(run, tmp_path, after_step, capsys, number):
    after_step(lambda count: os.kill(os.getpid(), number) if count == 2 else None)
    assert run() == 128 + number
    error = capsys.readouterr().err
    assert "stopped in epoch 1 after 4 photos; the same command goes on from there" in error
    progress = load_checkpoint(tmp_path / "run" / "last.pth")["progress"]
    assert (progress["epoch"], progress["photo_count"]) == (1, 4)


def test_a_run_interrupted_after_every_step_equals_the_unbroken_one(run, tmp_path, after_step):
    assert run("unbroken", **HARD) == 0
    after_step(lambda _: os.kill(os.getpid(), signal.SIGINT))
    codes = [run("broken", **HARD) for _ in range(9)]
    assert codes == [130] * 9
    assert run("broken", **HARD) == 0  # all steps are done; the last epoch's end is left
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")


def test_a_resumed_run_may_use_another_number_of_workers(run, tmp_path, after_step):
    assert run("unbroken") == 0
    after_step(lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 2 else None)
    assert run("broken", num_workers=2) == 130
    assert run("broken", num_workers=1) == 0
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")


def test_a_killed_run_goes_on_from_its_last_checkpoint(run, tmp_path, after_step):
    class PowerCut(Exception):
        pass

    def fail(count: int) -> None:
        if count in (5, 9):
            raise PowerCut

    assert run("unbroken", **HARD) == 0
    after_step(fail)
    for _ in range(2):
        with pytest.raises(PowerCut):
            run("broken", **HARD, checkpoint_minutes=1e-9)
    assert run("broken", **HARD) == 0
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")


def test_a_run_killed_at_random_moments_ends_with_the_weights_of_the_unbroken_one(
    run, train_settings, write_json, tmp_path
):
    assert run("unbroken", **HARD) == 0
    # Checkpoints after every step: most of the time goes into them, and most kills hit one.
    changes = HARD | {"model_save_dir": str(tmp_path / "broken"), "checkpoint_minutes": 1e-9}
    config = write_json("broken.json", train_settings | changes)
    command = [sys.executable, "train.py", "--conf", str(config)]
    last, moments = tmp_path / "broken" / "last.pth", random.Random(0)
    for _ in range(5):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
    (tmp_path / "broken" / ".01234567.tmp.pth").touch()  # as a kill in the midst of writing does
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")
    assert sorted(path.name for path in last.parent.iterdir()) == RUN_FILES


@pytest.mark.parametrize("name", ["last.pth", "log.jsonl"])
def test_a_damaged_file_of_a_run_is_refused_with_the_fix(run, tmp_path, capsys, name):
    assert run(epochs=2) == 0
    (tmp_path / "run" / name).write_bytes(b"damaged")
    assert run(epochs=2) == 2
    error = capsys.readouterr().err
    assert f"{name}" in error and "move it away" in error and "Traceback" not in error
    assert (tmp_path / "run" / name).read_bytes() == b"damaged"


def test_a_run_goes_on_from_the_checkpoint_before_the_last(run, tmp_path):
    assert run("unbroken", **HARD) == 0
    assert run("broken", **HARD) == 0
    run_dir = tmp_path / "broken"
    (run_dir / "previous.pth").replace(run_dir / "last.pth")
    assert load_checkpoint(run_dir / "last.pth")["progress"]["epoch"] == HARD["epochs"]
    assert run("broken", **HARD) == 0
    assert_runs_are_equal(tmp_path / "unbroken", run_dir)


def test_the_log_has_each_epoch_once_after_a_crash_between_log_and_checkpoint(
    run, tmp_path, monkeypatch
):
    save = train.save_run

    def fail_in_epoch_2(path, networks, optimizers, progress, config):
        if progress.epoch == 3:  # the one to go on with
            raise OSError("disk full")
        save(path, networks, optimizers, progress, config)

    monkeypatch.setattr(train, "save_run", fail_in_epoch_2)
    assert run(epochs=3) == 2
    assert [record["epoch"] for record in records_of(tmp_path / "run")] == [1, 2]
    monkeypatch.undo()
    assert run(epochs=3) == 0
    assert [record["epoch"] for record in records_of(tmp_path / "run")] == [1, 2, 3]


def test_a_finished_run_started_again_changes_nothing(run, tmp_path, capsys):
    assert run(epochs=1) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert run(epochs=1) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert capsys.readouterr().out.count("best.pth") == 2


def test_a_checkpoint_of_another_config_is_refused_with_the_keys(run, tmp_path, capsys):
    assert run(epochs=1) == 0
    before = (tmp_path / "run" / "last.pth").read_bytes()
    assert run(epochs=2, seed=4) == 2
    error = capsys.readouterr().err
    assert "epochs is 2 here and 1 there" in error and "seed is 4 here and 0 there" in error
    assert "batch_size" not in error and "Traceback" not in error
    assert (tmp_path / "run" / "last.pth").read_bytes() == before


def test_a_run_interrupted_in_an_epoch_is_refused_with_other_photos(
    run, tmp_path, after_step, write_photos, capsys
):
    after_step(lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 2 else None)
    assert run() == 130
    before = (tmp_path / "run" / "last.pth").read_bytes()
    write_photos(tmp_path / "train", 6)
    assert run() == 2
    error = capsys.readouterr().err
    assert "train_data_dir: 6 photos an epoch, but 5 when the run was interrupted" in error
    assert str(tmp_path / "train") in error and "Traceback" not in error
    assert (tmp_path / "run" / "last.pth").read_bytes() == before
    (tmp_path / "train" / "photo_5.png").unlink()
    assert run() == 0


def test_photos_may_be_added_between_two_epochs(run, tmp_path, monkeypatch, write_photos):
    save = train.save_run

    class PowerCut(Exception):
        pass

    def fail_after(path, networks, optimizers, progress, config):
        save(path, networks, optimizers, progress, config)
        raise PowerCut

    monkeypatch.setattr(train, "save_run", fail_after)
    with pytest.raises(PowerCut):
        run()
    monkeypatch.setattr(train, "save_run", save)
    write_photos(tmp_path / "train", 6)
    assert run() == 0
    assert [record["epoch"] for record in records_of(tmp_path / "run")] == [1, 2]


# -------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["reconstruction", "pyramid"])
def test_a_loss_that_is_not_finite_stops_the_run_by_name(run, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(train, f"{name}_loss", lambda o, _: o[-1].mean() * float("nan"))
    assert run() == 1
    error = capsys.readouterr().err
    assert f"the {name} loss is nan in epoch 1 after 0 photos" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "last.pth").exists()


def test_a_full_memory_is_told_in_one_line(run, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(train, "train_step", fail)
    assert run() == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "the memory is full; lower batch_size or image_size"
    )


def test_a_loss_is_checked_before_it_spoils_the_weights(step_parts, monkeypatch):
    networks, _, _ = step_parts
    before = copy_of(networks.generator)
    monkeypatch.setattr(train, "adversarial_loss", lambda logits, _: logits.mean() * math.inf)
    with pytest.raises(train.NonFiniteLossError, match="the adversarial loss is"):
        take_step(step_parts)
    assert is_same(copy_of(networks.generator), before)


def test_a_rate_far_too_high_is_told_and_the_good_checkpoint_stays(run, tmp_path, capsys):
    assert run(epochs=50, init_lr=1e8, final_lr=1e8) == 1
    error = capsys.readouterr().err
    assert re.search(r"the \w+ loss is (nan|inf) in epoch \d+ .*lower init_lr", error)
    if (tmp_path / "run" / "last.pth").exists():
        state = load_checkpoint(tmp_path / "run" / "last.pth")["networks"]["generator"]
        assert all(weight.isfinite().all() for weight in state.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, ["epochs is 0"]),
        ({"batch_sise": 3}, ["batch_sise is not a known key; did you mean batch_size?"]),
        ({"init_lr": "fast", "seed": -1}, ['init_lr is "fast"', "seed is -1"]),
        ({"layer_count_of_every_unet": [1]}, ["layer_count_of_every_unet is [1]"]),
        ({"train_data_dir": "no/where"}, ["train_data_dir: no/where is not a folder"]),
        ({"valid_data_dir": "tests"}, ["valid_data_dir: no photo in tests"]),
        ({"pretrained_model": "no/where.pth"}, ["no/where.pth: no such file"]),
    ],
)
def test_faults_of_the_config_are_lines_and_exit_code_2(run, capsys, monkeypatch, changes, words):
    monkeypatch.chdir(ROOT)
    assert run(**changes) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert len(error.splitlines()) == len(words)
    assert "Traceback" not in error


def test_a_file_in_place_of_the_runs_folder_is_exit_code_2(run, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert run("taken") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"model_save_dir is {tmp_path / 'taken'}: can't be made a folder")


def test_a_missing_config_is_exit_code_2(tmp_path, capsys):
    assert train.main(["--conf", str(tmp_path / "none.json")]) == 2
    assert "none.json: no such file" in capsys.readouterr().err


def test_the_command_reports_faults_without_a_traceback(train_settings, write_json):
    path = write_json("conf.json", train_settings | {"epochs": 0, "batch_size": 0})
    command = [sys.executable, "train.py", "--conf", str(path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{path}: batch_size is 0")
    assert lines[1].startswith(f"{path}: epochs is 0")


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_photos_that_are_all_unreadable_are_told_in_one_line(run, tmp_path, capsys, num_workers):
    for path in (tmp_path / "train").iterdir():
        path.write_bytes(b"no photo")
    assert run(num_workers=num_workers) == 2
    error = capsys.readouterr().err
    assert "none of the 5 photos can be read" in error
    assert "Traceback" not in error


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_broken_photo_among_good_ones_does_not_stop_a_run(run, tmp_path):
    (tmp_path / "train" / "photo_2.png").write_bytes(b"no photo")
    (tmp_path / "valid" / "broken.jpg").write_bytes(b"")
    assert run(epochs=1) == 0


@pytest.mark.filterwarnings("ignore:skipped")
def test_photos_both_trained_and_validated_on_are_warned_of(run, tmp_path):
    shared = next((tmp_path / "train").iterdir())
    (tmp_path / "valid" / "too.png").write_bytes(shared.read_bytes())
    with pytest.warns(UserWarning, match=r"valid_data_dir: 1 of 2 photos, such as .*too\.png"):
        assert run(epochs=1) == 0


def test_unreadable_validation_photos_do_not_count(run, tmp_path):
    assert run("whole", epochs=1) == 0
    (tmp_path / "valid" / "a_broken.jpg").write_bytes(b"no photo")
    (tmp_path / "valid" / "z_broken.png").write_bytes(b"")
    assert run("broken", epochs=1) == 0
    assert_runs_are_equal(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.filterwarnings("ignore:skipped")
def test_validation_photos_that_are_all_unreadable_are_exit_code_2(run, tmp_path, capsys):
    for path in (tmp_path / "valid").iterdir():
        path.write_bytes(b"no photo")
    assert run() == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"valid_data_dir: no photo in {tmp_path / 'valid'} can be read"]


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_in_the_place_of_the_run_is_told_before_any_epoch(run, tmp_path, capsys, name):
    (tmp_path / "file").write_text("no folder")
    assert run(model_save_dir=str(tmp_path / name)) == 2
    out, error = capsys.readouterr()
    assert str(tmp_path / name) in error and "Traceback" not in error
    assert "epoch" not in out
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_batch_that_processes_cannot_share_evenly_is_exit_code_2(
    run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(train, "rank_count", lambda: 3)
    assert run(batch_size=4) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["batch_size is 4; 3 processes cannot share it evenly: make it a multiple"]
    assert not (tmp_path / "run").exists()


def test_pretrained_weights_that_contradict_the_config_are_exit_code_2(run, tmp_path, capsys):
    save_weights(tmp_path / "three.pth", ExposureCorrectionNet([1, 1, 1], [8, 8, 8]))
    assert run(epochs=1, pretrained_model=str(tmp_path / "three.pth")) == 2
    error = capsys.readouterr().err
    assert "three.pth" in error and "Traceback" not in error


def test_only_the_listed_gpus_are_visible(run):
    assert run(epochs=1) == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""

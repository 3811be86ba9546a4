import io
import math
import os
import re
import signal
import warnings

import pytest
import torch
from PIL import Image
from train_runs import RUN_FILES, assert_runs_are_equal, records_of

import train
from checkpoint import load_checkpoint, load_weights
from config import TrainConfig
from run_state import cosine_rate


def test_a_run_leaves_weights_checkpoint_log_and_pictures(run_train, tmp_path, capsys):
    assert run_train(begin_use_adv_loss_epoch=2) == 0
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
    comparisons = sorted((run_dir / "comparisons").iterdir())
    assert [path.name for path in comparisons] == ["epoch_001.png", "epoch_002.png"]
    for path in (run_dir / "curve.png", *comparisons):
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
    assert load_weights(run_dir / "best.pth").architecture["layer_counts"] == [1, 1]

    out = capsys.readouterr().out.splitlines()
    assert out[0] == "no CUDA GPU is visible: training on the CPU"
    for epoch, line in enumerate(out[1:3], start=1):
        assert line.startswith(f"epoch {epoch}/2  levels 2")
        assert re.search(r"reconstruction 0\.\d+ .*-2: [\d.]+ dB .*all: [\d.]+ dB", line)
    assert "best.pth" in out[3]


def test_a_warning_is_one_line_without_code(run_train):
    run_train(epochs=1)
    line = warnings.formatwarning("skipped: a.jpg", UserWarning, "loader.py", 117)
    assert line == "warning: skipped: a.jpg\n"


def test_a_config_of_the_required_keys_alone_runs(run_train, train_settings):
    del train_settings["mixed_precision"]
    assert len(train_settings) == 22
    assert run_train(epochs=1) == 0


@pytest.mark.parametrize("image_size", [[20, 45], [16, 17]])
def test_sizes_that_no_level_divides_train_too(run_train, image_size):
    assert run_train(epochs=1, image_size=image_size, begin_use_adv_loss_epoch=1) == 0


def test_photos_too_small_for_their_levels_are_exit_code_2(run_train, capsys):
    assert run_train(epochs=1, image_size=[15, 64]) == 2
    error = capsys.readouterr().err
    assert "image_size is [15, 64]" in error and "8 px or more at the coarsest level" in error
    assert run_train(epochs=1, image_size=[16, 64]) == 0


def test_two_runs_with_one_config_are_equal_bit_for_bit(run_train, tmp_path):
    torch.manual_seed(1)
    assert run_train("first", begin_use_adv_loss_epoch=2) == 0
    torch.manual_seed(2)
    assert run_train("second", begin_use_adv_loss_epoch=2) == 0
    assert_runs_are_equal(tmp_path / "first", tmp_path / "second")
    assert run_train("third", begin_use_adv_loss_epoch=2, seed=3) == 0
    with pytest.raises(AssertionError):
        assert_runs_are_equal(tmp_path / "first", tmp_path / "third")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_number_of_workers_changes_nothing(run_train, tmp_path):
    settings = {"log_steps": 1, "crop_scale": [0.5, 1.0], "retone_strength": 0.5}
    for num_workers in (0, 1, 3):
        assert run_train(f"{num_workers}", num_workers=num_workers, **settings) == 0
    assert_runs_are_equal(tmp_path / "0", tmp_path / "1")
    assert_runs_are_equal(tmp_path / "0", tmp_path / "3")


def test_the_log_has_a_line_of_every_few_steps_where_asked_for(run_train, tmp_path):
    assert run_train(log_steps=2) == 0  # of six, three in an epoch
    records = records_of(tmp_path / "run")
    steps = [(r["epoch"], r["step"], r.get("photos")) for r in records]
    assert steps == [(1, 2, 4), (1, 3, None), (2, 4, 2), (2, 6, 5), (2, 6, None)]
    assert all(list(r["losses"]) == ["reconstruction", "pyramid"] for r in records)


def test_the_progress_bar_tells_photos_per_second_and_time_left(run_train, monkeypatch, after_step):
    shown = io.StringIO()
    bar = train.tqdm
    settings = {"file": shown, "mininterval": 0}
    monkeypatch.setattr(train, "tqdm", lambda **s: bar(**(s | settings | {"disable": False})))
    after_step(lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 1 else None)
    assert run_train(epochs=1) == 130
    shown.truncate(0)
    assert run_train(epochs=1) == 0  # goes on after 2 of 5 photos
    assert re.search(r"epoch 1/1:  40%.* 2/5 ", shown.getvalue())
    assert re.search(r" 4/5 \[00:00<00:0\d, +[\d.]+photo/s, reconstruction=", shown.getvalue())


@pytest.mark.parametrize("is_deterministic", [True, False])
def test_kernels_that_repeat_themselves_are_a_switch(monkeypatch, train_settings, is_deterministic):
    switched = []
    monkeypatch.setattr(train, "train", lambda *_: None)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *a, **_: switched.append(a))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", is_deterministic)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    config = TrainConfig(**train_settings, deterministic=is_deterministic)
    assert train.run(torch.device("cuda"), config, False) == 0
    assert switched == [(True,)] * is_deterministic
    assert torch.backends.cudnn.benchmark is not is_deterministic
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if is_deterministic else None)


def test_losses_of_an_epoch_are_means_over_its_photos(run_train, tmp_path, monkeypatch):
    # batches of 2, 2 and 1 photo
    monkeypatch.setattr(train, "train_step", lambda *a, **_: {"reconstruction": float(len(a[2]))})
    assert run_train(epochs=1) == 0
    assert records_of(tmp_path / "run")[0]["losses"] == {"reconstruction": 9 / 5}


def test_the_rate_follows_one_cosine_over_all_epochs(run_train, monkeypatch):
    rates, step = [], train.train_step

    def noting(networks, optimizers, *batch, **settings):
        rates.append(optimizers.generator.param_groups[0]["lr"])
        return step(networks, optimizers, *batch, **settings)

    monkeypatch.setattr(train, "train_step", noting)
    assert run_train() == 0
    done = [0, 2 / 5, 4 / 5, 1, 1 + 2 / 5, 1 + 4 / 5]
    assert rates == pytest.approx([cosine_rate(1e-3, 1e-5, epochs / 2) for epochs in done])


def test_stages_begin_in_their_epochs_and_at_their_sizes(run_train, tmp_path, monkeypatch):
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
    assert run_train(**settings) == 0
    assert shapes == [(1, 16, 16), (2, 32, 32), (2, 32, 32), (3, 32, 32)]
    assert [r["active_levels"] for r in records_of(tmp_path / "run")] == [1, 2, 2, 3]


def test_a_frozen_first_stage_keeps_its_weights_to_the_end(run_train, tmp_path):
    stages = {"begin_use_level_epoch": [1, 2], "is_first_stage_frozen": True, "ema_decay": 0.9}
    networks = {}
    for epochs in (2, 3):
        run_dir = tmp_path / f"{epochs} epochs"
        assert run_train(epochs=epochs, model_save_dir=str(run_dir), **stages) == 0
        networks[epochs] = load_checkpoint(run_dir / "last.pth")["networks"]
    average = networks[2]["average"]
    for later in (networks[2]["generator"], networks[3]["generator"], networks[3]["average"]):
        for name, weight in average.items():
            assert weight.equal(later[name]) == name.startswith("sub_networks.0"), name


def test_a_run_with_agreement_counts_photos_and_not_versions(run_train, tmp_path):
    assert run_train(agreement_weight=0.5) == 0
    assert all("agreement" in record["losses"] for record in records_of(tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run" / "last.pth")["progress"]["epoch"] == 3


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
    run_train, script_scores, begin_epochs, saved
):
    winners = script_scores([(psnr, 25.0) for psnr in (10.0, 30.0, 20.0, 40.0)])
    levels = {
        "laplacian_level_count": 3,
        "layer_count_of_every_unet": [1, 1, 1],
        "first_layer_out_channels_of_every_unet": [4, 4, 4],
    }
    assert run_train(epochs=4, begin_use_level_epoch=begin_epochs, batch_size=5, **levels) == 0
    assert winners == saved


def test_levels_that_never_begin_stay_as_they_were(run_train, tmp_path):
    assert run_train(epochs=2, begin_use_level_epoch=[1, None]) == 0
    weights = load_weights(tmp_path / "run" / "best.pth").state_dict()
    coarse, fine = (weights[f"sub_networks.{index}.head.weight"] for index in (0, 1))
    assert coarse.abs().max() > 0
    assert fine.abs().max() == 0
    epochs = [record["active_levels"] for record in records_of(tmp_path / "run")]
    assert epochs == [1, 1]


def test_doing_nothing_does_not_win_by_its_score_on_photos_that_are_right(
    run_train, script_scores, tmp_path
):
    winners = script_scores([(15.0, 100.0), (15.5, 30.0), (15.2, 99.0)])
    assert run_train(epochs=3, batch_size=5) == 0
    assert winners == [1, 2]
    assert [record["valid"]["all"]["psnr"] for record in records_of(tmp_path / "run")] == [
        pytest.approx(psnr) for psnr in (32, 18.4, 31.96)
    ]
    assert load_checkpoint(tmp_path / "run" / "last.pth")["progress"]["best_psnr"] == 15.5


def test_the_average_of_the_weights_is_what_is_saved(run_train, tmp_path):
    assert run_train(ema_decay=0.99, epochs=1) == 0
    networks = load_checkpoint(tmp_path / "run" / "last.pth")["networks"]
    name = "sub_networks.0.head.bias"
    averaged = networks["average"][name]
    assert not averaged.equal(networks["generator"][name])
    weights = load_weights(tmp_path / "run" / "best.pth").state_dict()
    assert weights[name].equal(averaged.half().float())

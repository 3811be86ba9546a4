import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from train_runs import RUN_FILES, assert_runs_are_equal, records_of

import train
from checkpoint import load_checkpoint

HARD = {  # everything that has a state: stages, averages, weight decay, adversarial phase
    "epochs": 3,
    "begin_use_level_epoch": [1, 2],
    "begin_use_adv_loss_epoch": 2,
    "ema_decay": 0.9,
    "weight_decay": 1e-4,
    "discriminator_weight_decay": 1e-4,
    "log_steps": 2,  # of three in an epoch
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_under_way_and_the_run_goes_on_from_there(
    run_train, tmp_path, after_step, capsys, number
):
    assert run_train("unbroken", **HARD) == 0
    after_step(lambda count: os.kill(os.getpid(), number) if count == 2 else None)
    assert run_train("broken", **HARD) == 128 + number
    error = capsys.readouterr().err
    assert "stopped in epoch 1 after 4 photos; the same command goes on from there" in error
    progress = load_checkpoint(tmp_path / "broken" / "last.pth")["progress"]
    assert (progress["epoch"], progress["photo_count"]) == (1, 4)
    assert run_train("broken", **HARD) == 0
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_run_interrupted_after_every_step_equals_the_unbroken_one(
    run_train, tmp_path, after_step, is_frozen
):
    settings = HARD | {"is_first_stage_frozen": is_frozen}
    assert run_train("unbroken", **settings) == 0
    after_step(lambda _: os.kill(os.getpid(), signal.SIGINT))
    codes = [run_train("broken", **settings) for _ in range(9)]
    assert codes == [130] * 9
    assert run_train("broken", **settings) == 0  # all steps are done; the last epoch's end is left
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")


def test_a_signal_in_validation_stops_after_it(run_train, tmp_path, monkeypatch, capsys):
    assert run_train("unbroken") == 0
    validate = train.validate
    monkeypatch.setattr(
        train, "validate", lambda *a: os.kill(os.getpid(), signal.SIGINT) or validate(*a)
    )
    assert run_train("broken") == 130
    error = capsys.readouterr().err
    assert "stopped after epoch 1; the same command goes on from there" in error
    progress = load_checkpoint(tmp_path / "broken" / "last.pth")["progress"]
    assert (progress["epoch"], progress["photo_count"]) == (2, 0)
    assert run_train("broken") == 0  # the signal came in the last validation
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")


def test_a_run_killed_in_validation_loses_no_step(run_train, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    assert run_train("unbroken") == 0
    monkeypatch.setattr(train, "validate", fail)
    with pytest.raises(MemoryError):
        run_train("broken")
    progress = load_checkpoint(tmp_path / "broken" / "last.pth")["progress"]
    assert (progress["epoch"], progress["photo_count"]) == (1, 5)
    monkeypatch.undo()
    assert run_train("broken") == 0
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")


def test_a_resumed_run_may_use_another_number_of_workers(run_train, tmp_path, after_step):
    assert run_train("unbroken") == 0
    after_step(lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 2 else None)
    assert run_train("broken", num_workers=2) == 130
    assert run_train("broken", num_workers=1) == 0
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")


def test_a_killed_run_goes_on_from_its_last_checkpoint(run_train, tmp_path, after_step):
    class PowerCut(Exception):
        pass

    def fail(count: int) -> None:
        if count in (5, 9):
            raise PowerCut

    assert run_train("unbroken", **HARD) == 0
    after_step(fail)
    for _ in range(2):
        with pytest.raises(PowerCut):
            run_train("broken", **HARD, checkpoint_minutes=1e-9)
    assert run_train("broken", **HARD) == 0
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")


def test_a_run_killed_at_random_moments_ends_with_the_weights_of_the_unbroken_one(
    run_train, train_settings, write_json, tmp_path
):
    assert run_train("unbroken", **HARD) == 0
    # Checkpoints after every step: most of the time goes into them, and most kills hit one.
    changes = HARD | {"model_save_dir": str(tmp_path / "broken"), "checkpoint_minutes": 1e-9}
    config = write_json("broken.json", train_settings | changes)
    command = [sys.executable, "train.py", "--conf", str(config)]
    last, moments = tmp_path / "broken" / "last.pth", random.Random(0)
    for attempt in range(5):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
            time.sleep(0.001)
        if attempt % 2:
            time.sleep(moments.uniform(0, 0.1))
        else:  # in mid-checkpoint
            while process.poll() is None and not list(last.parent.glob(".*.tmp.pth")):
                pass
        process.kill()
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
    (tmp_path / "broken" / ".01234567.tmp.pth").touch()  # as a kill in the midst of writing does
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")
    assert sorted(path.name for path in last.parent.iterdir()) == RUN_FILES


def test_a_resumed_run_needs_no_pretrained_weights(run_train, write_weights, tmp_path, after_step):
    settings = {"has_gain": True, "pretrained_model": str(write_weights(gain=0.1))}
    assert run_train("unbroken", **settings) == 0
    after_step(lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 2 else None)
    assert run_train("broken", **settings) == 130
    Path(settings["pretrained_model"]).unlink()
    assert run_train("broken", **settings) == 0
    assert_runs_are_equal(tmp_path / "unbroken", tmp_path / "broken")


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("last.pth", "previous.pth in its place, or choose another model_save_dir"),
        ("log.jsonl", "move it away to go on"),
    ],
)
def test_a_damaged_file_of_a_run_is_refused_with_the_fix(run_train, tmp_path, capsys, name, fix):
    assert run_train(epochs=2) == 0
    (tmp_path / "run" / name).write_bytes(b"damaged\n")
    assert run_train(epochs=2) == 2
    error = capsys.readouterr().err
    assert name in error and fix in error and "Traceback" not in error
    assert (tmp_path / "run" / name).read_bytes() == b"damaged\n"


def test_a_run_whose_checkpoint_is_gone_does_not_begin_anew_over_the_one_before(
    run_train, tmp_path, capsys
):
    assert run_train(epochs=2) == 0
    last, previous = tmp_path / "run" / "last.pth", tmp_path / "run" / "previous.pth"
    last.unlink()
    assert run_train(epochs=2) == 2
    assert f"{last} is missing; put {previous} in its place, or" in capsys.readouterr().err


HOLD = (
    "from utils import holding\nwith holding({!r}) as is_ours: print(is_ours, flush=True); input()"
)


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is held there")
def test_a_second_run_in_the_same_folder_is_refused(run_train, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    left = tmp_path / "run" / ".01234567.tmp.pth"
    left.touch()
    command = [sys.executable, "-c", HOLD.format(str(tmp_path / "run"))]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "True\n"
        assert run_train(epochs=1) == 2
        assert "/run: another run is under way there; let it end" in capsys.readouterr().err
        assert left.exists()
        other.kill()
    assert run_train(epochs=1) == 0
    assert not left.exists()


def test_a_run_goes_on_from_the_checkpoint_before_the_last(run_train, tmp_path):
    assert run_train("unbroken", **HARD) == 0
    assert run_train("broken", **HARD) == 0
    run_dir = tmp_path / "broken"
    (run_dir / "previous.pth").replace(run_dir / "last.pth")
    assert load_checkpoint(run_dir / "last.pth")["progress"]["epoch"] == HARD["epochs"]
    assert run_train("broken", **HARD) == 0
    assert_runs_are_equal(tmp_path / "unbroken", run_dir)


def test_the_log_has_each_epoch_once_after_a_crash_between_log_and_checkpoint(
    run_train, tmp_path, monkeypatch
):
    save = train.save_run

    def fail_in_epoch_2(path, networks, optimizers, progress, config):
        if progress.epoch == 3:  # the one to go on with
            raise OSError("disk full")
        save(path, networks, optimizers, progress, config)

    monkeypatch.setattr(train, "save_run", fail_in_epoch_2)
    assert run_train(epochs=3) == 2
    assert [record["epoch"] for record in records_of(tmp_path / "run")] == [1, 2]
    monkeypatch.undo()
    assert run_train(epochs=3) == 0
    assert [record["epoch"] for record in records_of(tmp_path / "run")] == [1, 2, 3]


def test_a_finished_run_started_again_changes_nothing(run_train, tmp_path, capsys):
    assert run_train(epochs=1) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    assert run_train(epochs=1) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")} == before
    assert capsys.readouterr().out.count("best.pth") == 2


def test_a_checkpoint_of_another_config_is_refused_with_the_keys(run_train, tmp_path, capsys):
    assert run_train(epochs=1) == 0
    before = (tmp_path / "run" / "last.pth").read_bytes()
    assert run_train(epochs=2, seed=4) == 2
    error = capsys.readouterr().err
    assert "epochs is 2 here and 1 there" in error and "seed is 4 here and 0 there" in error
    assert "batch_size" not in error and "Traceback" not in error
    assert (tmp_path / "run" / "last.pth").read_bytes() == before


def test_a_run_interrupted_in_an_epoch_is_refused_with_other_photos(
    run_train, tmp_path, after_step, write_photos, capsys
):
    after_step(lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 2 else None)
    assert run_train() == 130
    before = (tmp_path / "run" / "last.pth").read_bytes()
    write_photos(tmp_path / "train", 6)
    assert run_train() == 2
    error = capsys.readouterr().err
    assert "train_data_dir: 6 photos an epoch, but 5 when the run was interrupted" in error
    assert str(tmp_path / "train") in error and "Traceback" not in error
    assert (tmp_path / "run" / "last.pth").read_bytes() == before
    (tmp_path / "train" / "photo_5.png").unlink()
    assert run_train() == 0


def test_photos_may_be_added_between_two_epochs(run_train, tmp_path, monkeypatch, write_photos):
    save = train.save_run

    class PowerCut(Exception):
        pass

    def fail_after(path, networks, optimizers, progress, config):
        save(path, networks, optimizers, progress, config)
        if progress.photo_count == 0:
            raise PowerCut

    monkeypatch.setattr(train, "save_run", fail_after)
    with pytest.raises(PowerCut):
        run_train()
    monkeypatch.setattr(train, "save_run", save)
    write_photos(tmp_path / "train", 6)
    assert run_train() == 0
    assert [record["epoch"] for record in records_of(tmp_path / "run")] == [1, 2]

import os
import re
import signal
import sys
import types

import pytest
import torch

import dataset
import rehearsal
import train
from checkpoint import load_checkpoint
from config import TrainConfig
from rehearsal import format_time, split_into_stages, time_loading

STAGES = {
    "epochs": 5,
    "begin_use_level_epoch": [1, 3],
    "begin_use_adv_loss_epoch": 5,
    "agreement_weight": 0.5,
}


@pytest.fixture
def rehearse(train_settings, write_json):
    """(changed settings) -> exit code of a dry run."""

    def call(**changes) -> int:
        config = write_json("conf.json", train_settings | changes)
        return train.main(["--conf", str(config), "--dry-run"])

    return call


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_dry_run_tells_photos_speed_time_and_memory_and_writes_nothing(
    rehearse, tmp_path, capsys, num_workers
):
    before = sorted(tmp_path.rglob("*"))
    assert rehearse(**STAGES, num_workers=num_workers) == 0
    assert [p for p in sorted(tmp_path.rglob("*")) if p.name != "conf.json"] == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == [
        "train_data_dir: 5 photos, 5 can be read",
        "valid_data_dir: 1 photos can be read",
    ]
    for line, stage in zip(
        lines[3:6],
        (
            "epochs 1 to 2: levels 1, 32 x 32 px, adversarial off",
            "epochs 3 to 4: levels 2, 32 x 32 px, adversarial off",
            "epoch 5: levels 2, 32 x 32 px, adversarial on",
        ),
        strict=True,
    ):
        assert line.startswith(stage)
        assert re.search(r": loading [\d.]+, training [\d.]+; an epoch \d+ s$", line)
    assert re.fullmatch(r"in all about \d+ s; memory \d+\.\d GB", lines[6])
    assert len(lines) == 7


def test_a_dry_run_counts_the_photos_that_cannot_be_read(rehearse, tmp_path, capsys):
    (tmp_path / "train" / "photo_2.png").write_bytes(b"no photo")
    with pytest.warns(UserWarning, match=r"skipped: .*photo_2\.png"):
        assert rehearse(epochs=1) == 0
    assert "train_data_dir: 5 photos, 4 can be read" in capsys.readouterr().out


def test_a_dry_run_stops_at_a_signal_while_photos_are_read(rehearse, monkeypatch, capsys):
    read = []

    def load_rgb(path, **options):
        read.append(path)
        if path.parent.name == "train":  # those for validation are read first
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(dataset, "load_rgb", load_rgb)
    assert rehearse() == 130
    assert [path.parent.name for path in read].count("train") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_dry_run_of_unreadable_photos_is_exit_code_2(rehearse, tmp_path, capsys):
    for path in (tmp_path / "train").iterdir():
        path.write_bytes(b"no photo")
    assert rehearse(num_workers=2) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"train_data_dir: none of the 5 photos, such as {tmp_path / 'train' / 'photo_0.png'}, "
        "can be read; put photos there that can"
    )


def test_a_dry_run_warns_of_photos_both_trained_and_validated_on(rehearse, tmp_path):
    shared = next((tmp_path / "train").iterdir())
    (tmp_path / "valid" / "too.png").write_bytes(shared.read_bytes())
    with pytest.warns(UserWarning, match="valid_data_dir: 1 of 2 photos"):
        assert rehearse(epochs=1) == 0


def test_a_dry_run_of_a_run_that_is_done_says_so(run_train, rehearse, capsys):
    assert run_train(epochs=1) == 0
    capsys.readouterr()
    assert rehearse(epochs=1) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("last.pth: all 1 epochs are done")


def test_a_dry_run_looks_at_the_checkpoint_and_leaves_it(run_train, rehearse, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert run_train(epochs=3, batch_size=5) == 0
    (run_dir / "previous.pth").replace(run_dir / "last.pth")  # the last epoch is to do
    before = {path: path.read_bytes() for path in run_dir.rglob("*.*")}
    assert rehearse(epochs=3, batch_size=5) == 0
    out = capsys.readouterr().out
    assert "last.pth: goes on with epoch 3" in out and "epoch 3: levels 2" in out
    assert rehearse(epochs=4, batch_size=5) == 2
    assert "epochs is 4 here and 3 there" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run_dir.rglob("*.*")} == before
    assert load_checkpoint(run_dir / "last.pth")["progress"]["epoch"] == 3


def test_a_dry_run_charges_what_is_left_of_an_epoch(
    run_train, rehearse, after_step, monkeypatch, capsys
):
    after_step(lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 2 else None)
    assert run_train(epochs=2) == 130  # after 4 of 5 photos
    monkeypatch.setattr(rehearsal, "time_loading", lambda *_: (2.0, []))
    monkeypatch.setattr(rehearsal, "time_steps", lambda *_: 5.0)
    monkeypatch.setattr(rehearsal, "time_validation", lambda *_: 10.0)
    capsys.readouterr()
    assert rehearse(epochs=2) == 0
    out = capsys.readouterr().out
    assert "; an epoch 45 s" in out and "in all about 62 s;" in out


def test_a_dry_run_refuses_other_photos_in_mid_epoch(
    run_train, rehearse, tmp_path, after_step, capsys
):
    after_step(lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 2 else None)
    assert run_train() == 130
    (tmp_path / "train" / "photo_4.png").unlink()
    assert rehearse() == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "train_data_dir: 4 photos an epoch, but 5 when the run was interrupted" in error


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_dry_run_refuses_a_file_in_place_of_the_runs_folder(rehearse, tmp_path, capsys, name):
    (tmp_path / "file").write_text("")
    assert rehearse(model_save_dir=str(tmp_path / name)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"model_save_dir is {tmp_path / name}: {tmp_path / 'file'} is a file")


def test_a_dry_run_refuses_a_folder_that_it_may_not_write_to(rehearse, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)  # administrators may write anywhere
    assert rehearse() == 2
    assert "is read-only; name another" in capsys.readouterr().err


def test_a_dry_run_misses_tensorboard(rehearse, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert rehearse(tensorboard=True) == 2
    assert "pip install tensorboard" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("worker_count", [1, 3])
def test_loading_is_timed_once_every_worker_has_given_a_batch(monkeypatch, worker_count):
    """Played workers give their batches together, a second after those before."""
    clock = [0.0]
    monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: clock[0])

    class Loader:
        sampler = types.SimpleNamespace(epoch=0)

        def __iter__(self):
            for number in range(100):
                clock[0] = 1.0 + number // worker_count
                yield [torch.zeros(2, 1), torch.full((2,), number)]

    seconds, kept = time_loading(Loader(), worker_count)
    assert seconds == 1 / (2 * worker_count)
    assert len(kept) == rehearsal.STEP_COUNT


def test_a_signal_ends_a_dry_run(rehearse, monkeypatch, capsys):
    step = rehearsal.train_step
    monkeypatch.setattr(
        rehearsal,
        "train_step",
        lambda *a, **s: step(*a, **s) and os.kill(os.getpid(), signal.SIGINT),
    )
    assert rehearse() == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"


def test_stages_are_the_epochs_left_that_train_the_same_networks(train_settings):
    config = TrainConfig(**(train_settings | STAGES))
    assert split_into_stages(config, 1) == [[1, 2], [3, 4], [5]]
    assert split_into_stages(config, 4) == [[4], [5]]
    assert split_into_stages(config, 6) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (89, "89 s"), (150, "2 min"), (3599, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_times_are_told_in_words(seconds, words):
    assert format_time(seconds) == words

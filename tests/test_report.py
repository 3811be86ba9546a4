import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoint import CheckpointError
from config import ConfigError
from report import RunLog, make_writer, save_comparison, save_curve


def make_record(epoch: int, active_levels: int = 2, **losses: float) -> dict:
    scores = {name: {"psnr": 20.0 + epoch, "ssim": 0.8} for name in ("-2", "0", "+2", "all")}
    return {
        "epoch": epoch,
        "step": 2 * epoch,
        "active_levels": active_levels,
        "seconds": 1.5,
        "losses": {"reconstruction": 0.1 / epoch, **losses},
        "valid": scores,
    }


def epochs_of(path) -> list[int]:
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()]


def test_log_has_a_line_per_epoch_and_the_curve_is_drawn(tmp_path):
    log = RunLog(tmp_path / "run", 1)
    records = [make_record(1, 1), make_record(2), make_record(3, adversarial=0.01)]
    for record in records:
        log.add(record)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records
    with Image.open(tmp_path / "run" / "curve.png") as picture:
        picture.load()
        assert picture.format == "PNG" and min(picture.size) > 200


@pytest.mark.parametrize(("epoch", "left"), [(1, []), (2, [1]), (3, [1, 2]), (4, [1, 2, 3])])
def test_log_goes_on_with_the_epoch_that_is_resumed(tmp_path, epoch, left):
    log = RunLog(tmp_path, 1)
    for number in (1, 2, 3):
        log.add(make_record(number))
    RunLog(tmp_path, epoch).add(make_record(epoch))
    assert epochs_of(tmp_path / "log.jsonl") == [*left, epoch]


def test_a_log_that_is_only_opened_stays_as_it_is(tmp_path):
    RunLog(tmp_path, 1).add(make_record(1))
    RunLog(tmp_path, 1)
    assert epochs_of(tmp_path / "log.jsonl") == [1]


def make_step(epoch: int, photos: int) -> dict:
    return {"epoch": epoch, "step": photos // 2, "photos": photos, "losses": {"pyramid": 0.1}}


@pytest.mark.parametrize(
    ("epoch", "photo_count", "left"), [(1, 0, 0), (1, 3, 1), (1, 4, 2), (2, 0, 3), (2, 2, 4)]
)
def test_log_goes_on_after_the_step_that_is_resumed(tmp_path, epoch, photo_count, left):
    records = [make_step(1, 2), make_step(1, 4), make_record(1), make_step(2, 2), make_step(2, 4)]
    log = RunLog(tmp_path, 1)
    for record in records:
        log.add(record)
    log = RunLog(tmp_path, epoch, photo_count)
    log.add(make_step(9, 2))
    log.add(make_step(9, 4))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    expected = [*records[:left], make_step(9, 2), make_step(9, 4)]
    assert [json.loads(line) for line in lines] == expected


def test_records_of_steps_leave_the_memory_once_they_are_written(tmp_path):
    log = RunLog(tmp_path, 1)
    for record in (make_step(1, 2), make_step(1, 4), make_record(1), make_step(2, 2)):
        log.add(record)
    assert log.records == [make_record(1)]
    assert epochs_of(tmp_path / "log.jsonl") == [1, 1, 1, 2]


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    log = RunLog(tmp_path, 1)
    log.add(make_record(1))
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"epoch": 2, "st')
    log = RunLog(tmp_path, 2)
    log.add(make_step(2, 2))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [make_record(1), make_step(2, 2)]


# ---------------------------------------------------------------------------- TensorBoard


def test_tensorboard_that_is_not_installed_is_named_with_the_fix(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="not installed; pip install tensorboard, or set it to"):
        make_writer(tmp_path, 0)


def test_tensorboard_gets_what_the_log_gets(tmp_path, monkeypatch):
    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int):
            self.made, self.scalars = (folder, purge_step), []

        def add_scalar(self, *scalar) -> None:
            self.scalars.append(scalar)

        def flush(self) -> None:
            self.scalars.append("flushed")

    tensorboard = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    writer = make_writer(tmp_path, 7)
    assert writer.made == (str(tmp_path / "tensorboard"), 8)
    log = RunLog(tmp_path, 2, writer=writer)
    log.add(make_step(2, 16))
    assert writer.scalars == [("loss of the step/pyramid", 0.1, 8), "flushed"]
    log.add(make_record(2))
    assert ("loss of the epoch/reconstruction", 0.05, 4) in writer.scalars
    assert ("psnr/-2", 22.0, 4) in writer.scalars and ("ssim/all", 0.8, 4) in writer.scalars


@pytest.mark.parametrize("line", [b"{", b'{"epochs": 1}', b"3", b'"epoch"', b"\xff"])
def test_a_damaged_log_is_named(tmp_path, line):
    (tmp_path / "log.jsonl").write_bytes(line + b"\n")
    with pytest.raises(CheckpointError, match=r"log\.jsonl is damaged; move it away"):
        RunLog(tmp_path, 1)


def test_curve_is_drawn_from_the_first_epoch_on(tmp_path):
    save_curve(tmp_path / "curve.png", [make_record(1)])
    assert Image.open(tmp_path / "curve.png").format == "PNG"


def make_samples(num_photos: int, num_exposures: int, height: int, width: int):
    """Flat photos: abnormal at 10, 20, ..., corrected at 110, 120, ..., normal at 200."""
    samples = []
    for _ in range(num_photos):
        steps = torch.arange(1, num_exposures + 1) * 10
        tones = torch.stack([steps, steps + 100, torch.full_like(steps, 200)]).byte()
        samples.append(tones[:, :, None, None, None].expand(-1, -1, 3, height, width))
    return samples


def test_comparison_shows_abnormal_above_corrected_and_the_normal_photo_last(tmp_path):
    save_comparison(tmp_path / "comparison.png", make_samples(2, 3, 6, 8))
    grid = np.asarray(Image.open(tmp_path / "comparison.png"))
    assert grid.shape == (4 * 6, 4 * 8, 3)
    tones = grid[3::6, 4::8, 0].tolist()
    assert tones == [[10, 20, 30, 200], [110, 120, 130, 200]] * 2


def test_comparison_of_large_photos_is_scaled_down(tmp_path):
    save_comparison(tmp_path / "comparison.png", make_samples(1, 2, 60, 90), width=30)
    assert Image.open(tmp_path / "comparison.png").size == (3 * 30, 2 * 20)

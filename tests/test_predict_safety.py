"""predict.py where files are hostile, folders shut, disks full and photos large."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from photo_files import ADOBE, icc_chunk, png_chunk
from pictures import files_in, read, save

import correction
from folder import make_output_dir

needs_rights_withheld = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="rights bind all users but root"
)


def failures(error: str) -> dict[str, str]:
    """The reason by file, of the lines of stderr that name one below `photos`."""
    lines = [line for line in error.splitlines() if "/photos/" in line]
    return dict(line.split("/photos/")[1].split(": ", 1) for line in lines)


def test_hostile_files_are_named_with_their_reasons_and_the_others_done(
    run_predict, tmp_path, write_photos, capsys
):
    (good,) = write_photos(tmp_path / "photos", 1)
    photos, png = good.parent, good.read_bytes()
    size = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    (photos / "bomb.png").write_bytes(png[:8] + png_chunk(b"IHDR", size) + png[33:])
    (photos / "liar.jpg").write_bytes(b"PK\3\4 an archive")
    (photos / "renamed.jpg").write_bytes(png)
    (photos / "loop.jpg").symlink_to("loop.jpg")
    (photos / "ring").symlink_to(photos, target_is_directory=True)
    os.mkfifo(photos / "pipe.jpg")
    assert run_predict() == 1
    out, error = capsys.readouterr()
    reasons = failures(error)
    assert sorted(reasons) == ["bomb.png", "liar.jpg", "loop.jpg", "pipe.jpg"]
    assert "3600 megapixels" in reasons["bomb.png"] and "raise max_meg" in reasons["bomb.png"]
    assert "is no JPEG, PNG" in reasons["liar.jpg"]
    assert "Too many levels of symbolic links" in reasons["loop.jpg"]
    assert "is not a file" in reasons["pipe.jpg"]
    assert "2 corrected, 4 failed" in out and "Traceback" not in error
    assert files_in(tmp_path / "out") == [good.name, "renamed.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_names_that_are_no_text_are_printed_escaped(run_predict, tmp_path, write_photos, capsys):
    (good,) = write_photos(tmp_path / "photos", 1)
    (good.parent / os.fsdecode(b"notes.\xff")).touch()
    (good.parent / os.fsdecode(b"\xff.jpg")).touch()
    assert run_predict() == 1
    out, error = capsys.readouterr()
    assert "left out, as no photos by their suffix: 1 .\\udcff" in out
    assert "/photos/\\udcff.jpg: is empty" in error
    assert files_in(tmp_path / "out") == [good.name]


# ------------------------------------------------------------------------------- folders


def test_a_folder_that_cannot_be_listed_is_told_and_the_others_done(
    run_predict, tmp_path, write_photos, monkeypatch, capsys
):
    write_photos(tmp_path / "photos" / "open", 1)
    write_photos(tmp_path / "photos" / "shut", 1)
    scandir = os.scandir

    def scan(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert run_predict() == 1
    out, error = capsys.readouterr()
    assert failures(error) == {"shut": "cannot be listed: Permission denied"}
    assert "1 corrected, 1 failed" in out
    monkeypatch.undo()
    assert files_in(tmp_path / "out") == ["open/photo_0.png"]


def test_a_read_only_output_folder_fails_photo_by_photo(
    run_predict, tmp_path, write_photos, monkeypatch, capsys
):
    write_photos(tmp_path / "photos", 2)
    open_path = Path.open

    def open_outside(path, *arguments, **settings):
        if tmp_path / "out" in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return open_path(path, *arguments, **settings)

    monkeypatch.setattr(Path, "open", open_outside)
    assert run_predict() == 1
    error = capsys.readouterr().err
    for name in ("photo_0.png", "photo_1.png"):
        assert f"{tmp_path / 'out' / name}: cannot be written: Permission denied" in error
    assert files_in(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("error", "line"), [(MemoryError(), "MemoryError"), (RuntimeError("a\nb\n"), "a b")]
)
def test_whatever_fails_is_told_in_one_line(
    run_predict, tmp_path, write_photos, monkeypatch, capsys, error, line
):
    write_photos(tmp_path / "photos", 1)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(correction, "correct", fail)
    assert run_predict() == 1
    assert capsys.readouterr().err == f"{tmp_path / 'photos' / 'photo_0.png'}: {line}\n"


def test_a_comparison_that_cannot_be_written_is_named_and_the_photo_fails(
    run_predict, tmp_path, write_photos, monkeypatch, capsys
):
    write_photos(tmp_path / "photos", 1)

    def fail(*_):
        raise OSError(28, "No space left on device", ".0123.tmp.png")

    monkeypatch.setattr(correction, "save_comparison", fail)
    assert run_predict(compare=True) == 1
    result = tmp_path / "out" / "photo_0.png"
    named = f"{result}.compare.png: cannot be written: No space left on device"
    assert named in capsys.readouterr().err
    assert not result.exists()


@needs_rights_withheld
@pytest.mark.parametrize(("folder", "words"), [("photos/shut", "listed"), ("out", "written")])
def test_rights_that_are_withheld_are_told(
    run_predict, tmp_path, write_photos, capsys, folder, words
):
    write_photos(tmp_path / "photos", 1)
    write_photos(tmp_path / "photos" / "shut", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / folder).chmod(0o555 if folder == "out" else 0)
    try:
        assert run_predict() == 1
    finally:
        (tmp_path / folder).chmod(0o755)
    assert f"cannot be {words}: Permission denied" in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_no_half_file_and_what_fits_is_done(
    run_predict, tmp_path, write_photos, write_weights, capsys
):
    resource = pytest.importorskip("resource")
    write_photos(tmp_path / "photos", 2)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    save(tmp_path / "photos" / "large.png", noise)
    make_output_dir(tmp_path / "out")
    earlier = save(tmp_path / "out" / "large.png", noise[:2]).read_bytes()
    write_weights()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # of any one file
    try:
        assert run_predict() == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    out, error = capsys.readouterr()
    assert f"{tmp_path / 'out' / 'large.png'}: cannot be written: File too large" in error
    assert "2 corrected, 1 failed" in out
    assert files_in(tmp_path / "out") == ["large.png", "photo_0.png", "photo_1.png"]
    assert (tmp_path / "out" / "large.png").read_bytes() == earlier


# -------------------------------------------------------------------------------- memory

MEASURE = """
import sys
from pathlib import Path
import correction
from config import PredictConfig, load_config

def resident(key):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(key)]
    return int(line.split()[1]) * 1024

config = load_config(sys.argv[1], PredictConfig)
model = correction.load_model(config.pretrained_model)
out = Path(config.result_output_dir)
correction.correct_file(Path(sys.argv[2]), out / "small.jpg", model, config)
base = resident("VmRSS")
correction.correct_file(Path(sys.argv[3]), out / Path(sys.argv[3]).name, model, config)
print(resident("VmHWM") - base)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(("name", "limit"), [("large.jpg", 5), ("deep.png", 4)])
def test_a_large_photo_takes_a_few_times_its_own_pixels_of_memory(
    tmp_path, make_photo, write_json, write_weights, name, limit
):
    height, width = 4000, 6000
    small = save(tmp_path / "small.jpg", make_photo())
    pixels = cv2.resize(make_photo(), (width, height)) // 3
    if name == "deep.png":
        pixels = cv2.cvtColor(pixels * np.uint16(257), cv2.COLOR_RGB2RGBA)
    large = save(tmp_path / name, pixels)
    if name == "deep.png":
        data = large.read_bytes()
        large.write_bytes(data[:33] + icc_chunk(ADOBE) + data[33:])
    values = {
        "img_pth": "unused",
        "image_size": [64, 64],
        "use_orig_size": False,
        "result_output_dir": str(tmp_path / "out"),
        "pretrained_model": str(write_weights(1.0)),
        "show_result": False,
    }
    conf = write_json("predict_conf.json", values)
    command = [sys.executable, "-c", MEASURE, *map(str, (conf, small, large))]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert read(tmp_path / "out" / name).shape == pixels.shape
    times = int(result.stdout) / pixels.nbytes
    assert times < limit, f"{times:.1f} times the size of the photo's pixels"

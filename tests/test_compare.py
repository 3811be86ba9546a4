import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from pictures import files_in, save
from PIL import Image

import correction
from compare import save_comparison, show_window


def test_comparison_shows_before_left_and_after_right(tmp_path):
    before = np.zeros((40, 60, 3), np.float32)
    after = np.ones((40, 60, 3), np.float32) * np.float32([1, 0, 0])
    save_comparison(tmp_path / "deep" / "photo.png", before, after)
    picture = np.asarray(Image.open(tmp_path / "deep" / "photo.png").convert("RGB"))
    height, width = picture.shape[:2]
    assert tuple(picture[height * 2 // 5, width // 4]) == (0, 0, 0)
    assert tuple(picture[height * 2 // 5, width * 3 // 4]) == (255, 0, 0)


@pytest.mark.parametrize("backend", [None, "tkagg"])
def test_without_a_display_show_result_says_so_once_and_goes_on(
    tmp_path, write_photos, write_json, write_weights, backend
):
    write_photos(tmp_path / "photos", 3)
    values = {
        "img_pth": str(tmp_path / "photos"),
        "image_size": [32, 32],
        "use_orig_size": False,
        "result_output_dir": str(tmp_path / "out"),
        "pretrained_model": str(write_weights()),
        "show_result": True,
    }
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    result = subprocess.run(
        [sys.executable, "predict.py", "--conf", str(write_json("show.json", values))],
        cwd=ROOT,
        env=environment | ({"MPLBACKEND": backend} if backend else {}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("show_result: no display") == 1
    assert "Traceback" not in result.stderr
    assert files_in(tmp_path / "out") == ["photo_0.png", "photo_1.png", "photo_2.png"]


def test_a_window_shows_every_photo_before_and_after(
    run_predict, tmp_path, write_photos, monkeypatch
):
    paths = write_photos(tmp_path / "photos", 2)
    shown = []
    monkeypatch.setattr(correction, "show_window", lambda *files: shown.append(files) or True)
    assert run_predict(show_result=True, max_megapixels=7) == 0
    assert sorted(shown) == [(path, tmp_path / "out" / path.name, 7_000_000) for path in paths]


def test_where_no_window_opens_no_other_is_tried(run_predict, tmp_path, write_photos, monkeypatch):
    write_photos(tmp_path / "photos", 3)
    calls = []
    monkeypatch.setattr(correction, "show_window", lambda *files: bool(calls.append(files)))
    assert run_predict(show_result=True) == 0
    assert len(calls) == 1 and len(files_in(tmp_path / "out")) == 3


def test_a_window_that_does_not_open_leaves_no_figure(tmp_path, make_photo, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    photo = save(tmp_path / "photo.png", make_photo())
    assert not show_window(photo, photo, 10**6)
    assert pyplot.get_fignums() == []
    assert "show_result: no display, or no toolkit" in capsys.readouterr().err


def test_a_window_has_before_on_the_left_and_after_on_the_right(tmp_path, make_photo, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    monkeypatch.setattr(pyplot, "get_backend", lambda: "QtAgg")
    before = save(tmp_path / "before.png", make_photo(20, 30))
    after = save(tmp_path / "after.png", make_photo(20, 30, seed=1))
    shown = []

    def show():
        for axis in pyplot.gcf().axes:
            shown.append((axis.get_title(), axis.images[0].get_array()))

    monkeypatch.setattr(pyplot, "show", show)
    assert show_window(before, after, 10**6)
    assert [title for title, _ in shown] == [f"before: {before}", f"after: {after}"]
    assert np.array_equal(shown[0][1], make_photo(20, 30))
    assert np.array_equal(shown[1][1], make_photo(20, 30, seed=1))
    assert pyplot.get_fignums() == []

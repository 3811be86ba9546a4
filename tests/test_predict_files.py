"""predict.py on files and folders."""

import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from pictures import files_in, read, save
from PIL import Image

import correction
import distributed
from interruption import SIGNALS


def small_config(tmp_path, write_weights) -> dict:
    """A predict_conf.json for a process of its own."""
    return {
        "img_pth": str(tmp_path / "photos"),
        "image_size": [32, 32],
        "use_orig_size": False,
        "result_output_dir": str(tmp_path / "out"),
        "pretrained_model": str(write_weights()),
        "show_result": False,
    }


def test_an_untrained_network_returns_photos_unchanged(run_predict, tmp_path, make_photo):
    rng = np.random.default_rng(0)
    photos = {
        "a.png": make_photo(150, 211),
        "noise.png": rng.integers(0, 256, (97, 64, 3), dtype=np.uint8),
        "deep.png": rng.integers(0, 65536, (61, 90, 3), dtype=np.uint16),
        "small.png": make_photo(9, 5),
    }
    for name, photo in photos.items():
        save(tmp_path / "photos" / name, photo)
    for settings in ({}, {"use_orig_size": True}):
        assert run_predict(**settings) == 0
        for name, photo in photos.items():
            result = read(tmp_path / "out" / name)
            assert result.dtype == photo.dtype
            assert np.array_equal(result, photo), name


def test_photos_come_out_at_full_size_and_corrected(run_predict, tmp_path, make_photo):
    photo = make_photo(120, 90) // 3
    save(tmp_path / "photos" / "dark.png", photo)
    assert run_predict(gain=1.0) == 0
    result = read(tmp_path / "out" / "dark.png")
    assert np.abs(result - photo * 2.0).max() <= 1


def test_structure_and_names_are_kept_and_namesakes_do_not_meet(
    run_predict, tmp_path, make_photo, capsys
):
    photo = make_photo(24, 32)
    names = ["a.jpg", "a.png", "IMG_1.JPG", "deep/er/a.png", "Ü ber.png"]
    for name in names:
        save(tmp_path / "photos" / name, photo)
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    assert run_predict() == 0
    assert "left out, as no photos by their suffix: 1 .txt\n" in capsys.readouterr().out
    assert files_in(tmp_path / "out") == sorted(names)
    for name in names:
        with Image.open(tmp_path / "out" / name) as result:
            assert result.format == ("PNG" if name.endswith("png") else "JPEG")
            assert result.size == (32, 24)


def test_photos_in_the_output_folder_are_counted_as_left_out(
    run_predict, write_photos, tmp_path, capsys
):
    folder = tmp_path / "photos"
    write_photos(folder, 2)
    line = f"left out, as they are in {folder / 'out'}: 2\n"
    for is_told in (False, True):
        assert run_predict(folder, "--output", folder / "out") == 0
        assert (line in capsys.readouterr().out) == is_told


def test_a_broken_file_among_good_ones_is_told_and_the_others_are_done(
    run_predict, tmp_path, write_photos, capsys
):
    paths = write_photos(tmp_path / "photos", 3)
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    (tmp_path / "photos" / "empty.jpg").write_bytes(b"")
    assert run_predict() == 1
    out, error = capsys.readouterr()
    assert files_in(tmp_path / "out") == ["photo_0.png", "photo_2.png"]
    lines = [line for line in error.splitlines() if line.startswith(str(tmp_path))]
    assert sorted(line.split(": ")[0] for line in lines) == [
        str(tmp_path / "photos" / "empty.jpg"),
        str(paths[1]),
    ]
    assert all(len(line.split(": ", 1)[1]) > 5 for line in lines)  # the reason
    assert "Traceback" not in error
    assert "2 corrected, 2 failed" in out


def test_a_single_broken_file_is_exit_code_1(run_predict, tmp_path, capsys):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 broken")
    assert run_predict(path) == 1
    assert "broken.jpg: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or files_in(tmp_path / "out") == []


def test_grey_stays_grey(run_predict, tmp_path, make_photo):
    grey = make_photo(50, 60)[..., 0] // 3
    save(tmp_path / "photos" / "grey.png", grey)
    assert run_predict(gain=1.0) == 0
    result = read(tmp_path / "out" / "grey.png")
    assert result.ndim == 2
    assert np.abs(result - grey * 2.0).max() <= 1


def test_rgba_keeps_its_alpha(run_predict, tmp_path, make_photo):
    alpha = make_photo(50, 60, seed=3)[..., :1]
    photo = make_photo(50, 60) // 3
    save(tmp_path / "photos" / "clear.png", np.concatenate([photo, alpha], axis=2))
    assert run_predict(gain=1.0) == 0
    result = read(tmp_path / "out" / "clear.png")
    assert np.array_equal(result[..., 3], alpha[..., 0])
    assert np.abs(result[..., :3] - photo * 2.0).max() <= 1


def test_sixteen_bits_stay_sixteen_bits(run_predict, tmp_path):
    ramp = np.linspace(0, 30000, 64 * 80 * 3).round().astype(np.uint16).reshape(64, 80, 3)
    save(tmp_path / "photos" / "deep.png", ramp)
    assert run_predict(gain=1.0) == 0
    result = read(tmp_path / "out" / "deep.png")
    assert result.dtype == np.uint16
    assert np.abs(result - ramp * 2.0).max() <= 30
    assert len(np.unique(result)) > 10_000


def test_path_and_output_override_the_config(run_predict, tmp_path, write_photos):
    write_photos(tmp_path / "photos", 2)
    one = write_photos(tmp_path / "elsewhere", 1)[0]
    assert run_predict(one, "--output", tmp_path / "there") == 0
    assert files_in(tmp_path / "there") == ["photo_0.png"]
    assert not (tmp_path / "out").exists()


def test_a_result_folder_inside_the_photos_is_no_photo(run_predict, tmp_path, write_photos):
    write_photos(tmp_path / "photos", 2)
    inside = tmp_path / "photos" / "results"
    for _ in range(2):
        assert run_predict("--output", inside) == 0
        assert files_in(inside) == ["photo_0.png", "photo_1.png"]


@pytest.mark.parametrize("is_single", [False, True])
def test_results_are_never_written_over_the_photos(
    run_predict, tmp_path, write_photos, capsys, is_single
):
    photo = write_photos(tmp_path / "photos", 1)[0]
    before = photo.read_bytes()
    arguments = (photo if is_single else tmp_path / "photos", "--output", tmp_path / "photos")
    assert run_predict(*arguments, gain=1.0) == 2
    error = capsys.readouterr().err
    assert "result_output_dir" in error and "would be replaced; name another" in error
    assert photo.read_bytes() == before


def test_results_are_not_written_over_photos_through_a_link(run_predict, tmp_path, write_photos):
    photo = write_photos(tmp_path / "photos", 1)[0]
    before = photo.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    assert run_predict("--output", tmp_path / "link", gain=1.0) == 2
    assert photo.read_bytes() == before


def test_results_are_not_written_over_other_photos_of_the_folder(run_predict, tmp_path, make_photo):
    # in x/, a.png would become a.png beside x/, and x/x/b.png x/b.png, which is a photo
    photos = tmp_path / "home" / "x"
    for name in ("a.png", "b.png", "x/b.png"):
        save(photos / name, make_photo(seed=len(name)))
    before = {name: (photos / name).read_bytes() for name in files_in(photos)}
    assert run_predict(photos, "--output", tmp_path / "home", gain=1.0) == 2
    assert {name: (photos / name).read_bytes() for name in files_in(photos)} == before


@pytest.mark.parametrize(
    ("path", "words"),
    [("nowhere", "no such file or folder"), ("nowhere.jpg", "no such"), ("empty", "no photo in")],
)
def test_a_path_without_photos_is_exit_code_2(run_predict, tmp_path, capsys, path, words):
    (tmp_path / "empty").mkdir()
    assert run_predict(tmp_path / path) == 2
    error = capsys.readouterr().err
    assert words in error and path in error and len(error.splitlines()) == 1


def test_a_file_in_place_of_the_output_folder_is_exit_code_2(
    run_predict, tmp_path, write_photos, capsys
):
    write_photos(tmp_path / "photos", 1)
    (tmp_path / "out").write_text("a file where the folder should be")
    assert run_predict() == 2
    error = capsys.readouterr().err
    assert error == f"result_output_dir is {tmp_path / 'out'}: a file; name a folder\n"


def test_a_network_gone_wrong_fails_photo_by_photo(
    run_predict, tmp_path, write_photos, write_weights, capsys
):
    write_photos(tmp_path / "photos", 2)
    weights = write_weights(float("nan"), name="nan.pth")
    assert run_predict(pretrained_model=str(weights)) == 1
    error = capsys.readouterr().err
    assert "not finite" in error and "photo_0.png" in error and "photo_1.png" in error


def test_processes_of_torchrun_share_the_folder(run_predict, tmp_path, write_photos, monkeypatch):
    write_photos(tmp_path / "photos", 3)
    monkeypatch.setattr(distributed, "wait_for_others", lambda: None)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run_predict() == 0
    assert files_in(tmp_path / "out") == ["photo_1.png"]
    monkeypatch.setenv("RANK", "0")
    assert run_predict() == 0
    assert files_in(tmp_path / "out") == ["photo_0.png", "photo_1.png", "photo_2.png"]


def test_no_process_writes_before_all_have_listed_the_folder(
    run_predict, tmp_path, write_photos, monkeypatch
):
    write_photos(tmp_path / "photos", 1)
    written = []
    monkeypatch.setattr(
        distributed, "wait_for_others", lambda: written.append(files_in(tmp_path / "out"))
    )
    assert run_predict() == 0
    assert written == [[], ["photo_0.png"]]


def test_ctrl_c_is_exit_code_130_and_one_line(
    run_predict, tmp_path, write_photos, monkeypatch, capsys
):
    write_photos(tmp_path / "photos", 2)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(correction, "correct_files", stop)
    assert run_predict() == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "what is finished stays, skip_existing goes on" in line


def test_ctrl_c_begins_no_further_photo_and_says_what_it_waits_for(
    run_predict, tmp_path, write_photos, monkeypatch, capsys
):
    paths, begun = write_photos(tmp_path / "photos", 40), []

    def correct_file(path, *_):
        begun.append(path)
        time.sleep(0.02)

    def interrupted(_):
        time.sleep(0.03)
        raise KeyboardInterrupt

    monkeypatch.setattr(correction, "correct_file", correct_file)
    monkeypatch.setattr(correction, "as_completed", interrupted)
    assert run_predict() == 130
    assert 0 < len(begun) < len(paths)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "stopping after the photos under way; Ctrl-C again to stop at once"
    assert last.startswith("stopped; ")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it_after_the_photos_under_way(
    number, tmp_path, write_photos, write_weights, write_json
):
    write_photos(tmp_path / "photos", 400)
    conf = write_json("conf.json", small_config(tmp_path, write_weights))
    command = [sys.executable, "predict.py", "--conf", str(conf)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not files_in(tmp_path / "out"):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.communicate(timeout=60)[1].endswith("skip_existing goes on from there\n")
    assert process.returncode == 128 + number
    left = files_in(tmp_path / "out")
    assert 0 < len(left) < 400
    assert all(name.startswith("photo_") for name in left)  # no temporary file


def test_where_nobody_reads_the_output_it_ends_without_a_traceback(
    tmp_path, write_photos, write_weights, write_json
):
    write_photos(tmp_path / "photos", 1)
    (tmp_path / "photos" / "notes.txt").touch()  # which is told before the photo is corrected
    conf = write_json("conf.json", small_config(tmp_path, write_weights))
    process = subprocess.Popen(
        [sys.executable, "-u", "predict.py", "--conf", str(conf)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == ("", 1)
    process.stderr.close()

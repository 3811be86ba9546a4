import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

import adjust
import predict
from checkpoint import FORMAT_VERSION, CheckpointError
from config import PredictConfig


@pytest.fixture
def run(tmp_path, write_json, write_weights):
    """(command line, gain of the network, config) -> exit code; results go to tmp_path / out."""

    def call(*arguments, gain: float = 0.0, **changes) -> int:
        values = {
            "img_pth": str(tmp_path / "photos"),
            "image_size": [32, 32],
            "use_orig_size": False,
            "result_output_dir": str(tmp_path / "out"),
            "pretrained_model": str(write_weights(gain)),
            "show_result": False,
        }
        config = write_json("predict_conf.json", values | changes)
        return predict.main([*map(str, arguments), "--conf", str(config)])

    return call


def save(path: Path, photo: np.ndarray) -> Path:
    """Write RGB, RGBA or grey; of 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    orders = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    cv2.imwrite(str(path), photo[..., orders[photo.shape[2]]] if photo.ndim == 3 else photo)
    return path


def read(path: Path) -> np.ndarray:
    photo = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    orders = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    return photo[..., orders[photo.shape[2]]] if photo.ndim == 3 else photo


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# ---------------------------------------------------------------------------- in Python


@pytest.fixture
def doubling(write_weights):
    return predict.load_model(write_weights(1.0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_correct_keeps_shape_and_type(doubling, make_photo, dtype):
    photo = make_photo(50, 70) // 4
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    corrected = predict.correct((photo * float(scale)).astype(dtype), doubling, (32, 32))
    assert corrected.shape == photo.shape and corrected.dtype == dtype
    np.testing.assert_allclose(corrected / scale, photo * 2.0, atol=1.0)


def test_correct_reads_any_memory_layout(doubling, make_photo):
    photo = make_photo(50, 70) // 3
    expected = predict.correct(photo, doubling, (32, 32))
    views = [
        np.asfortranarray(photo),
        np.ascontiguousarray(photo[..., ::-1])[..., ::-1],  # as cv2.imread(...)[..., ::-1] is
        np.ascontiguousarray(photo[::-1, ::-1])[::-1, ::-1],
    ]
    for view in views:
        for image_size in ((32, 32), (100, 100)):
            expected = predict.correct(photo, doubling, image_size)
            assert np.array_equal(predict.correct(view, doubling, image_size), expected)


def test_correct_leaves_its_input_alone(doubling, make_photo):
    photo = make_photo(40, 40)
    predict.correct(photo, doubling, (100, 100), use_orig_size=True)
    assert np.array_equal(photo, make_photo(40, 40))


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 3), np.float64),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.float32),
    ],
)
def test_correct_refuses_other_shapes_and_types(doubling, photo):
    with pytest.raises(ValueError, match=r"photo is .*; allowed: \(H, W, 3\) uint8"):
        predict.correct(photo, doubling)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (2, 2), (33, 65)])
@pytest.mark.parametrize("use_orig_size", [False, True])
def test_photos_of_any_size_are_corrected(doubling, make_photo, size, use_orig_size):
    photo = make_photo(*size) // 4
    corrected = predict.correct(photo, doubling, (16, 16), use_orig_size)
    np.testing.assert_allclose(corrected, photo * 2.0, atol=1)


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((200, 400), (100, 300), (100, 200)),
        ((400, 200), (100, 300), (200, 100)),  # the box is turned
        ((400, 200), (300, 100), (200, 100)),
        ((200, 400), (300, 100), (100, 200)),
        ((300, 300), (50, 100), (50, 50)),
        ((1000, 10), (100, 100), (100, 1)),
        ((3000, 1), (100, 100), (100, 1)),
        ((33, 65), (64, 64), (32, 64)),
    ],
)
def test_photos_are_fitted_into_the_box_with_their_aspect(size, box, expected):
    assert predict.fit_into(np.zeros((*size, 3), np.uint8), box).shape == (*expected, 3)


@pytest.mark.parametrize("size", [(30, 20), (64, 64), (20, 64)])
def test_photos_are_never_enlarged(size):
    photo = np.zeros((*size, 3), np.uint8)
    assert predict.fit_into(photo, (64, 64)) is photo


def test_fitting_averages_the_pixels(make_photo):
    photo = make_photo(64, 64)
    blocks = photo.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(predict.fit_into(photo, (16, 16)) - blocks).max() <= 1


@pytest.mark.parametrize(
    ("size", "use_orig_size", "seen"),
    [
        ((80, 40), False, (32, 16)),
        ((40, 80), False, (16, 32)),
        ((80, 40), True, (80, 40)),
        ((12, 30), False, (12, 30)),
    ],
)
def test_the_network_sees_the_size_that_the_config_says(
    run, tmp_path, make_photo, monkeypatch, size, use_orig_size, seen
):
    save(tmp_path / "photos" / "a.png", make_photo(*size))
    shapes, run_network = [], predict.run_network

    def noting(abnormal, *others):
        shapes.append(abnormal.shape)
        return run_network(abnormal, *others)

    monkeypatch.setattr(predict, "run_network", noting)
    assert run(image_size=[16, 32], use_orig_size=use_orig_size) == 0
    assert shapes == [(*seen, 3)]
    assert read(tmp_path / "out" / "a.png").shape == (*size, 3)


def test_the_network_gets_levels_strength_and_more_only_where_asked(doubling, make_photo):
    photo = make_photo(40, 40) // 4
    plain = predict.correct(photo, doubling)
    assert np.array_equal(predict.correct(photo, doubling, strength=0.0), photo)
    half = predict.correct(photo, doubling, strength=0.5)
    np.testing.assert_allclose(half, (photo + plain.astype(float)) / 2, atol=1)
    assert not predict.correct(photo, doubling, level_scales=[0, 0]).any()


# ------------------------------------------------------------------------------- weights


def test_weights_load_on_the_cpu_and_ready_to_use(write_weights):
    model = predict.load_model(write_weights(0.5))
    assert not model.training
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_weights_with_code_inside_are_refused(run, tmp_path, write_photos, capsys):
    write_photos(tmp_path / "photos", 1)
    proof, path = tmp_path / "proof", tmp_path / "evil.pth"

    class Trap:
        def __reduce__(self):
            return Path.touch, (proof,)

    torch.save({"format_version": FORMAT_VERSION, "weights": Trap()}, path)
    with pytest.raises(CheckpointError):
        predict.load_model(path)
    assert run(pretrained_model=str(path)) == 2
    error = capsys.readouterr().err
    assert "evil.pth" in error and "Traceback" not in error
    assert not proof.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["missing.pth", "broken.pth"])
def test_weights_that_cannot_be_read_are_exit_code_2(run, tmp_path, write_photos, capsys, name):
    write_photos(tmp_path / "photos", 1)
    (tmp_path / "broken.pth").write_bytes(b"broken")
    assert run(pretrained_model=str(tmp_path / name)) == 2
    assert name in capsys.readouterr().err


def test_an_architecture_that_contradicts_the_weights_names_both_values(
    run, tmp_path, write_photos, capsys
):
    write_photos(tmp_path / "photos", 1)
    code = run(
        laplacian_level_count=3,
        layer_count_of_every_unet=[1, 1, 2],
        first_layer_out_channels_of_every_unet=[8, 8, 8],
    )
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    expected = {
        "laplacian_level_count": ("3", "2"),
        "layer_count_of_every_unet": ("[1, 1, 2]", "[1, 1]"),
        "first_layer_out_channels_of_every_unet": ("[8, 8, 8]", "[8, 8]"),
    }
    for line, (key, (ours, theirs)) in zip(lines, expected.items(), strict=True):
        assert key in line and f" {ours}, but {theirs} in " in line and "tiny.pth" in line


def test_an_architecture_that_agrees_or_is_left_out_is_fine(run, tmp_path, write_photos):
    write_photos(tmp_path / "photos", 1)
    agreed = {
        "laplacian_level_count": 2,
        "layer_count_of_every_unet": [1, 1],
        "first_layer_out_channels_of_every_unet": [8, 8],
    }
    assert run(**agreed) == 0
    assert run() == 0


# ------------------------------------------------------------------- files and folders


def test_an_untrained_network_returns_photos_unchanged(run, tmp_path, make_photo):
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
        assert run(**settings) == 0
        for name, photo in photos.items():
            result = read(tmp_path / "out" / name)
            assert result.dtype == photo.dtype
            assert np.array_equal(result, photo), name


def test_photos_come_out_at_full_size_and_corrected(run, tmp_path, make_photo):
    photo = make_photo(120, 90) // 3
    save(tmp_path / "photos" / "dark.png", photo)
    assert run(gain=1.0) == 0
    result = read(tmp_path / "out" / "dark.png")
    assert np.abs(result - photo * 2.0).max() <= 1


def test_structure_and_names_are_kept_and_namesakes_do_not_meet(run, tmp_path, make_photo):
    photo = make_photo(24, 32)
    names = ["a.jpg", "a.png", "IMG_1.JPG", "deep/er/a.png", "Ü ber.png"]
    for name in names:
        save(tmp_path / "photos" / name, photo)
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    assert run() == 0
    assert files_in(tmp_path / "out") == sorted(names)
    for name in names:
        with Image.open(tmp_path / "out" / name) as result:
            assert result.format == ("PNG" if name.endswith("png") else "JPEG")
            assert result.size == (32, 24)


def test_a_broken_file_among_good_ones_is_told_and_the_others_are_done(
    run, tmp_path, write_photos, capsys
):
    paths = write_photos(tmp_path / "photos", 3)
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    (tmp_path / "photos" / "empty.jpg").write_bytes(b"")
    assert run() == 1
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


def test_a_single_broken_file_is_exit_code_1(run, tmp_path, capsys):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 broken")
    assert run(path) == 1
    assert "broken.jpg: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or files_in(tmp_path / "out") == []


def test_grey_stays_grey(run, tmp_path, make_photo):
    grey = make_photo(50, 60)[..., 0] // 3
    save(tmp_path / "photos" / "grey.png", grey)
    assert run(gain=1.0) == 0
    result = read(tmp_path / "out" / "grey.png")
    assert result.ndim == 2
    assert np.abs(result - grey * 2.0).max() <= 1


def test_rgba_keeps_its_alpha(run, tmp_path, make_photo):
    alpha = make_photo(50, 60, seed=3)[..., :1]
    photo = make_photo(50, 60) // 3
    save(tmp_path / "photos" / "clear.png", np.concatenate([photo, alpha], axis=2))
    assert run(gain=1.0) == 0
    result = read(tmp_path / "out" / "clear.png")
    assert np.array_equal(result[..., 3], alpha[..., 0])
    assert np.abs(result[..., :3] - photo * 2.0).max() <= 1


def test_sixteen_bits_stay_sixteen_bits(run, tmp_path):
    ramp = np.linspace(0, 30000, 64 * 80 * 3).round().astype(np.uint16).reshape(64, 80, 3)
    save(tmp_path / "photos" / "deep.png", ramp)
    assert run(gain=1.0) == 0
    result = read(tmp_path / "out" / "deep.png")
    assert result.dtype == np.uint16
    assert np.abs(result - ramp * 2.0).max() <= 30
    assert len(np.unique(result)) > 10_000


def test_path_and_output_override_the_config(run, tmp_path, write_photos):
    write_photos(tmp_path / "photos", 2)
    one = write_photos(tmp_path / "elsewhere", 1)[0]
    assert run(one, "--output", tmp_path / "there") == 0
    assert files_in(tmp_path / "there") == ["photo_0.png"]
    assert not (tmp_path / "out").exists()


def test_a_result_folder_inside_the_photos_is_no_photo(run, tmp_path, write_photos):
    write_photos(tmp_path / "photos", 2)
    inside = tmp_path / "photos" / "results"
    for _ in range(2):
        assert run("--output", inside) == 0
        assert files_in(inside) == ["photo_0.png", "photo_1.png"]


@pytest.mark.parametrize("is_single", [False, True])
def test_results_are_never_written_over_the_photos(run, tmp_path, write_photos, capsys, is_single):
    photo = write_photos(tmp_path / "photos", 1)[0]
    before = photo.read_bytes()
    arguments = (photo if is_single else tmp_path / "photos", "--output", tmp_path / "photos")
    assert run(*arguments, gain=1.0) == 2
    error = capsys.readouterr().err
    assert "result_output_dir" in error and "would be replaced; name another" in error
    assert photo.read_bytes() == before


def test_results_are_not_written_over_photos_through_a_link(run, tmp_path, write_photos):
    photo = write_photos(tmp_path / "photos", 1)[0]
    before = photo.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    assert run("--output", tmp_path / "link", gain=1.0) == 2
    assert photo.read_bytes() == before


def test_results_are_not_written_over_other_photos_of_the_folder(run, tmp_path, make_photo):
    # in x/, a.png would become a.png beside x/, and x/x/b.png x/b.png, which is a photo
    photos = tmp_path / "home" / "x"
    for name in ("a.png", "b.png", "x/b.png"):
        save(photos / name, make_photo(seed=len(name)))
    before = {name: (photos / name).read_bytes() for name in files_in(photos)}
    assert run(photos, "--output", tmp_path / "home", gain=1.0) == 2
    assert {name: (photos / name).read_bytes() for name in files_in(photos)} == before


@pytest.mark.parametrize(
    ("path", "words"),
    [("nowhere", "no such file or folder"), ("nowhere.jpg", "no such"), ("empty", "no photo in")],
)
def test_a_path_without_photos_is_exit_code_2(run, tmp_path, capsys, path, words):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / path) == 2
    error = capsys.readouterr().err
    assert words in error and path in error and len(error.splitlines()) == 1


def test_a_file_in_place_of_the_output_folder_is_exit_code_2(run, tmp_path, write_photos, capsys):
    write_photos(tmp_path / "photos", 1)
    (tmp_path / "out").write_text("a file where the folder should be")
    assert run() == 2
    error = capsys.readouterr().err
    assert error == f"result_output_dir is {tmp_path / 'out'}: a file; name a folder\n"


@pytest.mark.parametrize("value", [-0.1, 1.1, 200.0, float("nan")])
def test_floats_beyond_black_and_white_are_refused(write_weights, value):
    photo = np.full((8, 8, 3), 0.5, np.float32)
    photo[2, 3, 1] = value
    with pytest.raises(ValueError, match="float32 is in 0 to 1"):
        predict.correct(photo, predict.load_model(write_weights()))


def test_a_network_gone_wrong_fails_photo_by_photo(
    run, tmp_path, write_photos, write_weights, capsys
):
    write_photos(tmp_path / "photos", 2)
    weights = write_weights(float("nan"), name="nan.pth")
    assert run(pretrained_model=str(weights)) == 1
    error = capsys.readouterr().err
    assert "not finite" in error and "photo_0.png" in error and "photo_1.png" in error


# ------------------------------------------------------------------------------ the rest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": [0, 32]}, ["image_size is [0, 32]"]),
        ({"imgpth": "x"}, ["imgpth is not a known key; did you mean img_pth?"]),
        ({"use_orig_size": "no", "show_result": 2}, ["use_orig_size", "show_result"]),
    ],
)
def test_faults_of_the_config_are_lines_and_exit_code_2(run, capsys, changes, words):
    assert run(**changes) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert len(error.splitlines()) == len(words)


def test_a_missing_config_is_exit_code_2(tmp_path, capsys):
    assert predict.main(["--conf", str(tmp_path / "none.json")]) == 2
    assert "none.json: no such file" in capsys.readouterr().err


def test_the_shipped_config_agrees_with_the_class():
    values = json.loads((ROOT / "predict_conf.json").read_text())
    assert PredictConfig(**values).image_size == (512, 512)


# ------------------------------------------------------------------------- optional keys


@pytest.fixture
def dark(tmp_path, make_photo) -> np.ndarray:
    """The only photo of the folder, dark.png; the network sees it at its own size."""
    photo = make_photo(30, 32) // 3
    save(tmp_path / "photos" / "dark.png", photo)
    return photo


def test_level_scales_scale_the_levels_of_the_photo(run, tmp_path, dark):
    assert run(gain=1.0, level_scales=[1, 1]) == 0
    assert np.abs(read(tmp_path / "out" / "dark.png") - dark * 2.0).max() <= 1
    assert run(gain=1.0, level_scales=[0.5, 0.5]) == 0
    assert np.abs(read(tmp_path / "out" / "dark.png") - dark.astype(float)).max() <= 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["items in level_scales: 3, but 2 in ", "tiny.pth"]),
        ({"laplacian_level_count": 2}, ["level_scales is [1, 1, 1], laplacian_level_count is 2"]),
    ],
)
def test_level_scales_of_a_wrong_length_are_exit_code_2(
    run, tmp_path, dark, capsys, settings, words
):
    assert run(level_scales=[1, 1, 1], **settings) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("strength", "factor"), [(0, 1), (0.5, 1.5), (1, 2), (2, 3)])
def test_strength_goes_from_the_photo_to_the_correction_and_beyond(
    run, tmp_path, dark, strength, factor
):
    assert run(gain=1.0, strength=strength) == 0
    expected = np.minimum(dark * float(factor), 255)
    assert np.abs(read(tmp_path / "out" / "dark.png") - expected).max() <= 1.5


def test_fuse_takes_the_better_exposed_of_photo_and_correction(run, tmp_path):
    # Half as dark as it should be, half right: doubled, the right half is burnt out.
    photo = np.full((30, 32, 3), 40, np.uint8)
    photo[:, 16:] = 120
    save(tmp_path / "photos" / "dark.png", photo)
    corrected = np.clip(photo * np.float32(2 / 255), 0, 1)
    assert run(gain=1.0, fuse=True) == 0
    result = read(tmp_path / "out" / "dark.png")
    expected = 255 * adjust.fuse(photo / np.float32(255), corrected)
    assert np.abs(result - expected).max() <= 3  # upsampling follows it closely
    assert np.abs(corrected * 255 - expected).max() > 20


def test_stretch_spreads_the_correction_from_black_to_white(run, tmp_path, dark):
    expected = 255 * adjust.stretch_contrast(np.clip(dark * np.float32(2 / 255), 0, 1))
    assert run(gain=1.0, stretch=True) == 0
    result = read(tmp_path / "out" / "dark.png")
    assert np.abs(result - expected).max() <= 3
    assert result.min() == 0 and result.max() == 255


def test_compare_writes_a_picture_beside_each_result(run, tmp_path, make_photo):
    names = ["a.jpg", "a.png", "deep/b.png"]
    for name in names:
        save(tmp_path / "photos" / name, make_photo(24, 32))
    assert run(compare=True) == 0
    pictures = [f"{name}.compare.png" for name in names]
    assert files_in(tmp_path / "out") == sorted(names + pictures)
    for name in pictures:
        with Image.open(tmp_path / "out" / name) as picture:
            picture.load()
            assert picture.format == "PNG" and picture.width > picture.height > 100


@pytest.mark.parametrize(
    ("output_format", "names"),
    [
        ("jpeg", ["a.jpg", "a.png.jpg"]),
        ("png", ["a.jpg.png", "a.png"]),
        ("tiff", ["a.png.tif", "a.tif"]),
        ("webp", ["a.png.webp", "a.webp"]),
    ],
)
def test_output_format_decides_content_and_suffix(run, tmp_path, make_photo, output_format, names):
    for name in ("a.jpg", "a.png"):
        save(tmp_path / "photos" / name, make_photo(24, 32))
    assert run(output_format=output_format) == 0
    assert files_in(tmp_path / "out") == names
    for name in names:
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.format == output_format.upper()


def test_quality_decides_the_size_of_the_file(run, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    save(tmp_path / "photos" / "noise.jpg", noise)
    sizes = []
    for quality in (5, 50, 95, None):
        assert run(quality=quality) == 0
        sizes.append((tmp_path / "out" / "noise.jpg").stat().st_size)
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


def test_photos_above_max_megapixels_are_refused_and_the_others_done(
    run, tmp_path, make_photo, capsys
):
    save(tmp_path / "photos" / "small.png", make_photo(20, 50))
    save(tmp_path / "photos" / "large.png", make_photo(20, 51))
    assert run(max_megapixels=0.001) == 1
    assert files_in(tmp_path / "out") == ["small.png"]
    error = capsys.readouterr().err
    assert str(tmp_path / "photos" / "large.png") in error and "Traceback" not in error


def test_skip_existing_goes_on_where_a_run_stopped(run, tmp_path, write_photos, capsys):
    write_photos(tmp_path / "photos", 3)
    save(tmp_path / "out" / "photo_1.png", np.zeros((2, 2, 3), np.uint8))
    assert run(skip_existing=True) == 0
    assert "2 corrected, 0 failed" in capsys.readouterr().out
    assert read(tmp_path / "out" / "photo_0.png").shape == (64, 64, 3)
    assert read(tmp_path / "out" / "photo_1.png").shape == (2, 2, 3)
    assert run(skip_existing=True) == 0
    assert "0 corrected, 0 failed" in capsys.readouterr().out
    assert run() == 0
    assert read(tmp_path / "out" / "photo_1.png").shape == (64, 64, 3)


# ------------------------------------------------------------------- where things are found


def test_config_and_weights_are_found_from_another_working_folder(run, tmp_path, dark, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(gain=1.0, pretrained_model="weights/tiny.pth") == 0
    (tmp_path / "out" / "dark.png").unlink()
    assert predict.HERE == ROOT  # the folder of the script
    monkeypatch.setattr(predict, "HERE", tmp_path)
    assert predict.main([]) == 0
    assert np.abs(read(tmp_path / "out" / "dark.png") - dark * 2.0).max() <= 1


def test_weights_of_the_working_folder_go_before_those_beside_the_config(
    tmp_path, write_weights, monkeypatch
):
    path = write_weights()
    assert predict.find_weights("weights/tiny.pth", tmp_path / "conf.json") == path
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "configs" / "conf.json"
    assert predict.find_weights("weights/tiny.pth", other) == Path("weights/tiny.pth")
    assert predict.find_weights(str(path), other) == path


def test_processes_of_torchrun_share_the_folder(run, tmp_path, write_photos, monkeypatch):
    write_photos(tmp_path / "photos", 3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run() == 0
    assert files_in(tmp_path / "out") == ["photo_1.png"]
    monkeypatch.setenv("RANK", "0")
    assert run() == 0
    assert files_in(tmp_path / "out") == ["photo_0.png", "photo_1.png", "photo_2.png"]


def test_ctrl_c_is_exit_code_130_and_one_line(run, tmp_path, write_photos, monkeypatch, capsys):
    write_photos(tmp_path / "photos", 2)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "correct_files", stop)
    assert run() == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "what is finished stays, skip_existing goes on" in line


def test_ctrl_c_begins_no_further_photo(run, tmp_path, write_photos, monkeypatch):
    paths, begun = write_photos(tmp_path / "photos", 40), []

    def correct_file(path, *_):
        begun.append(path)
        time.sleep(0.02)

    def interrupted(_):
        time.sleep(0.03)
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "correct_file", correct_file)
    monkeypatch.setattr(predict, "as_completed", interrupted)
    assert run() == 130
    assert 0 < len(begun) < len(paths)


# -------------------------------------------------------------------------------- windows


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


def test_a_window_shows_every_photo_before_and_after(run, tmp_path, write_photos, monkeypatch):
    paths = write_photos(tmp_path / "photos", 2)
    shown = []
    monkeypatch.setattr(predict, "show_window", lambda *files: shown.append(files) or True)
    assert run(show_result=True, max_megapixels=7) == 0
    assert sorted(shown) == [(path, tmp_path / "out" / path.name, 7_000_000) for path in paths]


def test_where_no_window_opens_no_other_is_tried(run, tmp_path, write_photos, monkeypatch):
    write_photos(tmp_path / "photos", 3)
    calls = []
    monkeypatch.setattr(predict, "show_window", lambda *files: bool(calls.append(files)))
    assert run(show_result=True) == 0
    assert len(calls) == 1 and len(files_in(tmp_path / "out")) == 3


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
    assert predict.show_window(before, after, 10**6)
    assert [title for title, _ in shown] == [f"before: {before}", f"after: {after}"]
    assert np.array_equal(shown[0][1], make_photo(20, 30))
    assert np.array_equal(shown[1][1], make_photo(20, 30, seed=1))
    assert pyplot.get_fignums() == []

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from pictures import read, save

import predict
from checkpoint import FORMAT_VERSION, CheckpointError
from config import PredictConfig

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
    corrected = predict.correct(photo, doubling, (16, 16), use_orig_size=use_orig_size)
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
    assert np.abs(predict.fit_into(photo, (16, 16)) - blocks).max() <= 0.51


@pytest.mark.parametrize("size", [(640, 960), (641, 960), (642, 963), (1300, 1950)])
def test_fitting_large_photos_comes_close_to_averaging_at_once(size):
    ramps = np.add.outer(np.linspace(0, 100, size[0]), np.linspace(0, 150, size[1]))
    photo = np.repeat(np.uint8(ramps)[..., None], 3, axis=2)
    fitted = predict.fit_into(photo, (64, 96))
    exact = cv2.resize(photo, fitted.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(fitted.astype(int) - exact).max() <= 1


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
    run_predict, tmp_path, make_photo, monkeypatch, size, use_orig_size, seen
):
    save(tmp_path / "photos" / "a.png", make_photo(*size))
    shapes, run_network = [], predict.run_network

    def noting(abnormal, *others):
        shapes.append(abnormal.shape)
        return run_network(abnormal, *others)

    monkeypatch.setattr(predict, "run_network", noting)
    assert run_predict(image_size=[16, 32], use_orig_size=use_orig_size) == 0
    assert shapes == [(*seen, 3)]
    assert read(tmp_path / "out" / "a.png").shape == (*size, 3)


def test_the_network_gets_levels_strength_and_more_only_where_asked(doubling, make_photo):
    photo = make_photo(40, 40) // 4
    plain = predict.correct(photo, doubling)
    assert np.array_equal(predict.correct(photo, doubling, strength=0.0), photo)
    half = predict.correct(photo, doubling, strength=0.5)
    np.testing.assert_allclose(half, (photo + plain.astype(float)) / 2, atol=1)
    assert not predict.correct(photo, doubling, level_scales=[0, 0]).any()


@pytest.mark.parametrize("value", [-0.1, 1.1, 200.0, float("nan")])
def test_floats_beyond_black_and_white_are_refused(write_weights, value):
    photo = np.full((8, 8, 3), 0.5, np.float32)
    photo[2, 3, 1] = value
    with pytest.raises(ValueError, match="float32 is in 0 to 1"):
        predict.correct(photo, predict.load_model(write_weights()))


# ------------------------------------------------------------------------------- weights


def test_weights_load_on_the_cpu_and_ready_to_use(write_weights):
    model = predict.load_model(write_weights(0.5))
    assert not model.training
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_weights_with_code_inside_are_refused(run_predict, tmp_path, write_photos, capsys):
    write_photos(tmp_path / "photos", 1)
    proof, path = tmp_path / "proof", tmp_path / "evil.pth"

    class Trap:
        def __reduce__(self):
            return Path.touch, (proof,)

    torch.save({"format_version": FORMAT_VERSION, "weights": Trap()}, path)
    with pytest.raises(CheckpointError):
        predict.load_model(path)
    assert run_predict(pretrained_model=str(path)) == 2
    error = capsys.readouterr().err
    assert "evil.pth" in error and "Traceback" not in error
    assert not proof.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["missing.pth", "broken.pth"])
def test_weights_that_cannot_be_read_are_exit_code_2(
    run_predict, tmp_path, write_photos, capsys, name
):
    write_photos(tmp_path / "photos", 1)
    (tmp_path / "broken.pth").write_bytes(b"broken")
    assert run_predict(pretrained_model=str(tmp_path / name)) == 2
    assert name in capsys.readouterr().err


def test_an_architecture_that_contradicts_the_weights_names_both_values(
    run_predict, tmp_path, write_photos, capsys
):
    write_photos(tmp_path / "photos", 1)
    code = run_predict(
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


def test_an_architecture_that_agrees_or_is_left_out_is_fine(run_predict, tmp_path, write_photos):
    write_photos(tmp_path / "photos", 1)
    agreed = {
        "laplacian_level_count": 2,
        "layer_count_of_every_unet": [1, 1],
        "first_layer_out_channels_of_every_unet": [8, 8],
    }
    assert run_predict(**agreed) == 0
    assert run_predict() == 0


# ------------------------------------------------------------------------------ the config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": [0, 32]}, ["image_size is [0, 32]"]),
        ({"imgpth": "x"}, ["imgpth is not a known key; did you mean img_pth?"]),
        ({"use_orig_size": "no", "show_result": 2}, ["use_orig_size", "show_result"]),
    ],
)
def test_faults_of_the_config_are_lines_and_exit_code_2(run_predict, capsys, changes, words):
    assert run_predict(**changes) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert len(error.splitlines()) == len(words)


def test_a_missing_config_is_exit_code_2(tmp_path, capsys):
    assert predict.main(["--conf", str(tmp_path / "none.json")]) == 2
    assert "none.json: no such file" in capsys.readouterr().err


def test_the_shipped_config_agrees_with_the_class():
    values = json.loads((ROOT / "predict_conf.json").read_text())
    assert PredictConfig(**values).image_size == (512, 512)


# ------------------------------------------------------------------- where things are found


def test_config_and_weights_are_found_from_another_working_folder(
    run_predict, tmp_path, dark, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_predict(gain=1.0, pretrained_model="weights/tiny.pth") == 0
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

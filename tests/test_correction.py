import os
import time
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from pictures import read, save

import correction
from photo_formats import PhotoError

# Toned versions would make one gain a curve.
correct = partial(correction.correct, self_ensemble=False)


@pytest.fixture
def doubling(write_weights):
    return correction.load_model(write_weights(1.0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_correct_keeps_shape_and_type(doubling, make_photo, dtype):
    photo = make_photo(50, 70) // 4
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    corrected = correct((photo * float(scale)).astype(dtype), doubling, (32, 32))
    assert corrected.shape == photo.shape and corrected.dtype == dtype
    np.testing.assert_allclose(corrected / scale, photo * 2.0, atol=1.0)


def test_correct_reads_any_memory_layout(doubling, make_photo):
    photo = make_photo(50, 70) // 3
    views = [
        np.asfortranarray(photo),
        np.ascontiguousarray(photo[..., ::-1])[..., ::-1],  # as cv2.imread(...)[..., ::-1] is
        np.ascontiguousarray(photo[::-1, ::-1])[::-1, ::-1],
    ]
    for view in views:
        for image_size in ((32, 32), (100, 100)):
            expected = correction.correct(photo, doubling, image_size)
            assert np.array_equal(correction.correct(view, doubling, image_size), expected)


def test_correct_leaves_its_input_alone(doubling, make_photo):
    photo = make_photo(40, 40)
    correction.correct(photo, doubling, (100, 100), use_orig_size=True)
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
        correct(photo, doubling)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("strength", 2.1, "0 to 2"),
        ("strength", -0.1, "0 to 2"),
        ("strength", float("nan"), "0 to 2"),
        ("restraint", 1.5, "0 to 1"),
        ("image_size", (0, 512), "sides of 1 px or more"),
        ("alpha", np.zeros((4, 6), np.uint8), r"the photo's \(6, 4\) uint8"),
        ("alpha", np.zeros((6, 4), bool), r"the photo's \(6, 4\) uint8"),
        ("alpha", np.full((6, 4), 255, np.float32), "float32 is in 0 to 1"),
    ],
)
def test_correct_refuses_options_out_of_range(doubling, option, value, allowed):
    with pytest.raises(ValueError, match=f"^{option} is .*{allowed}"):
        correct(np.zeros((6, 4, 3), np.uint8), doubling, **{option: value})


NETWORK = SimpleNamespace(level_count=4)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_photos_of_the_network_size_come_out_as_the_network_has_them(monkeypatch, dtype, white):
    rng = np.random.default_rng(0)
    seen = rng.random((30, 40, 3), np.float32)
    monkeypatch.setattr(correction, "run_network", lambda *_: seen)
    photo = rng.integers(0, white + 1, (30, 40, 3), dtype=dtype)
    corrected = correction.correct(photo, NETWORK)
    assert corrected.dtype == dtype
    assert np.array_equal(corrected, np.rint(seen * white))


@pytest.mark.parametrize(
    ("options", "is_even"),
    [
        ({}, True),
        ({"alpha": np.pad(np.full((511, 640), 255, np.uint8), ((1, 0), (0, 0)))}, True),
        ({"finest_level": 4}, True),
        ({"finest_level": 1}, False),  # the network's edges are its own
        ({"image_size": (56, 70)}, False),  # too small for level 4
        ({"level_scales": [1, 1, 1, 1]}, False),
        ({"fuse": True}, True),
    ],
)
def test_letters_at_full_size_leave_no_smudges_around_them(monkeypatch, options, is_even):
    photo = np.full((512, 640, 3), 255, np.uint8)
    for left in range(80, 400, 13):
        photo[80:400, left : left + 3] = 30
    monkeypatch.setattr(correction, "run_network", lambda picture, *_: 0.8 * picture**5)
    monkeypatch.setattr(correction.adjust, "fuse", lambda _, corrected: corrected)
    corrected = correction.correct(photo, NETWORK, **{"image_size": (64, 80), **options})
    assert (np.ptp(corrected[photo == 255]) < 12) == is_even


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (2, 2), (33, 65)])
@pytest.mark.parametrize("use_orig_size", [False, True])
def test_photos_of_any_size_are_corrected(doubling, make_photo, size, use_orig_size):
    photo = make_photo(*size) // 4
    corrected = correct(photo, doubling, (16, 16), use_orig_size=use_orig_size)
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
    assert correction.fit_into(np.zeros((*size, 3), np.uint8), box).shape == (*expected, 3)


@pytest.mark.parametrize("size", [(30, 20), (64, 64), (20, 64)])
def test_photos_are_never_enlarged(size):
    photo = np.zeros((*size, 3), np.uint8)
    assert correction.fit_into(photo, (64, 64)) is photo


def test_fitting_averages_the_pixels(make_photo):
    photo = make_photo(64, 64)
    blocks = photo.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(correction.fit_into(photo, (16, 16)) - blocks).max() <= 0.51


@pytest.mark.parametrize("size", [(640, 960), (641, 960), (642, 963), (1300, 1950)])
def test_fitting_large_photos_comes_close_to_averaging_at_once(size):
    ramps = np.add.outer(np.linspace(0, 100, size[0]), np.linspace(0, 150, size[1]))
    photo = np.repeat(np.uint8(ramps)[..., None], 3, axis=2)
    fitted = correction.fit_into(photo, (64, 96))
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
    shapes, run_network = [], correction.run_network

    def noting(abnormal, *others):
        shapes.append(abnormal.shape)
        return run_network(abnormal, *others)

    monkeypatch.setattr(correction, "run_network", noting)
    assert run_predict(image_size=[16, 32], use_orig_size=use_orig_size) == 0
    assert shapes == [(*seen, 3)]
    assert read(tmp_path / "out" / "a.png").shape == (*size, 3)


@pytest.mark.parametrize("size", [(40, 60), (200, 300)])  # as the network sees it, and larger
@pytest.mark.parametrize("use_orig_size", [False, True])
def test_what_alpha_hides_has_no_say_in_the_exposure(
    run_predict, tmp_path, make_photo, monkeypatch, size, use_orig_size
):
    photo = make_photo(*size) // 4
    alpha = np.zeros(size, np.uint8)
    alpha[:, : size[1] // 2] = 255
    for name, hidden in (("black", 0), ("white", 255)):
        pixels = np.where(alpha[..., None] > 0, photo, hidden)
        save(tmp_path / "photos" / f"{name}.png", np.dstack([pixels, alpha]))
    seen, run_network = [], correction.run_network

    def noting(abnormal, *others):
        seen.append(abnormal)
        return run_network(abnormal, *others)

    monkeypatch.setattr(correction, "run_network", noting)
    assert run_predict(gain=1.0, image_size=[40, 60], use_orig_size=use_orig_size) == 0
    first, second = seen
    assert np.abs(first - second).max() < (1e-6 if size == (40, 60) or use_orig_size else 0.02)
    for name, hidden in (("black", 0), ("white", 255)):
        result = read(tmp_path / "out" / f"{name}.png")
        assert np.array_equal(result[..., 3], alpha)
        visible = result[:, : size[1] // 2 - 8, :3]
        assert np.abs(visible - 2.0 * photo[:, : visible.shape[1]]).max() <= 1
        assert np.abs(result[:, -1, :3].astype(int) - min(2 * hidden, 255)).max() <= 1


def test_alpha_that_hides_nothing_changes_nothing(monkeypatch):
    seen = np.random.default_rng(0).random((64, 80, 3), np.float32)
    monkeypatch.setattr(correction, "run_network", lambda *_: seen)
    photo = np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    plain = correction.correct(photo, NETWORK)
    for dtype, white in ((np.uint8, 255), (np.uint16, 65535), (np.float32, 1)):
        opaque = np.full((64, 80), white, dtype)
        assert np.array_equal(correction.correct(photo, NETWORK, alpha=opaque), plain)


def test_a_photo_with_alpha_comes_back_exactly_at_no_strength(doubling, make_photo):
    photo, alpha = make_photo(60, 40), make_photo(60, 40)[..., 0]
    assert np.array_equal(correct(photo, doubling, alpha=alpha, strength=0.0), photo)
    nothing = np.zeros_like(alpha)
    plain = correct(photo, doubling)
    assert np.abs(correct(photo, doubling, alpha=nothing).astype(int) - plain).max() <= 1


def test_strength_and_level_scales_act_only_where_asked(doubling, make_photo):
    photo = make_photo(40, 40) // 4
    plain = correct(photo, doubling)
    assert np.array_equal(correct(photo, doubling, strength=0.0), photo)
    half = correct(photo, doubling, strength=0.5)
    np.testing.assert_allclose(half, (photo + plain.astype(float)) / 2, atol=1)
    assert not correct(photo, doubling, level_scales=[0, 0]).any()


@pytest.mark.parametrize("value", [-0.1, 1.1, 200.0, float("nan")])
def test_floats_beyond_black_and_white_are_refused(write_weights, value):
    photo = np.full((8, 8, 3), 0.5, np.float32)
    photo[2, 3, 1] = value
    with pytest.raises(ValueError, match="float32 is in 0 to 1"):
        correct(photo, correction.load_model(write_weights()))


def test_failed_photos_are_forgotten(monkeypatch, doubling):
    class Pixels:
        pass

    photos, most_alive = [], 0

    def fail(path, *_):
        nonlocal most_alive
        pixels = Pixels()
        photos.append(weakref.ref(pixels))
        time.sleep(0.01)  # the main thread hears of the ones before
        most_alive = max(most_alive, sum(photo() is not None for photo in photos))
        raise PhotoError(f"{path}: damaged")

    monkeypatch.setattr(correction, "correct_file", fail)
    config = SimpleNamespace(use_orig_size=False, show_result=False, max_megapixels=1)
    outputs = {Path(f"{number}.jpg"): Path("out.jpg") for number in range(40)}
    failures = correction.correct_files(outputs, doubling, config)
    assert len(failures) == 40
    assert most_alive < 20


def test_processes_of_torchrun_share_the_cores(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert correction.count_cores() == torch.get_num_threads()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for process_count, expected in (("2", 4), ("3", 2), ("16", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", process_count)
        assert correction.count_cores() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_corrects_as_the_cpu_does(write_weights, make_photo):
    weights, photo = write_weights(0.4, first_channels=[8, 8]), make_photo(90, 120)
    on_gpu = correction.correct(photo, correction.load_model(weights, "cuda"), (64, 64))
    on_cpu = correction.correct(photo, correction.load_model(weights), (64, 64))
    np.testing.assert_allclose(on_gpu.astype(int), on_cpu, atol=1)


def test_weights_load_on_the_cpu_and_ready_to_use(write_weights):
    model = correction.load_model(write_weights(0.5))
    assert not model.training
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}

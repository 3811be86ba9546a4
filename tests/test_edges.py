from concurrent.futures import ThreadPoolExecutor
from itertools import product

import cv2
import numpy as np
import pytest
import torch

import edges
from bilateral_grid import apply_grid, fit_grid, to_batch
from edges import LIKE, UNLIKE, mend_edges
from upsample import WHITE, upsample_correction


def make_page(height: int = 240, width: int = 320, dtype: type = np.uint8) -> np.ndarray:
    """Light, brighter from left to right, with dark strokes and dots of two colours on it.

    The second is as light as the page to the right in luma, and much darker in its mean.
    """
    page = np.repeat(np.linspace(0.7, 1, width)[None, :, None], height, 0).repeat(3, 2)
    page[:, 5::23] = page[7::31, :] = (0.2, 0.15, 0.1)
    page[3::11, 2::13] = (0.9, 0.4, 0.2)
    page[5::11, 8::13] = (1, 1, 0.3)
    if dtype == np.float32:
        return page.astype(dtype)
    return np.rint(page * np.iinfo(dtype).max).astype(dtype)


def shrink(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    small = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(WHITE[photo.dtype])


def darken(photo: np.ndarray) -> np.ndarray:
    return np.float32([0.9, 0.8, 0.7]) * photo**2


def darken_in_part(photo: np.ndarray) -> np.ndarray:
    """To black and from white, and one corner more, as no map of colours by place can."""
    target = np.clip(1.5 * photo**2 - 0.3, 0, 1)
    target[: len(target) // 2, : target.shape[1] // 3] *= 0.8
    return target


def mend(photo: np.ndarray, small: np.ndarray, small_corrected: np.ndarray) -> np.ndarray:
    corrected = upsample_correction(photo, small, small_corrected)
    mend_edges(corrected, photo, small, small_corrected)
    return corrected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("size", [(101, 143), (60, 40), (9, 200)])
def test_the_outcome_is_that_of_the_definition(dtype, size):
    """The same with the grid read at all pixels, in doubles but for the grid."""
    photo = make_page(*size, dtype)
    small = shrink(photo, -(-size[0] // 5), -(-size[1] // 6))
    target = darken_in_part(small)
    white = WHITE[photo.dtype]
    guided = upsample_correction(photo, small, target)
    grid = fit_grid(to_batch(small), to_batch(target))
    full, coarse = (
        apply_grid(to_batch(picture), grid).clamp(0, 1)[0].permute(1, 2, 0).numpy()
        for picture in ((photo / np.float32(white)).astype(np.float32), small)
    )
    rest = cv2.blur(target - coarse, (5, 5))
    around = cv2.blur(small @ np.float32([0.299, 0.587, 0.114]), (5, 5))
    around = cv2.resize(around, size[::-1], interpolation=cv2.INTER_LINEAR)
    distance = np.abs(photo / white @ [0.299, 0.587, 0.114] - around)
    expected = guided / white
    for y, x in product(*map(range, size)):
        share = np.clip((distance[y, x] - LIKE) / (UNLIKE - LIKE), 0, 1)
        near = rest[y * len(rest) // size[0], x * rest.shape[1] // size[1]]
        expected[y, x] += share * (full[y, x] + near - expected[y, x])
    result = guided.copy()
    mend_edges(result, photo, small, target)
    error = np.abs(result / white - expected.clip(0, 1))
    assert result.dtype == dtype
    assert (distance > UNLIKE).mean() > 0.03
    assert np.abs(guided / white - expected.clip(0, 1)).max() > 0.02
    if dtype == np.uint8:  # rounded, not cut off
        error_in_levels = result - 255 * expected.clip(0, 1)
        assert abs(error_in_levels[distance > UNLIKE + 0.01].mean()) < 0.1
    # Rounding of the luma moves the share by up to a ninth, that of values them by a half.
    assert error.max() < (0.02 if dtype == np.uint8 else 2e-3)
    assert error.mean() < (2e-3 if dtype == np.uint8 else 2e-5)


def test_paper_between_strokes_is_as_even_as_paper_without():
    photo = np.full((240, 320, 3), 255, np.uint8)
    for left in range(40, 200, 13):
        photo[40:200, left : left + 3] = 30
    small = shrink(photo, 30, 40)
    target = 0.8 * small**5
    guided, mended = upsample_correction(photo, small, target), mend(photo, small, target)
    is_paper = photo.min(2) == 255
    assert np.ptp(guided[is_paper]) > 30
    assert np.ptp(mended[is_paper]) < 12
    assert mended[~is_paper].max() < 12


def test_threads_that_begin_later_have_as_many_of_torch_as_before():
    photo = make_page()
    small = shrink(photo, 24, 32)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        mend(photo, small, darken(small))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_what_is_like_its_surroundings_is_left_as_it_is():
    photo = np.linspace(0, 60000, 300, dtype=np.uint16)[None, :, None]
    photo = np.ascontiguousarray(np.broadcast_to(photo, (200, 300, 3)))
    small = shrink(photo, 50, 75)
    expected = upsample_correction(photo, small, darken(small))
    assert np.array_equal(mend(photo, small, darken(small)), expected)


def test_specks_follow_what_becomes_of_their_place():
    """Which no map of colours tells: the grey around one of them is lifted, and not it."""
    photo = np.full((160, 160, 3), 0.5, np.float32)
    photo[40:44, 40:44] = photo[40:44, 80:84] = 0.9
    small = shrink(photo, 40, 40)
    lifted = small.copy()
    lifted[5:16, 5:16] += 0.05
    mended = mend(photo, small, lifted)
    assert mended[42, 42, 0] - mended[42, 82, 0] == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(("strip", "at_once"), [(1, 10**7), (3000, 100), (10**7, 7)])
def test_the_outcome_does_not_depend_on_strips_and_threads(monkeypatch, strip, at_once):
    photo = make_page(90, 70, np.float32)
    small = shrink(photo, 18, 14)
    expected = mend(photo, small, darken_in_part(small))
    monkeypatch.setattr(edges, "STRIP", strip)
    monkeypatch.setattr(edges, "AT_ONCE", at_once)
    count = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        np.testing.assert_allclose(mend(photo, small, darken_in_part(small)), expected, atol=1e-4)
    finally:
        cv2.setNumThreads(count)


def test_an_error_in_a_thread_comes_out(monkeypatch):
    def fail(*_):
        raise MemoryError("too much")

    monkeypatch.setattr(edges, "apply_grid_sparsely", fail)
    photo = make_page()
    with pytest.raises(MemoryError, match="too much"):
        mend(photo, shrink(photo, 30, 40), darken(shrink(photo, 30, 40)))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (1, 40000), (40000, 1), (90, 5)])
@pytest.mark.parametrize("small_size", [(1, 1), (1, 6), (6, 1), (8, 12)])
def test_thin_and_small_photos_keep_what_need_not_change(size, small_size):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    small = shrink(photo, *small_size)
    assert np.abs(mend(photo, small, small).astype(int) - photo).max() <= 1


def test_views_are_read_as_their_copies():
    photo = make_page()
    small = shrink(photo, 30, 40)
    expected = mend(photo, small, darken(small))
    flipped = np.ascontiguousarray(photo[::-1, :, ::-1])[::-1, :, ::-1]
    for view in (np.asfortranarray(photo), flipped):
        assert np.array_equal(mend(view, small, darken(small)), expected)

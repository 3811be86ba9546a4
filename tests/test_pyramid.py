import cv2
import numpy as np
import pytest
import torch
from conftest import make_batch

from pyramid import (
    collapse_pyramid,
    gaussian_pyramid,
    laplacian_pyramid,
    pad_for_pyramid,
    pyramid_down,
    pyramid_up,
)


def to_cv2(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())


def from_cv2(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", [(4, 4), (6, 10), (64, 48), (128, 32)])
def test_pyramid_down_equals_opencv_on_signed_floats(size):
    image = make_batch(1, 3, *size) * 4 - 2
    expected = from_cv2(cv2.pyrDown(to_cv2(image)))
    torch.testing.assert_close(pyramid_down(image), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2), (2, 5), (7, 3), (33, 16)])
def test_pyramid_up_equals_opencv_on_signed_floats(size):
    image = make_batch(1, 3, *size) * 4 - 2
    expected = from_cv2(cv2.pyrUp(to_cv2(image)))
    torch.testing.assert_close(pyramid_up(image), expected, rtol=0, atol=1e-6)


def test_laplacian_pyramid_equals_opencv_and_keeps_negative_values():
    image = make_batch(1, 3, 32, 48)
    rest, expected = to_cv2(image), []
    for _ in range(3):
        smaller = cv2.pyrDown(rest)
        expected.insert(0, rest - cv2.pyrUp(smaller))
        rest = smaller
    expected.insert(0, rest)
    levels = laplacian_pyramid(image, 4)
    assert [tuple(level.shape[2:]) for level in levels] == [(4, 6), (8, 12), (16, 24), (32, 48)]
    for level, ours in zip(expected, levels, strict=True):
        torch.testing.assert_close(ours, from_cv2(level), rtol=0, atol=1e-6)
    assert all(level.min() < -0.03 for level in levels[1:])


def test_gaussian_pyramid_runs_coarsest_first_and_ends_with_the_photo():
    image = make_batch(2, 3, 16, 32)
    levels = gaussian_pyramid(image, 3)
    assert [tuple(level.shape) for level in levels] == [(2, 3, 4, 8), (2, 3, 8, 16), (2, 3, 16, 32)]
    assert levels[-1] is image
    torch.testing.assert_close(levels[0], pyramid_down(pyramid_down(image)))


@pytest.mark.parametrize("level_count", [1, 2, 4])
def test_collapsing_a_laplacian_pyramid_gives_the_photo_back(level_count):
    image = make_batch(2, 3, 48, 32)
    levels = laplacian_pyramid(image, level_count)
    torch.testing.assert_close(collapse_pyramid(levels), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(10, 8), (8, 10), (9, 8), (4, 8)])
def test_pyramids_refuse_sides_that_do_not_divide(size):
    with pytest.raises(ValueError, match=rf"image is {size[0]}x{size[1]}.*multiples of 4"):
        laplacian_pyramid(make_batch(1, 3, *size), 3)


def test_pyramids_refuse_less_than_one_level():
    with pytest.raises(ValueError, match="level_count is 0"):
        gaussian_pyramid(make_batch(1, 3, 8, 8), 0)


def test_padding_reflects_and_repeats_the_edge_where_the_photo_is_too_thin():
    image = torch.arange(6.0).reshape(1, 1, 3, 2)
    padded = pad_for_pyramid(image, 2)
    assert padded[0, 0].tolist() == [[0, 1, 1, 1], [2, 3, 3, 3], [4, 5, 5, 5], [2, 3, 3, 3]]
    assert pad_for_pyramid(padded, 2).equal(padded)


@pytest.mark.parametrize(
    ("size", "padded"), [((17, 24), (20, 24)), ((1, 4), (8, 8)), ((8, 9), (8, 12))]
)
def test_padding_ends_at_the_next_multiple_but_leaves_two_pixels_at_the_coarsest_level(
    size, padded
):
    image = pad_for_pyramid(make_batch(1, 3, *size), 3)
    assert image.shape[-2:] == padded
    laplacian_pyramid(image, 3)

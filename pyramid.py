"""Gaussian and Laplacian pyramids of photos, computed as OpenCV does, on any device."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

BINOMIAL_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def binomial_kernel(image: Tensor) -> Tensor:
    """Make the (1, 1, 5, 5) kernel that sums to 1, in the type and on the device of `image`."""
    taps = torch.tensor(BINOMIAL_TAPS, dtype=image.dtype, device=image.device)
    return torch.outer(taps, taps)[None, None]


def without_autocast(image: Tensor) -> torch.autocast:
    """Pyramids stay in full precision: half precision would band smooth skies."""
    return torch.autocast(image.device.type, enabled=False)


def pyramid_down(image: Tensor) -> Tensor:
    """Blur with the 5-tap binomial and drop every second pixel, as `cv2.pyrDown` does.

    Args:
        image: (N, C, H, W), H and W even and at least 4.

    Returns:
        (N, C, H/2, W/2).
    """
    channels = image.shape[1]
    with without_autocast(image):
        padded = F.pad(image, (2, 2, 2, 2), mode="reflect")
        kernel = binomial_kernel(image).expand(channels, 1, 5, 5)
        return F.conv2d(padded, kernel, stride=2, groups=channels)


def pad_for_up(image: Tensor) -> Tensor:
    """Pad (N, C, H, W) by a pixel on each side, for a transposed convolution that doubles it."""
    # OpenCV's pyrUp reflects at the left and top and replicates at the right and bottom. The
    # gradient of F.pad would differ from run to run on a GPU.
    image = torch.cat([image[..., 1:2], image, image[..., -1:]], dim=-1)
    return torch.cat([image[..., 1:2, :], image, image[..., -1:, :]], dim=-2)


def crop_after_up(image: Tensor) -> Tensor:
    """Cut what that convolution adds around (N, C, 2H, 2W)."""
    # A 5-tap transposed convolution of the h + 2 padded rows gives 2h + 7; 2h are the photo's.
    return image[..., 4:-3, 4:-3]


def pyramid_up(image: Tensor) -> Tensor:
    """Double both sides with the 5-tap binomial, as `cv2.pyrUp` does.

    Args:
        image: (N, C, H, W), H and W at least 2.

    Returns:
        (N, C, 2H, 2W).
    """
    channels = image.shape[1]
    with without_autocast(image):
        kernel = 4 * binomial_kernel(image).expand(channels, 1, 5, 5)
        up = F.conv_transpose2d(pad_for_up(image), kernel, stride=2, groups=channels)
    return crop_after_up(up)


def _check_divisible(image: Tensor, level_count: int) -> None:
    if level_count < 1:
        raise ValueError(f"level_count is {level_count}; it must be 1 or more")
    stride = 2 ** (level_count - 1)
    height, width = image.shape[-2:]
    smallest = 2 * stride if level_count > 1 else 1
    if height % stride or width % stride or min(height, width) < smallest:
        raise ValueError(
            f"image is {height}x{width}; with {level_count} levels both sides must be "
            f"multiples of {stride}, {smallest} or more: pad it first"
        )


def gaussian_pyramid(image: Tensor, level_count: int) -> list[Tensor]:
    """Blur and halve photos again and again, coarsest first (Burt & Adelson 1983).

    Args:
        image: (N, C, H, W), any range; H, W multiples of 2 ** (level_count - 1).
        level_count: 1 or more.

    Returns:
        Element 0 is level n, (N, C, H / 2 ** (n - 1), ...); element -1 is the image itself.

    Raises:
        ValueError: a side does not divide, or leaves less than 2 px at level n.
    """
    _check_divisible(image, level_count)
    levels = [image]
    for _ in range(level_count - 1):
        levels.append(pyramid_down(levels[-1]))
    return levels[::-1]


def laplacian_pyramid(image: Tensor, level_count: int) -> list[Tensor]:
    """Split photos into band-pass levels, coarsest first (Burt & Adelson 1983).

    Args:
        image: (N, C, H, W), sRGB in [0, 1]; H, W multiples of 2 ** (level_count - 1).
        level_count: 1 or more.

    Returns:
        Element 0 is level n, the low-pass residual in [0, 1]; element -1 is level 1,
        (N, C, H, W); all but element 0 are signed, in [-1, 1].

    Raises:
        ValueError: a side does not divide, or leaves less than 2 px at level n.
    """
    gaussian = gaussian_pyramid(image, level_count)
    bands = [fine - pyramid_up(coarse) for coarse, fine in pairwise(gaussian)]
    return [gaussian[0], *bands]


def collapse_pyramid(levels: Sequence[Tensor]) -> Tensor:
    """Add the levels of a Laplacian pyramid up again: the inverse of `laplacian_pyramid`.

    Args:
        levels: coarsest first, each twice the size of the one before.

    Returns:
        (N, C, H, W), the size of the last level.
    """
    image = levels[0]
    for band in levels[1:]:
        image = pyramid_up(image) + band
    return image


def pad_for_pyramid(image: Tensor, level_count: int) -> Tensor:
    """Pad at the bottom and right, by reflection where the photo is large enough for it.

    Args:
        image: (N, C, H, W).
        level_count: of the pyramid that the result can be split into.

    Returns:
        (N, C, H', W'); H' and W' are the next multiples of 2 ** (level_count - 1), two or more.
    """
    stride = 2 ** (level_count - 1)
    height, width = image.shape[-2:]
    bottom, right = (max(-side % stride, 2 * stride - side) for side in (height, width))
    image = F.pad(image, (0, right, 0, 0), mode="reflect" if right < width else "replicate")
    return F.pad(image, (0, 0, 0, bottom), mode="reflect" if bottom < height else "replicate")

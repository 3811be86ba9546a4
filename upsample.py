"""Carry the correction found at network size to the photo's full size.

Around every pixel of the small photos an affine colour transform is fitted that turns the
abnormal colours into the corrected ones: the guided filter with a colour guide (He, Sun and
Tang, "Guided Image Filtering", 2013), fitted small and applied large as in the "Fast Guided
Filter" (He and Sun 2015). It changes exposure and colour, and keeps the detail of every pixel.

Element-wise OpenCV kernels in a thread pool do the heavy work: BLAS and torch operators wait for
all their threads at the end of every call, and stall where other work keeps the cores busy.
"""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

# The value of white in each type that a photo's pixels may have.
WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}

# The variance in a window, of grey in [0, 1], at which half of a pixel's own offset is smoothed.
# Black against white has 0.25, foliage around 0.01.
EDGE_VARIANCE = 0.06


def upsample_correction(
    photo: np.ndarray,
    small_abnormal: np.ndarray,
    small_corrected: np.ndarray,
    radius: int = 2,
    epsilon: float = 1e-5,
) -> np.ndarray:
    """Correct a photo of any size as its small copy was corrected.

    Args:
        photo: (H, W, 3) uint8, uint16 or float32 in [0, 1]; sRGB.
        small_abnormal: (h, w, 3) float32 in [0, 1]; the whole photo, scaled down.
        small_corrected: (h, w, 3) float32 in [0, 1]; what the network made of it.
        radius: px of the small photos; see fit_transforms.
        epsilon: see fit_transforms.

    Returns:
        The corrected photo, of the shape and type of `photo`, rounded and clipped. A photo of
        the small size gives `small_corrected` itself.

    Raises:
        ValueError: a shape, a type, the radius or epsilon is not as above.
    """
    _check_image("photo", photo, WHITE)
    _check_small_pair(small_abnormal, small_corrected)
    if photo.shape == small_corrected.shape:
        return _to_pixels(small_corrected * WHITE[photo.dtype], photo.dtype)
    return apply_transforms(photo, fit_transforms(small_abnormal, small_corrected, radius, epsilon))


def fit_transforms(
    small_abnormal: np.ndarray,
    small_corrected: np.ndarray,
    radius: int = 2,
    epsilon: float = 1e-5,
) -> np.ndarray:
    """Fit the affine colour transform around every pixel of the small photos.

    A pixel's 3x3 matrix comes from ridge regression over the window around it (He, Sun and Tang
    2013, eq. 19 to 21), averaged over the same window. Two departures from the paper:

    - What is regressed is the change that a transform of the whole photo leaves unexplained. So
      flat windows, which say nothing about detail, fall back on that transform and not on zero,
      and a correction that is one affine transform is reproduced exactly.
    - The offset makes every small pixel come out as the network corrected it, so that only finer
      detail rests on the fit. It is averaged towards strong edges alone: pixels that mix both
      sides would spread their offset as a halo.

    Args:
        small_abnormal: (h, w, 3) float32 in [0, 1].
        small_corrected: (h, w, 3) float32 in [0, 1].
        radius: px, 1 or more; windows measure 2 * radius + 1. Small keeps tonal changes local,
            large averages more noise.
        epsilon: ridge penalty, 1e-6 or more (float32 resolves no less), a variance of colours in
            [0, 1]; contrasts well below its square root count as flat.

    Returns:
        (4, 3, h, w) float32: the weights of the photo's red, green and blue in the three
        corrected channels, then the offset in [0, 1] units.

    Raises:
        ValueError: a shape, a type, the radius or epsilon is not as above.
    """
    _check_small_pair(small_abnormal, small_corrected)
    if radius < 1:
        raise ValueError(f"radius is {radius}; it must be 1 or more")
    if not epsilon >= 1e-6:
        raise ValueError(f"epsilon is {epsilon}; it must be 1e-6 or more")

    # Planes, (channel, h, w): whole-plane arithmetic is several times faster than per pixel.
    abnormal = np.ascontiguousarray(small_abnormal.transpose(2, 0, 1))
    corrected = np.ascontiguousarray(small_corrected.transpose(2, 0, 1))

    def window_mean(planes: np.ndarray) -> np.ndarray:
        flat = planes.reshape(-1, *planes.shape[-2:])
        side = 2 * radius + 1
        return np.stack([cv2.blur(plane, (side, side)) for plane in flat]).reshape(planes.shape)

    def photo_mean(planes: np.ndarray) -> np.ndarray:
        return planes.mean((-2, -1), keepdims=True)

    matrix = np.eye(3, dtype=np.float32)[:, :, None, None]
    matrix = matrix + _ridge_slopes(abnormal, corrected - abnormal, epsilon, photo_mean)
    unexplained = corrected - _apply_matrix(matrix, abnormal)
    matrix = matrix + window_mean(_ridge_slopes(abnormal, unexplained, epsilon, window_mean))
    offset = corrected - _apply_matrix(matrix, abnormal)
    grey = abnormal.mean(0, keepdims=True)
    variance = window_mean(grey * grey) - window_mean(grey) ** 2
    offset += (window_mean(offset) - offset) * variance / (variance + EDGE_VARIANCE)

    return np.concatenate([matrix, offset[None]])


def apply_transforms(
    photo: np.ndarray, transforms: np.ndarray, strip_height: int = 8
) -> np.ndarray:
    """Apply fitted transforms to the full-size pixels, interpolated bilinearly between the fits.

    Pixel centres are aligned as in cv2.resize: row y of the photo lies at row
    (y + 0.5) * h / H - 0.5 of the fits, columns alike; beyond the outermost centres the fit is
    held. Strips are spread over as many threads as OpenCV may use. Beyond input and output, a
    thread needs some 100 bytes for every column of the photo and row of the fits under its
    strip, and as many for every column and row of the photo between two rows of the fits.

    Args:
        photo: (H, W, 3) uint8, uint16 or float32 in [0, 1].
        transforms: (4, 3, h, w) float32, from fit_transforms.
        strip_height: rows of the fits, 1 or more. Speed and memory depend on it, the result
            does not.

    Returns:
        The corrected photo, of the shape and type of `photo`, rounded and clipped.

    Raises:
        ValueError: a shape, a type or the strip height is not as above.
    """
    _check_image("photo", photo, WHITE)
    shape, dtype = transforms.shape, transforms.dtype
    if len(shape) != 4 or shape[:2] != (4, 3) or 0 in shape or dtype != np.float32:
        raise ValueError(f"transforms are {shape} {dtype}; they must be (4, 3, h, w) float32")
    if strip_height < 1:
        raise ValueError(f"strip_height is {strip_height}; it must be 1 or more")
    height, width = photo.shape[:2]
    small_height, small_width = shape[2:]
    transforms = transforms * np.float32([1, 1, 1, WHITE[photo.dtype]])[:, None, None, None]

    position = ((np.arange(height) + 0.5) * (small_height / height) - 0.5).clip(0, small_height - 1)
    upper = np.floor(position).astype(int)
    share = np.float32(position - upper)[:, None]
    corrected = np.empty(photo.shape, photo.dtype)

    def correct_strip(first: int) -> None:
        # The columns are interpolated once per row of the fits; then all rows of the photo
        # between two of them at once, in few calls: threads wait for each other between calls.
        small_rows = np.arange(first, min(first + strip_height, small_height) + 1)
        fits = transforms[:, :, small_rows.clip(max=small_height - 1)].reshape(-1, small_width)
        fits = cv2.resize(fits, (width, len(fits)), interpolation=cv2.INTER_LINEAR)
        fits = fits.reshape(4, 3, len(small_rows), 1, width)
        steps = np.diff(fits, axis=2)
        for index, small_row in enumerate(small_rows[:-1]):
            rows = slice(*np.searchsorted(upper, (small_row, small_row + 1)))
            if rows.start == rows.stop:
                continue
            *weights, totals = steps[:, :, index] * share[rows] + fits[:, :, index]
            planes = [plane.astype(np.float32) for plane in cv2.split(photo[rows])]
            for plane, weights_of_plane in zip(planes, weights, strict=True):
                for weight, total in zip(weights_of_plane, totals, strict=True):
                    cv2.accumulateProduct(plane, weight, total)
            corrected[rows] = cv2.merge([_to_pixels(total, photo.dtype) for total in totals])

    with ThreadPoolExecutor(cv2.getNumThreads()) as pool:
        list(pool.map(correct_strip, range(0, small_height, strip_height)))
    return corrected


def _ridge_slopes(
    abnormal: np.ndarray, change: np.ndarray, epsilon: float, average: Callable
) -> np.ndarray:
    """(3, 3, ...) slopes, by abnormal and changed channel, of `change` over each averaged area.

    The normal equations [covariance + epsilon * I | cross-covariance] are solved by Gauss-Jordan
    elimination. It needs no pivoting, as the left half is positive definite.
    """
    variables = np.concatenate([abnormal, change])
    means = average(variables)
    system = average(abnormal[:, None] * variables) - means[:3, None] * means
    for i in range(3):
        system[i, i] += epsilon
    for i in range(3):
        system[i] /= system[i, i].copy()
        for j in {0, 1, 2} - {i}:
            system[j] -= system[j, i].copy() * system[i]
    return system[:, 3:]


def _apply_matrix(matrix: np.ndarray, planes: np.ndarray) -> np.ndarray:
    return (matrix * planes[:, None]).sum(0)


def _to_pixels(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Clip values on the scale of `dtype` to it; round them if it holds integers."""
    if dtype == np.float32:
        return values.clip(0, 1)
    depth = {np.dtype(np.uint8): cv2.CV_8U, np.dtype(np.uint16): cv2.CV_16U}[dtype]
    return cv2.addWeighted(values, 1, values, 0, 0, dtype=depth)  # OpenCV's fastest conversion


def _check_image(name: str, image: np.ndarray, dtypes: Collection[np.dtype]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"{name} has shape {image.shape}; it must be (height, width, 3)")
    if image.dtype not in dtypes:
        allowed = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(f"{name} is {image.dtype}; it must be {allowed}")


def _check_small_pair(small_abnormal: np.ndarray, small_corrected: np.ndarray) -> None:
    _check_image("small_abnormal", small_abnormal, [np.dtype(np.float32)])
    _check_image("small_corrected", small_corrected, [np.dtype(np.float32)])
    if small_abnormal.shape != small_corrected.shape:
        raise ValueError(
            f"small_abnormal is {small_abnormal.shape}, small_corrected is "
            f"{small_corrected.shape}; they must be of one size"
        )

"""Carry the correction found at network size to the photo's full size.

Around every pixel of the small photos a gain and an offset per channel are fitted that turn the
abnormal values into the corrected ones: the guided filter (He, Sun and Tang, "Guided Image
Filtering", 2013) with every channel as its own guide, fitted small and applied large as in the
"Fast Guided Filter" (He and Sun 2015). It changes exposure and colour, and keeps the detail of
every pixel. A colour guide, with a 3x3 matrix per pixel, was measured to come no closer to the
network at full size at twice the cost, a bilateral grid less close (docs/experiments.md). What
looks unlike its window is left to edges.py.

Few calls do the heavy work on many rows each, in a thread pool: Python's threads wait for each
other between calls, and torch's operators wait for all their threads at the end of each.
"""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

# The value of white in each type that a photo's pixels may have.
WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}

# px of the small photos: windows that gains are fitted in measure 2 * RADIUS + 1.
RADIUS = 2
# The variance below which a whole photo is flat, and tells no gain.
FLAT_VARIANCE = np.float32(1e-5)


def upsample_correction(
    photo: np.ndarray,
    small_abnormal: np.ndarray,
    small_corrected: np.ndarray,
) -> np.ndarray:
    """Correct a photo of any size as its small copy was corrected.

    Args:
        photo: (H, W, 3) uint8, uint16 or float32 in [0, 1]; sRGB.
        small_abnormal: (h, w, 3) float32 in [0, 1]; the whole photo, scaled down.
        small_corrected: (h, w, 3) float32 in [0, 1]; what the network made of it.

    Returns:
        The corrected photo, of the shape and type of `photo`, rounded and clipped.

    Raises:
        ValueError: a shape or a type is not as above.
    """
    return apply_gains(photo, fit_gains(small_abnormal, small_corrected))


def fit_gains(
    small_abnormal: np.ndarray,
    small_corrected: np.ndarray,
    radius: int = RADIUS,
    epsilon: float = 1e-5,
) -> np.ndarray:
    """Fit the gain and the offset of every channel around every pixel of the small photos.

    A pixel's gain comes from ridge regression over the window around it (He, Sun and Tang 2013,
    eq. 5 and 6), averaged over the same window. Two departures from the paper:

    - What is regressed is the change that a gain of the whole photo leaves unexplained. So flat
      windows, which say nothing about detail, fall back on that gain and not on zero, and a
      correction that is one gain and offset is reproduced exactly.
    - The offset is not averaged: it makes every small pixel come out as the network corrected
      it, so that only finer detail rests on the fit.

    Args:
        small_abnormal: (h, w, 3) float32 in [0, 1].
        small_corrected: (h, w, 3) float32 in [0, 1].
        radius: px, 1 or more; windows measure 2 * radius + 1. Small keeps tonal changes local,
            large averages more noise.
        epsilon: ridge penalty, 1e-6 or more (float32 resolves no less), a variance of values in
            [0, 1]; contrasts well below its square root count as flat.

    Returns:
        (2, h, w, 3) float32: gains, and offsets in [0, 1] units.

    Raises:
        ValueError: a shape, a type, the radius or epsilon is not as above.
    """
    _check_small_pair(small_abnormal, small_corrected)
    if radius < 1:
        raise ValueError(f"radius is {radius}; it must be 1 or more")
    if not epsilon >= 1e-6:
        raise ValueError(f"epsilon is {epsilon}; it must be 1e-6 or more")
    abnormal, corrected = map(np.ascontiguousarray, (small_abnormal, small_corrected))

    def window_mean(image: np.ndarray) -> np.ndarray:
        return cv2.blur(image, (2 * radius + 1, 2 * radius + 1))

    def channel_means(image: np.ndarray) -> np.ndarray:
        return np.float32(cv2.mean(image)[:3])  # several times faster than NumPy's

    centred = abnormal - channel_means(abnormal)
    whole = 1 + channel_means(centred * (corrected - abnormal)) / (
        channel_means(centred * centred) + FLAT_VARIANCE
    )
    unexplained = corrected - whole * abnormal
    mean = window_mean(abnormal)
    covariance = window_mean(abnormal * unexplained) - mean * window_mean(unexplained)
    variance = window_mean(abnormal * abnormal) - mean * mean
    gain = whole + window_mean(covariance / (variance + np.float32(epsilon)))
    return np.stack([gain, corrected - gain * abnormal])


def apply_gains(photo: np.ndarray, gains: np.ndarray, strip_height: int = 8) -> np.ndarray:
    """Apply fitted gains and offsets to the full-size pixels, interpolated bilinearly.

    Pixel centres are aligned as in cv2.resize: row y of the photo lies at row
    (y + 0.5) * h / H - 0.5 of the fits, columns alike; beyond the outermost centres the fit is
    held. Strips are spread over as many threads as OpenCV may use. Beyond input and output, a
    thread needs some 50 bytes for every column of the photo and row of the fits under its
    strip, and as many for every column and row of the photo between two rows of the fits.

    Args:
        photo: (H, W, 3) uint8, uint16 or float32 in [0, 1].
        gains: (2, h, w, 3) float32, gains and offsets from fit_gains.
        strip_height: rows of the fits, 1 or more. Speed and memory depend on it, the result
            does not.

    Returns:
        The corrected photo, of the shape and type of `photo`, rounded and clipped.

    Raises:
        ValueError: a shape, a type or the strip height is not as above.
    """
    _check_image("photo", photo, WHITE)
    shape, dtype = gains.shape, gains.dtype
    if len(shape) != 4 or shape[::3] != (2, 3) or 0 in shape or dtype != np.float32:
        raise ValueError(f"gains are {shape} {dtype}; they must be (2, h, w, 3) float32")
    if strip_height < 1:
        raise ValueError(f"strip_height is {strip_height}; it must be 1 or more")
    height, width = photo.shape[:2]
    small_height, small_width = shape[1:3]
    gains = gains * np.float32([1, WHITE[photo.dtype]])[:, None, None, None]

    position = ((np.arange(height) + 0.5) * (small_height / height) - 0.5).clip(0, small_height - 1)
    upper = np.floor(position).astype(int)
    share = np.float32(position - upper)[:, None, None]
    corrected = np.empty(photo.shape, photo.dtype)

    def correct_strip(first: int) -> None:
        # The columns are interpolated once per row of the fits; then all rows of the photo
        # between two of them at once.
        small_rows = np.arange(first, min(first + strip_height, small_height) + 1)
        fits = gains[:, small_rows.clip(max=small_height - 1)].reshape(-1, small_width, 3)
        fits = cv2.resize(fits, (width, len(fits)), interpolation=cv2.INTER_LINEAR)
        fits = fits.reshape(2, len(small_rows), 1, width, 3)
        steps = np.diff(fits, axis=1)
        for index, small_row in enumerate(small_rows[:-1]):
            rows = slice(*np.searchsorted(upper, (small_row, small_row + 1)))
            if rows.start == rows.stop:
                continue
            gain, total = steps[:, index] * share[rows] + fits[:, index]
            cv2.accumulateProduct(photo[rows].astype(np.float32, order="C"), gain, total)
            corrected[rows] = to_pixels(total, photo.dtype)

    with ThreadPoolExecutor(cv2.getNumThreads()) as pool:
        list(pool.map(correct_strip, range(0, small_height, strip_height)))
    return corrected


def to_pixels(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
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

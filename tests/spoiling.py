"""Ways to spoil a photo that several test files take."""

import numpy as np

from dataset import make_generator
from synthesis import ExposureSynthesis

NO_JITTER = {
    "color_jitter_brightness": 0,
    "color_jitter_contrast": 0,
    "color_jitter_saturation": 0,
}


def spoil(normal: np.ndarray, seed: int = 0, **settings) -> np.ndarray:
    """The abnormal photo alone, of a synthesis that has nothing but these settings."""
    return ExposureSynthesis(**(NO_JITTER | settings))(normal, make_generator(seed))[0][0]


def is_equal(photo: np.ndarray, other: np.ndarray) -> bool:
    return photo.dtype == other.dtype and np.array_equal(photo, other)


def flat(tone: float, size: tuple[int, int] = (4, 4)) -> np.ndarray:
    """A grey photo of one value in [0, 1]."""
    return np.full((*size, 3), round(tone * 255), np.uint8)

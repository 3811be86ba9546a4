"""Tone curves, and other changes of a photo's tones and colours.

Photos are (H, W, 3) uint8 here. A curve is worked out for their 256 values and then looked up for
every pixel.
"""

import math

import cv2
import numpy as np
import torch
from torch import Tensor

# The mean sRGB value that targets are drawn to, chosen by scores on the README's photos. The
# training photos have 0.45 in the mean, references there 0.39 to 0.43, of the paper's scenes 0.3.
TYPICAL_BRIGHTNESS = 0.315
# The share of their contrast that is left to targets, to the power of `brightness_pull`: at 0.5,
# 0.93. References there have about 0.9 times the contrast of the training photos.
KEPT_CONTRAST = 0.86
VALUE_COUNT = 256
MAX_KEPT_GAIN = 3.0  # beyond it, colours of near-black would be noise; the rest is added as grey
GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue, as ColorJitter has them


def plain_curve() -> Tensor:
    """The 256 values of a photo, in [0, 1]: the curve that changes nothing."""
    return torch.arange(VALUE_COUNT) / (VALUE_COUNT - 1)


def apply_curve(photo: np.ndarray, curve: Tensor) -> np.ndarray:
    """Give every value of a photo its new one.

    Args:
        photo: (H, W, 3) uint8.
        curve: (256,), the new values, in [0, 1].
    """
    return cv2.LUT(photo, to_8_bit(curve))


def apply_tone(photo: np.ndarray, curve: Tensor, kept_colour: float) -> np.ndarray:
    """Give a photo another tone curve, and change its colours by a share of what that would.

    Args:
        photo: (H, W, 3) uint8.
        curve: (256,), what becomes of each grey, in [0, 1].
        kept_colour: 0 to 1. 0: each channel gets the curve, as by `apply_curve`, which changes
            colours; 1: a pixel's brightest channel gets it, and the others are multiplied as
            that is, by MAX_KEPT_GAIN at most; what is lacking then is added to all as grey.

    Returns:
        (H, W, 3) uint8.
    """
    tones = curve.numpy() * np.float32(VALUE_COUNT - 1)
    values = np.arange(VALUE_COUNT, dtype=np.float32)
    gains = np.minimum(tones, MAX_KEPT_GAIN * values) / np.maximum(values, 1)
    red, green, blue = cv2.split(photo)
    brightest = cv2.merge([cv2.max(cv2.max(red, green), blue)] * 3)
    kept = cv2.multiply(photo, cv2.LUT(brightest, gains), dtype=cv2.CV_32F)
    kept = cv2.add(kept, cv2.LUT(brightest, tones - values * gains))
    by_channel = cv2.LUT(photo, tones)
    return cv2.addWeighted(by_channel, 1 - kept_colour, kept, kept_colour, 0, dtype=cv2.CV_8U)


def to_8_bit(image: Tensor) -> np.ndarray:
    """Round values in [0, 1] to the 256 that files hold."""
    return (image * 255).round().to(torch.uint8).numpy()


def s_curve(image: Tensor, steepness: float, middle: float = 0.5) -> Tensor:
    """Compress shadows and highlights: odds of x to those of the middle, to a power.

    With the middle at 0.5, it is x ** n / (x ** n + (1 - x) ** n), n being the steepness. That is
    the slope at the middle, which stays, as black and white do; 1 / n undoes n.

    Args:
        image: in [0, 1]; what rounding left beyond is clipped.
        steepness: above 0; below 1, shadows and highlights are spread instead.
        middle: the value that stays, in (0, 1).

    Returns:
        The same shape, in [0, 1].
    """
    image = image.clamp(0, 1)
    dark = middle * (image / middle) ** steepness
    bright = (1 - middle) * ((1 - image) / (1 - middle)) ** steepness
    return dark / (dark + bright)


def draw_brightness(photo: np.ndarray, strength: float) -> np.ndarray:
    """Draw the mean brightness of a normal photo to that of others, and take contrast from it.

    How bright "normal" is differs from photographer to photographer, which no network can
    guess; the less it differs, the surer a network gets. Black and white stay what they are.

    Args:
        photo: (H, W, 3) uint8.
        strength: 0 (not at all) to 1 (KEPT_CONTRAST times the contrast about TYPICAL_BRIGHTNESS,
            then the gamma that brings the mean about there). The gamma is from 0.8 to 1.4 at
            most, to leave night as night and snow as snow.

    Returns:
        (H, W, 3) uint8.
    """
    softer = s_curve(plain_curve(), KEPT_CONTRAST**strength, TYPICAL_BRIGHTNESS)
    mean = min(max(np.mean(cv2.mean(apply_curve(photo, softer))[:3]) / 255, 0.02), 0.98)
    gamma = (math.log(TYPICAL_BRIGHTNESS) / math.log(mean)) ** strength
    return apply_curve(photo, softer ** min(max(gamma, 0.8), 1.4))


def change_brightness(photo: np.ndarray, factor: float) -> np.ndarray:
    """Multiply a photo, (H, W, 3) uint8, by the factor."""
    return cv2.transform(photo, factor * np.eye(3))


def change_contrast(photo: np.ndarray, factor: float) -> np.ndarray:
    """Multiply a photo's distance from its mean grey by the factor."""
    grey = np.dot(GREY_WEIGHTS, cv2.mean(photo)[:3])
    return cv2.transform(photo, np.c_[factor * np.eye(3), np.full(3, (1 - factor) * grey)])


def change_saturation(photo: np.ndarray, factor: float) -> np.ndarray:
    """Multiply each pixel's distance from its own grey by the factor."""
    return cv2.transform(photo, factor * np.eye(3) + (1 - factor) * np.array(GREY_WEIGHTS))

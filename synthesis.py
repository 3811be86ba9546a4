"""Wrong exposures, made from photos that were rightly exposed.

Photos are (H, W, 3) uint8 here. An exposure or a tone curve does the same to equal values, so
it is worked out for the 256 of them and then looked up for every pixel.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Generator, Tensor

# The display encoding of a camera without a tone curve: no shoulder in the highlights.
PLAIN_GAMMA, PLAIN_SHOULDER = 2.2, 1e6
# Of the random cameras under which exposures are shifted. Real ones compress highlights much:
# a small shoulder makes what clips at a longer exposure a light tone of the normal photo.
GAMMA_RANGE, SHOULDER_RANGE = (1.8, 2.6), (0.12, 8.0)
# The mean sRGB value that targets are drawn to, chosen by scores on the README's photos. The
# training photos have 0.45 in the mean, references there 0.39 to 0.43, of the paper's scenes 0.3.
TYPICAL_BRIGHTNESS = 0.38
VALUE_COUNT = 256
GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue, as ColorJitter has them


def uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def plain_curve() -> Tensor:
    """The 256 values of a photo, in [0, 1]: the curve that changes nothing."""
    return torch.arange(VALUE_COUNT) / (VALUE_COUNT - 1)


def apply_curve(photo: np.ndarray, curve: Tensor) -> np.ndarray:
    """Give every value of a photo its new one.

    Args:
        photo: (H, W, 3) uint8.
        curve: (256,), the new values, in [0, 1].
    """
    return cv2.LUT(photo, (curve * 255).round().to(torch.uint8).numpy())


def shift_exposure(
    image: Tensor, ev: float, gamma: float = PLAIN_GAMMA, shoulder: float = PLAIN_SHOULDER
) -> Tensor:
    """Expose by `ev` stops more, as a camera would have: in linear light.

    The camera is taken to show the light s of the scene, 1 at the sensor's limit, as
    y = (s * (1 + shoulder) / (s + shoulder)) ** (1 / gamma): the smaller the shoulder, the
    more its tone curve compresses highlights. That is undone, the light multiplied by 2 ** ev
    and clipped at 1, and the curve applied again.

    Args:
        image: a curve or a photo, in [0, 1].
        ev: stops; +1 doubles linear light.
        gamma: of the display encoding, above 0.
        shoulder: above 0; 1e6 is as good as none.

    Returns:
        The same shape, in [0, 1].
    """
    encoded = image.clamp(0, 1) ** gamma
    light = encoded * shoulder / (1 + shoulder - encoded)
    light = (light * 2.0**ev).clamp(max=1)
    return (light * (1 + shoulder) / (light + shoulder)) ** (1 / gamma)


def retone(image: Tensor, strength: float, generator: Generator) -> Tensor:
    """Give another tone curve: random gamma, S-curve, black and white point.

    Without it a network learns to read the traces of the synthetic shift (where the histogram
    ends, say) in place of the scene, and fails on real photos.

    Args:
        image: a curve or a photo, in [0, 1].
        strength: 0 (none) to 1 (gamma from 0.7 to 1.42).

    Returns:
        The same shape, in [0, 1].
    """
    gamma = math.exp(strength * uniform(-0.35, 0.35, generator))
    contrast = strength * uniform(-0.8, 0.8, generator)
    black = strength * uniform(-0.04, 0.06, generator)
    white = 1 - strength * uniform(-0.04, 0.1, generator)
    image = image.clamp(0, 1) ** gamma
    s_curve = image * image * (3 - 2 * image)
    image = torch.lerp(image, s_curve, contrast)
    return (black + (white - black) * image).clamp(0, 1)


def draw_brightness(photo: np.ndarray, strength: float) -> np.ndarray:
    """Draw the mean brightness of a normal photo towards that of well-exposed photos.

    How bright "normal" is differs from photographer to photographer, which no network can
    guess; the less it differs, the surer a network gets. Black and white stay what they are.

    Args:
        photo: (H, W, 3) uint8.
        strength: 0 (not at all) to 1 (about to TYPICAL_BRIGHTNESS); by a gamma from 0.8 to 1.4
            at most, to leave night as night and snow as snow.

    Returns:
        (H, W, 3) uint8.
    """
    mean = min(max(np.mean(cv2.mean(photo)[:3]) / 255, 0.02), 0.98)
    gamma = (math.log(TYPICAL_BRIGHTNESS) / math.log(mean)) ** strength
    return apply_curve(photo, plain_curve() ** min(max(gamma, 0.8), 1.4))


def jitter_range(jitter: float | tuple[float, float]) -> tuple[float, float]:
    """Range of the factors that ColorJitter draws for a strength, or for a range itself."""
    return (max(0.0, 1 - jitter), 1 + jitter) if isinstance(jitter, (int, float)) else jitter


def jitter_brightness(photo: np.ndarray, factor: float) -> np.ndarray:
    """Multiply a photo, (H, W, 3) uint8, by the factor."""
    return cv2.transform(photo, factor * np.eye(3))


def jitter_contrast(photo: np.ndarray, factor: float) -> np.ndarray:
    """Multiply a photo's distance from its mean grey by the factor."""
    grey = np.dot(GREY_WEIGHTS, cv2.mean(photo)[:3])
    return cv2.transform(photo, np.c_[factor * np.eye(3), np.full(3, (1 - factor) * grey)])


def jitter_saturation(photo: np.ndarray, factor: float) -> np.ndarray:
    """Multiply each pixel's distance from its own grey by the factor."""
    return cv2.transform(photo, factor * np.eye(3) + (1 - factor) * np.array(GREY_WEIGHTS))


@dataclass(frozen=True)
class ExposureSynthesis:
    """Spoils the exposure of normal photos at random; see TrainConfig for the settings."""

    color_jitter_brightness: float | tuple[float, float]
    color_jitter_contrast: float | tuple[float, float]
    color_jitter_saturation: float | tuple[float, float]
    exposure_shift_ev: tuple[float, float] = (0.0, 0.0)
    exposure_shift_share: float = 0.0
    untouched_share: float = 0.0
    retone_strength: float = 0.0
    brightness_pull: float = 0.0
    version_count: int = 1

    def __call__(
        self, normal: np.ndarray, generator: Generator
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Make a training sample.

        Args:
            normal: a photo, (H, W, 3) uint8.

        Returns:
            abnormal: the photo spoilt in version_count ways.
            normal: what the network is to make of each. With `brightness_pull`, not quite the
                photo itself, unless it is left untouched.
        """
        if uniform(0, 1, generator) < self.untouched_share:
            return [normal] * self.version_count, normal
        abnormal = [self._spoil(normal, generator) for _ in range(self.version_count)]
        if self.brightness_pull > 0:
            normal = draw_brightness(normal, self.brightness_pull)
        return abnormal, normal

    def _spoil(self, photo: np.ndarray, generator: Generator) -> np.ndarray:
        curve = plain_curve()
        if uniform(0, 1, generator) < self.exposure_shift_share:
            curve = shift_exposure(
                curve,
                ev=uniform(*self.exposure_shift_ev, generator),
                gamma=uniform(*GAMMA_RANGE, generator),
                shoulder=math.exp(uniform(*map(math.log, SHOULDER_RANGE), generator)),
            )
        else:
            photo = self._jitter(photo, generator)
        if self.retone_strength > 0:
            curve = retone(curve, self.retone_strength, generator)
        return apply_curve(photo, curve)

    def _jitter(self, photo: np.ndarray, generator: Generator) -> np.ndarray:
        """Do what torchvision's ColorJitter does to 8-bit photos, many times faster."""
        jitters = (
            (jitter_brightness, self.color_jitter_brightness),
            (jitter_contrast, self.color_jitter_contrast),
            (jitter_saturation, self.color_jitter_saturation),
        )
        for index in torch.randperm(len(jitters), generator=generator).tolist():
            jitter, strength = jitters[index]
            photo = jitter(photo, uniform(*jitter_range(strength), generator))
        return photo

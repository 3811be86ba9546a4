"""Wrong exposures, made from photos that were rightly exposed.

Photos are (H, W, 3) uint8 here. An exposure does the same to equal values, so it is worked out
for the 256 of them and then looked up for every pixel.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Generator, Tensor
from torchvision.transforms import ColorJitter

from tones import (
    VALUE_COUNT,
    apply_curve,
    apply_tone,
    change_brightness,
    change_contrast,
    change_saturation,
    draw_brightness,
    plain_curve,
    s_curve,
    to_8_bit,
)

# The display encoding of a camera without a tone curve: no shoulder in the highlights.
PLAIN_GAMMA, PLAIN_SHOULDER = 2.2, 1e6
# Of the random cameras under which exposures are shifted. Real ones compress highlights much:
# a small shoulder makes what clips at a longer exposure a light tone of the normal photo. They
# compress shadows as well: without an S-curve, a scene comes out darker from a dark photo of it
# than from a bright one.
GAMMA_RANGE, SHOULDER_RANGE, STEEPNESS_RANGE = (1.8, 2.6), (0.05, 2.0), (1.0, 1.4)
# Of the light that white areas of a photo may hide, 1 being the sensor's limit.
HIDDEN_LIGHT_RANGE = (0.5, 10.0)
WHITE_FROM = 0.85  # of all three channels; from here on ever more of the light is hidden
# How far re-toning keeps colours (1: the ratios of the channels, 0: each channel has the curve).
# In real wrong exposures colours change little, and much alike; curves of each channel alone
# change them at random, and what is learned from that are greyish dark photos.
KEPT_COLOUR_RANGE = (0.5, 1.0)


def uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def uniform_ratio(bounds: tuple[float, float], generator: Generator) -> float:
    """Draw so that equal ratios are equally likely."""
    return math.exp(uniform(*map(math.log, bounds), generator))


def shift_exposure(
    image: Tensor,
    ev: float,
    gamma: float = PLAIN_GAMMA,
    shoulder: float = PLAIN_SHOULDER,
    steepness: float = 1.0,
    hidden_light: Tensor | float = 0.0,
) -> Tensor:
    """Expose by `ev` stops more, as a camera would have: in linear light.

    The camera is taken to show the light s of the scene, 1 at the sensor's limit, as
    y = (s * (1 + shoulder) / (s + shoulder)) ** (1 / gamma), under an S-curve: the smaller the
    shoulder, the more its tone curve compresses highlights. That is undone, the light multiplied
    by 2 ** ev and clipped at 1, and the curves applied again.

    Args:
        image: a curve or a photo, in [0, 1].
        ev: stops; +1 doubles linear light.
        gamma: of the display encoding, above 0.
        shoulder: above 0; 1e6 is as good as none.
        steepness: of the S-curve, see `s_curve`; 1: none.
        hidden_light: of the image's shape, light of the scene beyond what the photo shows.

    Returns:
        The same shape, in [0, 1].
    """
    encoded = s_curve(image, 1 / steepness) ** gamma
    light = encoded * shoulder / (1 + shoulder - encoded)
    light = ((light + hidden_light) * 2.0**ev).clamp(max=1)
    return s_curve((light * (1 + shoulder) / (light + shoulder)) ** (1 / gamma), steepness)


def invent_hidden_light(photo: np.ndarray, generator: Generator) -> tuple[np.ndarray, Tensor]:
    """Make up what a scene holds where the photo is white: the view from a window, say.

    A shorter exposure would show it. Photos darkened without it have flat grey there, which
    real dark photos have not.

    Args:
        photo: (H, W, 3) uint8.

    Returns:
        is_white: (H, W), where the photo is white.
        hidden_light: (pixels, 3), linear light there, 1 at the sensor's limit.
    """
    is_upside_down = int(torch.randint(2, (), generator=generator))
    offset = int(torch.randint(photo.shape[1], (), generator=generator))
    strength = uniform_ratio(HIDDEN_LIGHT_RANGE, generator)
    red, green, blue = cv2.split(photo)
    darkest = cv2.min(cv2.min(red, green), blue)
    is_white = darkest > WHITE_FROM * 255
    whiteness = (torch.from_numpy(darkest[is_white])[:, None] / 255 - WHITE_FROM) / (1 - WHITE_FROM)
    scenery = np.roll(cv2.flip(photo, 1 - is_upside_down), offset, axis=1)[is_white]
    light = (torch.from_numpy(scenery) / 255) ** PLAIN_GAMMA
    return is_white, strength * whiteness * whiteness * (3 - 2 * whiteness) * light


def retone(image: Tensor, strength: float, generator: Generator) -> Tensor:
    """Give another tone curve: random gamma, S-curve, black and white point.

    So that a network goes by the scene, and less by traces of the synthetic shift (where the
    histogram ends, say), which real photos lack.

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
    smoothstep = image * image * (3 - 2 * image)
    image = torch.lerp(image, smoothstep, contrast)
    return (black + (white - black) * image).clamp(0, 1)


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
    hidden_light_share: float = 0.0
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
        is_white, hidden_light = np.zeros(normal.shape[:2], bool), torch.zeros(0, 3)
        if uniform(0, 1, generator) < self.hidden_light_share:
            is_white, hidden_light = invent_hidden_light(normal, generator)
        abnormal = [
            self._spoil(normal, is_white, hidden_light, generator)
            for _ in range(self.version_count)
        ]
        if self.brightness_pull > 0:
            normal = draw_brightness(normal, self.brightness_pull)
        return abnormal, normal

    def _spoil(
        self,
        photo: np.ndarray,
        is_white: np.ndarray,
        hidden_light: Tensor,
        generator: Generator,
    ) -> np.ndarray:
        if uniform(0, 1, generator) < self.exposure_shift_share:
            abnormal = self._shift(photo, is_white, hidden_light, generator)
        else:
            abnormal = self._jitter(photo, generator)
        if self.retone_strength > 0:
            curve = retone(plain_curve(), self.retone_strength, generator)
            abnormal = apply_tone(abnormal, curve, uniform(*KEPT_COLOUR_RANGE, generator))
        return abnormal

    def _shift(
        self,
        photo: np.ndarray,
        is_white: np.ndarray,
        hidden_light: Tensor,
        generator: Generator,
    ) -> np.ndarray:
        """Shift the exposure of a photo under a random camera."""
        # Pixels that hide light have values of their own, behind the curve of all others.
        whites = torch.from_numpy(photo[is_white]).flatten() / 255
        values = shift_exposure(
            torch.cat([plain_curve(), whites]),
            ev=uniform(*self.exposure_shift_ev, generator),
            gamma=uniform(*GAMMA_RANGE, generator),
            shoulder=uniform_ratio(SHOULDER_RANGE, generator),
            steepness=uniform_ratio(STEEPNESS_RANGE, generator),
            hidden_light=torch.cat([torch.zeros(VALUE_COUNT), hidden_light.flatten()]),
        )
        abnormal = apply_curve(photo, values[:VALUE_COUNT])
        abnormal[is_white] = to_8_bit(values[VALUE_COUNT:]).reshape(-1, 3)
        return abnormal

    def _jitter(self, photo: np.ndarray, generator: Generator) -> np.ndarray:
        """Draw what ColorJitter draws, and do what it does: by OpenCV, in 8 bits, much faster."""
        jitter = ColorJitter(
            brightness=self.color_jitter_brightness,
            contrast=self.color_jitter_contrast,
            saturation=self.color_jitter_saturation,
        )
        # ColorJitter draws from torch's global state, which must come out of this unchanged.
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would queue a call for CUDA each time.
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            order, *factors, _ = ColorJitter.get_params(
                jitter.brightness, jitter.contrast, jitter.saturation, None
            )
        changes = (change_brightness, change_contrast, change_saturation)
        for index in order.tolist():
            if index < len(changes) and factors[index] is not None:
                photo = changes[index](photo, factors[index])
        return photo

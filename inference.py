"""Run the network on one photo: which of its levels, on which versions, carried on how."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import adjust
from bilateral_grid import apply_grid, fit_grid, to_batch
from model import ExposureCorrectionNet
from pyramid import gaussian_pyramid, pad_for_pyramid

# px of a level from which on it tells enough to carry its correction on.
MIN_SIDE = 8
# Change of the coarsest level's median luma, white = 1, from which on toned versions of the photo
# take its place.
TONED_FROM = 0.11


def choose_finest_level(
    sides: tuple[int, int],
    model: ExposureCorrectionNet,
    finest_level: int | None = None,
    level_scales: Sequence[float] | None = None,
) -> int:
    """The finest level that the network corrects of a photo with these sides; see `correct`.

    Raises:
        ValueError: there is no such level, or level_scales want all.
    """
    if level_scales is not None:
        if finest_level not in (None, 1):
            raise ValueError(f"finest_level is {finest_level}; with level_scales it is 1 or None")
        return 1
    if finest_level is None:
        finest_level = model.level_count
        while finest_level > 1 and min(sides) < MIN_SIDE * 2 ** (finest_level - 1):
            finest_level -= 1
    if not 1 <= finest_level <= model.level_count:
        raise ValueError(f"finest_level is {finest_level}; allowed: 1 to {model.level_count}")
    return finest_level


@torch.inference_mode()
def run_network(
    abnormal: np.ndarray,
    model: ExposureCorrectionNet,
    finest_level: int,
    level_scales: Sequence[float] | None = None,
    self_ensemble: bool = True,
    restraint: float = 0,
) -> np.ndarray:
    """Map (H, W, 3) float32 in [0, 1] to the same, corrected and clipped; see `correct`.

    Args:
        finest_level: from choose_finest_level.

    Raises:
        ValueError: what comes out is not finite.
    """
    padded = pad_for_pyramid(to_batch(abnormal, device_of(model)), model.level_count)
    levels = gaussian_pyramid(padded, model.level_count)
    active_count = model.level_count - finest_level + 1
    seen = levels[min(active_count, model.level_count - 1)]  # one level finer, or level 1
    outputs = model(seen, level_scales, active_count, self_ensemble=self_ensemble)
    start, corrected = to_picture(levels[active_count - 1]), to_picture(outputs[active_count - 1])
    height, width = abnormal.shape[:2]
    scale = 2 ** (finest_level - 1)
    inner = np.s_[: -(-height // scale), : -(-width // scale)]  # all but what was padded
    if level_scales is None:  # which are asked for, and of which toned versions know nothing
        strength = adjust.restrained_strength(start[inner], corrected[inner], restraint)
        if self_ensemble:
            corrected = draw_to_toned(corrected, levels[0], outputs[0], model)
        corrected = adjust.blend(start, corrected, strength)
    if finest_level > 1:
        corrected = carry_on(padded, start, corrected)
    return np.ascontiguousarray(corrected[:height, :width])


def draw_to_toned(
    corrected: np.ndarray, coarsest: Tensor, plain: Tensor, model: ExposureCorrectionNet
) -> np.ndarray:
    """Draw a correction to the mean over toned versions of the photo.

    Only as far as the exposure is wrong: toned versions of a good photo spoil it a little. What
    that changes at the coarsest level is carried to a finer one.

    Args:
        corrected: (H, W, 3) float32 in [0, 1], at the finest level that the network corrects.
        coarsest: (1, 3, h, w), the coarsest level of the photo.
        plain: (1, 3, h, w), the network's correction of that.
        model: the network.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    abnormal, untoned = to_picture(coarsest), to_picture(plain)
    share = adjust.restrained_strength(abnormal, untoned, TONED_FROM)
    drawn = adjust.blend(untoned, to_picture(model.correct_toned(coarsest)), share)
    if corrected.shape == drawn.shape:
        return drawn
    return carry_on(to_batch(corrected, coarsest.device), untoned, drawn)


def carry_on(finer: Tensor, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Change a finer level as a coarser one was changed, by a bilateral grid.

    Args:
        finer: (1, 3, H, W).
        before, after: (h, w, 3) float32 in [0, 1], the coarser level.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    grid = fit_grid(*(to_batch(picture, finer.device) for picture in (before, after)))
    return to_picture(apply_grid(finer, grid))


def device_of(model: ExposureCorrectionNet) -> torch.device:
    return next(model.parameters()).device


def to_picture(batch: Tensor) -> np.ndarray:
    """Map a batch of one photo, (1, 3, H, W), to (H, W, 3) float32, clipped to [0, 1].

    Raises:
        ValueError: a value is not finite.
    """
    if not batch.isfinite().all():
        raise ValueError("the network gives values that are not finite; use other weights")
    return np.ascontiguousarray(batch[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy())

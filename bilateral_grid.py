"""Carry a correction from a coarse level of the pyramid to a finer one, without halos.

What the network changed at the coarse level is fitted by a bilateral grid (Chen, Paris and Durand,
"Real-time Edge-Aware Image Processing with the Bilateral Grid", 2007) of affine maps of colour
(Chen et al., "Bilateral Guided Upsampling", 2016), one per place and brightness. A fine pixel is
mapped as those of its own brightness are. Gains that are enlarged from a coarse level, whose
pixels mix both sides of an edge, spread light over edges instead.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upsample import FLAT_VARIANCE

# Nodes of the grid, from top to bottom and from left to right, and from black to white.
PLACES, TONES = 5, 21
# Standard deviations of a node's neighbourhood, in long sides of the photo and in brightness.
PLACE_SPREAD, TONE_SPREAD = 0.22, 0.05
# Ridge penalty, a variance of values in [0, 1]: colours that differ much less say nothing.
RIDGE = 1e-4
# px of a picture's long side that are looked at; more tell nothing new, of 512 px either.
SAMPLES = 32
# Values that are mapped at once: few stay in the cache, and bound the memory.
CHUNK = 2**19


def fit_grid(abnormal: Tensor, corrected: Tensor) -> Tensor:
    """Fit the maps of colour that turn one picture into the other.

    At every node a ridge regression over a sample of the pixels, weighted by a Gaussian of their
    distance from the node in place and brightness (mean of the channels); the weights sum to 1
    even where no pixel is near. What is regressed is the change that a gain per channel of the
    whole photo leaves unexplained, so flat neighbourhoods, which say nothing about detail, fall
    back on that.

    Args:
        abnormal, corrected: (1, 3, h, w) float32 in [0, 1].

    Returns:
        (PLACES, 12, TONES, PLACES), from top to bottom, from black to white, from left to right:
        the nine entries of a matrix, a row per output channel, and three offsets in [0, 1] units.
    """
    variance, mean = torch.var_mean(abnormal, (2, 3), correction=0)
    covariance = ((abnormal - mean[..., None, None]) * (corrected - abnormal)).mean((2, 3))
    whole = (1 + covariance / (variance + FLAT_VARIANCE))[0]

    sides, device = abnormal.shape[2:], abnormal.device
    step = -(-max(sides) // SAMPLES)
    values, targets = (
        image[0, :, ::step, ::step].flatten(1).T
        for image in (abnormal, corrected - whole[:, None, None] * abnormal)
    )
    spans = [side / max(sides) / PLACE_SPREAD for side in sides]  # all in units of the spreads
    rows, columns = (
        (torch.arange(0, side, step, device=device) + 0.5) / side * span
        for side, span in zip(sides, spans, strict=True)
    )
    tones = values.mean(1, keepdim=True) / TONE_SPREAD
    pixels = torch.cat([tones, torch.cartesian_prod(rows, columns)], 1)
    nodes = torch.cartesian_prod(
        torch.linspace(0, 1 / TONE_SPREAD, TONES, device=device),
        *(torch.linspace(0, span, PLACES, device=device) for span in spans),
    )
    distances = torch.cdist(nodes, pixels, compute_mode="donot_use_mm_for_euclid_dist")
    weights = torch.softmax(-0.5 * distances.square(), 1)
    value_means, target_means = weights @ values, weights @ targets

    def covariances(others: Tensor, means: Tensor) -> Tensor:
        products = (values[:, :, None] * others[:, None]).flatten(1)
        return (weights @ products).view(-1, 3, 3) - value_means[:, :, None] * means[:, None]

    ridge = RIDGE * torch.eye(3, device=device)
    slopes = torch.linalg.solve(
        covariances(values, value_means) + ridge, covariances(targets, target_means)
    ).mT
    offsets = target_means - (slopes @ value_means[..., None])[..., 0]
    maps = torch.cat([(slopes + whole.diag()).flatten(1), offsets], 1)
    return maps.view(TONES, PLACES, PLACES, 12).permute(1, 3, 0, 2).contiguous()


def apply_grid(photo: Tensor, grid: Tensor) -> Tensor:
    """Map the colour of every pixel by the grid, read trilinearly at its place and brightness.

    Args:
        photo: (1, 3, H, W) float32 in [0, 1]; H / W is that of what the grid was fitted to.
        grid: from fit_grid.

    Returns:
        (1, 3, H, W), not clipped.
    """
    height, width = photo.shape[2:]
    rows = photo[0].transpose(0, 1)
    y, x = ((torch.arange(side, device=photo.device) + 0.5) / side for side in (height, width))
    corrected = torch.empty_like(rows)
    strip = max(1, CHUNK // max(12 * width, grid[0].numel()))
    for first in range(0, height, strip):
        part = rows[first : first + strip]
        where = torch.stack([x.expand(len(part), width), part.mean(1)], 2)
        corrected[first : first + strip] = map_colours(
            part, where, read_rows(grid, y[first : first + strip])
        )
    return corrected.transpose(0, 1)[None]


def apply_grid_sparsely(colours: Tensor, x: Tensor, row: Tensor, planes: Tensor) -> Tensor:
    """Map the colours of some pixels only.

    Args:
        colours: (3, n) float32 in [0, 1].
        x: (n,) float32 in [0, 1], from left to right.
        row: (n,), the index of each one's row in `planes`.
        planes: (r, 12, TONES, PLACES), from read_rows. Of r rows, tones are resolved to r / 10^6.

    Returns:
        (3, n), not clipped.
    """
    # All planes lie one below the other in one, which is read faster than a solid.
    stacked = planes.transpose(0, 1).reshape(1, 12, -1, PLACES)
    y = (row * TONES + colours.mean(0) * (TONES - 1)) / (stacked.shape[2] - 1)
    return map_colours(colours[None], torch.stack([x, y], 1)[None], stacked)[0]


def map_colours(colours: Tensor, where: Tensor, planes: Tensor) -> Tensor:
    """Map colours by what is read in planes; works in place, so it has no gradient.

    Args:
        colours: (r, 3, n) float32 in [0, 1].
        where: (r, n, 2) float32 in [0, 1], places from left to right and from top to bottom.
        planes: (r, 12, t, p).

    Returns:
        (r, 3, n), not clipped.
    """
    maps = F.grid_sample(planes, 2 * where[:, None] - 1, padding_mode="border", align_corners=True)
    matrix, mapped = maps[:, :, 0].split([9, 3], 1)
    for channel in range(3):  # which is faster than a sum of products
        mapped.addcmul_(matrix[:, channel::3], colours[:, channel, None])
    return mapped


def read_rows(grid: Tensor, y: Tensor) -> Tensor:
    """Interpolate the grid at rows of a photo: to read a plane of each is fast, and solids not.

    Args:
        grid: from fit_grid.
        y: (r,) in [0, 1], from top to bottom.

    Returns:
        (r, 12, TONES, PLACES).
    """
    nodes = torch.arange(PLACES, device=grid.device)
    shares = (1 - (y[:, None] * (PLACES - 1) - nodes).abs()).clamp(min=0)
    return torch.einsum("hp,pctx->hctx", shares, grid)


def to_batch(picture: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Map (H, W, 3) float32 to (1, 3, H, W), on a device."""
    return torch.from_numpy(picture).to(device).permute(2, 0, 1)[None].contiguous()

"""Scores of the validation photos, which decide on the best weights."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from dataset import VALIDATION_EVS, to_floats
from distributed import gather, rank
from utils import capped_psnr, ssim

METRICS = ("psnr", "ssim")
SAMPLE_COUNT = 4  # photos in the picture of an epoch


def mean(values: Iterable[float]) -> float:
    """Mean that does not depend on the order of the values, and so not on who scored them."""
    values = list(values)
    return math.fsum(values) / len(values)


@torch.inference_mode()
def validate(
    network: nn.Module, loader: Iterable[Sequence[Tensor]], active_count: int, device: torch.device
) -> tuple[dict[str, dict[str, float]], list[Tensor]]:
    """Score every validation photo at every exposure, in 8 bit as it would be saved.

    Returns:
        PSNR (dB, MAX_PSNR at most) and SSIM by exposure, such as "-2", and over "all"; and
        (abnormal, corrected, normal) of the first photos, each (N, 3, h, w) uint8, for the
        picture of the epoch, which one process of several makes.
    """
    names = [f"{ev:+g}" if ev else "0" for ev in VALIDATION_EVS]
    results = []  # of each photo: (PSNR, SSIM) at each exposure
    samples = []
    for abnormal, normal in loader:
        corrected = network(to_floats(abnormal, device), active_count=active_count)[-1]
        corrected = (corrected.clamp(0, 1) * 255).round().byte().cpu()
        if rank() == 0 and len(samples) < SAMPLE_COUNT:
            samples.append(torch.stack([abnormal, corrected, normal]))
        pictures, references = (
            images.permute(0, 2, 3, 1).numpy() for images in (corrected, normal)
        )
        pairs = list(zip(pictures, references, strict=True))
        results.append([(capped_psnr(*pair), ssim(*pair)) for pair in pairs])
    results = [result for share in gather(results) for result in share]
    scores = {}
    for name, by_photo in zip(names, zip(*results, strict=True), strict=True):
        scores[name] = {
            metric: mean(values)
            for metric, values in zip(METRICS, zip(*by_photo, strict=True), strict=True)
        }
    scores["all"] = {metric: mean(scores[name][metric] for name in names) for metric in METRICS}
    return scores, samples


def spoilt_psnr(scores: dict[str, dict[str, float]]) -> float:
    """Mean PSNR in dB over the wrong exposures; at 0 EV, doing nothing is best."""
    return mean(score["psnr"] for name, score in scores.items() if name not in ("0", "all"))

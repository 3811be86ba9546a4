"""Where the error of some weights is, level by level: python -m benchmarks.levels --pairs CSV

For each group of pairs and each level of the pyramid: PSNR against the reference at that level,
and PSNR once the result has the reference's mean ("aligned"), which leaves out how bright the
whole photo is. "Ideal detail" is what level 1 would have if the coarsest level were the
reference's, and all detail the photo's own, amplified as the coarsest level is.

How well the brightness is guessed stands below, by scene: means and standard deviations of the
corrections and of the references, their correlation, and how far the corrections of one scene
scatter.

The network is the plain one, on the photo alone; scores take in what photos are padded with to
sides that the pyramid can halve.
"""

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bilateral_grid import to_batch
from checkpoint import CheckpointError
from correction import load_model
from pairs import read_pairs
from pyramid import gaussian_pyramid, pad_for_pyramid, pyramid_up
from scores import load_picture

SMALL = 0.02  # keeps the gain of black areas finite


def decibels(image: Tensor, reference: Tensor) -> float:
    """PSNR of (1, 3, H, W) photos in [0, 1]."""
    return -10 * math.log10((image.clamp(0, 1) - reference).square().mean().item() + 1e-10)


def enlarge(image: Tensor, times: int) -> Tensor:
    """Double both sides so many times."""
    for _ in range(times):
        image = pyramid_up(image)
    return image


def ideal_detail(photos: list[Tensor], references: list[Tensor]) -> Tensor:
    """Level 1 from the reference's coarsest level and the photo's amplified detail."""
    halvings = len(photos) - 1
    base, coarse = enlarge(references[0], halvings), enlarge(photos[0], halvings)
    return base + (base + SMALL) / (coarse + SMALL) * (photos[-1] - coarse)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, required=True, help="table of pairs, see evaluate.py")
    parser.add_argument(
        "--weights", type=Path, default=Path("weights/exposure_correction.pth"), help="weights"
    )
    parser.add_argument("--every", type=int, default=1, help="take every n-th pair only")
    options = parser.parse_args()
    pairs, faults = read_pairs(options.pairs)
    if faults:
        parser.error("\n".join(faults))
    try:
        model = load_model(options.weights)
    except (CheckpointError, OSError) as error:
        parser.error(str(error))
    levels = range(model.level_count, 0, -1)
    scores = defaultdict(lambda: defaultdict(list))
    means = defaultdict(lambda: defaultdict(list))
    for pair in tqdm(pairs[:: options.every], unit="pair", leave=False, disable=None):
        photo = load_picture(pair.input)
        photos, references = (
            gaussian_pyramid(
                pad_for_pyramid(to_batch(picture.astype(np.float32) / 255), model.level_count),
                model.level_count,
            )
            for picture in (photo, load_picture(pair.reference, photo.shape[:2]))
        )
        with torch.inference_mode():
            outputs = model(photos[-1])
        group = scores[pair.group]
        for level, output, reference in zip(levels, outputs, references, strict=True):
            output = output.clamp(0, 1)
            group[f"level {level}"].append(decibels(output, reference))
            shifted = output + reference.mean() - output.mean()
            group[f"level {level}, aligned"].append(decibels(shifted, reference))
        group["ideal detail"].append(decibels(ideal_detail(photos, references), references[-1]))
        brightness = (outputs[-1].clamp(0, 1).mean().item(), references[-1].mean().item())
        means[pair.group][pair.set, pair.scene].append(brightness)

    for name, group in scores.items():
        print(name)
        for measure, values in group.items():
            print(f"  {measure:<20}{np.mean(values):8.2f} dB")
        scenes = [np.array(versions) for versions in means[name].values()]
        corrected, reference = np.array([versions.mean(0) for versions in scenes]).T
        is_many = len(scenes) > 2
        correlation = np.corrcoef(corrected, reference)[0, 1] if is_many else math.nan
        scatter = np.concatenate([versions[:, 0] - versions[:, 0].mean() for versions in scenes])
        print(
            f"  brightness of {len(scenes)} scenes: corrected {corrected.mean():.3f} +- "
            f"{corrected.std():.3f}, reference {reference.mean():.3f} +- {reference.std():.3f}, "
            f"correlation {correlation:.2f}, "
            f"scatter within a scene {scatter.std():.3f}"
        )


if __name__ == "__main__":
    main()

"""Score methods of correction: how near the reference, and how much alike across exposures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from colour import to_8_bit
from pairs import Pair, grouped
from photo import PHOTO_FAULTS, load_photo, one_line
from utils import capped_psnr, psnr, ssim

LONG_SIDE = 512  # px; the size that every picture is scored at
METHODS = ("corrected", "untouched", "mid_grey_gamma")

Corrector = Callable[[Pair, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Score:
    """How near each method comes to the reference of one pair."""

    pair: Pair
    measures: dict[str, dict[str, float]]  # method -> measure -> value, as `compare` gives it


@dataclass(frozen=True)
class Agreement:
    """How much the versions of one scene look alike after each method."""

    groups: tuple[str, ...]
    psnr: dict[str, float]  # method -> mean over the pairs of versions, dB, MAX_PSNR at most


def score_pairs(
    pairs: list[Pair], correct: Corrector
) -> tuple[list[Score], list[Agreement], list[str]]:
    """Score every pair, scene after scene, reading and correcting each photo once.

    Returns:
        The scores, in the order of the scenes; the agreement of each scene that has several
        versions; and a line for each pair that could not be scored, with the reason.
    """
    load = lru_cache(maxsize=16)(load_picture)  # a reference serves all versions of its scene
    scores, agreements, failures = [], [], []
    progress = tqdm(total=len(pairs), unit="pair", leave=False, disable=None)
    for versions in grouped(pairs, lambda pair: (pair.set, pair.scene)).values():
        pictures: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
        for path, same_input in grouped(versions, lambda pair: pair.input).items():
            progress.update(len(same_input))
            try:
                photo = load_picture(path)
                corrected = correct(same_input[0], photo)
                made = dict(zip(METHODS, (corrected, photo, mid_grey_gamma(photo)), strict=True))
            except PHOTO_FAULTS as error:
                reason = one_line(error).removeprefix(f"{path}: ")
                failures.append(f"{path}: {reason}")
                continue
            for method, image in made.items():
                pictures[method].append(image)
            for pair in same_input:
                try:
                    reference = load(pair.reference, photo.shape[:2])
                    measures = {name: compare(image, reference) for name, image in made.items()}
                except PHOTO_FAULTS as error:
                    failures.append(f"{path}: {one_line(error)}")
                    continue
                scores.append(Score(pair, measures))
        if len(pictures["corrected"]) > 1:
            groups = tuple(dict.fromkeys(pair.group for pair in versions))
            alike = {method: mean_psnr_between(images) for method, images in pictures.items()}
            agreements.append(Agreement(groups, alike))
    progress.close()
    return scores, agreements, failures


def compare(picture: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return what tells two pictures apart.

    Args:
        picture: (H, W, 3) uint8.
        reference: of the same shape and type.

    Returns:
        psnr in dB; ssim; brightness_error, the picture's mean less the reference's, white = 1.
    """
    return {
        "psnr": psnr(picture, reference),
        "ssim": ssim(picture, reference),
        "brightness_error": float(picture.mean() - reference.mean()) / 255,
    }


def mean_psnr_between(pictures: list[np.ndarray]) -> float:
    """Return the mean PSNR in dB, MAX_PSNR at most, over all pairs of pictures of a scene."""
    height, width = pictures[0].shape[:2]
    same_size = [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pictures]
    return float(np.mean([capped_psnr(*two) for two in combinations(same_size, 2)]))


def load_picture(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a photo at the size of the protocol.

    Args:
        path: any file that `photo.load_photo` reads.
        size: (height, width) in px; None: its own, at most LONG_SIDE px long, never enlarged.

    Returns:
        (H, W, 3) uint8, sRGB.

    Raises:
        OSError, ValueError: it can't be read, or its aspect is not that of `size`.
    """
    pixels = load_photo(path).pixels
    height, width = pixels.shape[:2]
    shrink = min(1.0, LONG_SIDE / max(height, width))
    new_height, new_width = size or (max(1, round(height * shrink)), max(1, round(width * shrink)))
    if not 0.97 < height * new_width / (width * new_height) < 1.03:  # more than rounding
        raise ValueError(f"{path} has {width}x{height} px, no shape for {new_width}x{new_height}")
    if (height, width) != (new_height, new_width):
        pixels = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return to_8_bit(pixels)


def mid_grey_gamma(photo: np.ndarray) -> np.ndarray:
    """Correct by formula: the gamma that takes the photo's mean luma to mid-grey.

    x ** (log 0.5 / log m) on all three channels, m being the mean of the Rec. 601 luma, so
    that m itself becomes 0.5. What a network does better than this, it owes to the scene.

    Args:
        photo: (H, W, 3) uint8, sRGB.

    Returns:
        The same shape and type, rounded.
    """
    mean = photo.reshape(-1, 3).mean(axis=0) @ (0.299, 0.587, 0.114) / 255
    gamma = np.log(0.5) / np.log(np.clip(mean, 1 / 255, 254 / 255))  # black and white have none
    curve = np.rint(255 * np.linspace(0, 1, 256) ** gamma).astype(np.uint8)
    return curve[photo]

"""Correct the exposure of one photo, or of many files.

model = load_model("weights/exposure_correction.pth")
corrected = correct(photo, model)  # (H, W, 3) arrays, sRGB
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

import adjust
from checkpoint import load_weights
from compare import save_comparison, show_window
from config import PredictConfig
from edges import mend_edges
from folder import comparison_path
from inference import choose_finest_level, run_network
from interruption import end_at_next_signal
from model import ExposureCorrectionNet
from photo import PHOTO_FAULTS, as_photo_error, load_photo, one_line, save_photo
from photo_formats import PhotoError
from upsample import WHITE, to_pixels, upsample_correction

# A thread corrects a whole photo; more of them would need much memory and gain little.
MAX_THREADS = 4
COMPARISON_SIZE = (700, 700)  # px, of each of its photos at most


# ------------------------------------------------------------------------------- one photo


def choose_device() -> torch.device:
    """The GPU where there is one; under torchrun, each process has its own."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


def load_model(path: str | Path, device: str | torch.device = "cpu") -> ExposureCorrectionNet:
    """Load weights that train.py saved, ready for `correct`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is something else; code inside it is not run.
    """
    return load_weights(path).to(device).eval()


def correct(
    photo: np.ndarray,
    model: ExposureCorrectionNet,
    image_size: tuple[int, int] = (512, 512),
    *,
    alpha: np.ndarray | None = None,
    use_orig_size: bool = False,
    finest_level: int | None = None,
    self_ensemble: bool = True,
    level_scales: Sequence[float] | None = None,
    restraint: float = 0.11,
    strength: float = 1.0,
    fuse: bool = False,
    stretch: bool = False,
) -> np.ndarray:
    """Correct the exposure of one photo.

    The network sees the photo fitted into `image_size`; what it changes is then carried to full
    size by local gains and offsets, which keep every pixel's detail, and by a bilateral grid
    where a pixel is unlike its surroundings; not so where finer levels are the network's, whose
    soft edges no grid has.

    Args:
        photo: (H, W, 3) uint8 or uint16, or float32 in [0, 1]; sRGB.
        model: from `load_model`.
        image_size: (height, width) in px of that box, turned to the photo's orientation. A
            photo is never enlarged.
        alpha: (H, W), any of these types, 0 being transparent: what it hides has no say in how
            the rest is exposed.
        use_orig_size: the network sees the photo at its own size, which takes much longer.
        finest_level: of the pyramid, that the network corrects; a bilateral grid carries the
            correction on to finer ones. 1: all of them, as in the paper; None: the coarsest
            alone, or down to the first with sides of 8 px or more, which leaves no wide halos
            along edges and takes least time.
        self_ensemble: find the exposure as the mean over four mirror images of the photo; where
            it is wrong by much, over two darkened and two brightened ones in their place (not
            with level_scales).
        level_scales: one factor per level of its pyramid, coarsest first, of which the network
            then corrects all; None: none.
        restraint: a correction that changes the median luma by less (white = 1) is faded out; 0:
            none is, nor where level_scales are given.
        strength: 0: the photo as it is; 1: the correction; up to 2: overdone.
        fuse: exposure fusion of photo and correction.
        stretch: contrast stretch of the correction.

    Returns:
        The corrected photo, of the shape and type of `photo`.

    Raises:
        ValueError: an argument has another shape, type or range, or the network fails on it.
    """
    check_pixels("photo", photo, (*photo.shape[:2], 3))
    if alpha is not None:
        check_pixels("alpha", alpha, photo.shape[:2])
    if min(image_size) < 1:
        raise ValueError(f"image_size is {image_size}; allowed: sides of 1 px or more")
    for name, value, most in (("restraint", restraint, 1), ("strength", strength, 2)):
        if not 0 <= value <= most:
            raise ValueError(f"{name} is {value}; allowed: 0 to {most}")
    if alpha is not None and alpha.min() == WHITE[alpha.dtype]:
        alpha = None  # it hides nothing
    abnormal = photo if use_orig_size else fit_into(photo, image_size)
    abnormal = abnormal.astype(np.float32) / WHITE[photo.dtype]
    if alpha is not None:
        cover = alpha if use_orig_size else fit_into(alpha, image_size)
        abnormal = fill_hidden(abnormal, cover.astype(np.float32) / WHITE[alpha.dtype])
    finest_level = choose_finest_level(abnormal.shape[:2], model, finest_level, level_scales)
    corrected = run_network(abnormal, model, finest_level, level_scales, self_ensemble, restraint)
    if strength != 1:
        corrected = adjust.blend(abnormal, corrected, strength)
    if fuse:
        corrected = adjust.fuse(abnormal, corrected)
    if stretch:
        corrected = adjust.stretch_contrast(corrected)
    if alpha is None and photo.shape == corrected.shape:
        return to_pixels(corrected * WHITE[photo.dtype], photo.dtype)
    # What alpha hides differs from what the network saw, even where the photo is of its size.
    carried = upsample_correction(photo, abnormal, corrected)
    if finest_level == model.level_count > 1:
        mend_edges(carried, photo, abnormal, corrected)
    return carried


def check_pixels(name: str, pixels: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise ValueError where pixels have not that shape, or not the types or range of photos."""
    if pixels.shape != shape or pixels.dtype not in WHITE or not pixels.size:
        sides = "(H, W, 3)" if name == "photo" else f"the photo's {shape}"
        types = ", ".join(str(dtype) for dtype in WHITE)
        raise ValueError(f"{name} is {pixels.shape} {pixels.dtype}; allowed: {sides} {types}")
    if pixels.dtype == np.float32 and not (pixels.min() >= 0 and pixels.max() <= 1):  # nor NaN
        raise ValueError(f"{name} is {pixels.min():g} to {pixels.max():g}; float32 is in 0 to 1")


def fill_hidden(image: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Put the mean colour of what is visible in place of what is not.

    Args:
        image: (h, w, 3) float32 in [0, 1].
        cover: (h, w) float32 in [0, 1], 0 where the image is transparent.

    Returns:
        (h, w, 3) float32 in [0, 1]; an image that is all transparent comes back as it is.
    """
    if not cover.any():
        return image
    cover = cover[..., None]
    mean = (image * cover).sum((0, 1), dtype=np.float64) / cover.sum(dtype=np.float64)
    mean = mean.astype(np.float32)
    return mean + cover * (image - mean)


def fit_into(photo: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Scale (H, W) or (H, W, 3) down to fit a box (height, width), turned to its orientation."""
    height, width = photo.shape[:2]
    short_box, long_box = sorted(image_size)
    box_height, box_width = (short_box, long_box) if width >= height else (long_box, short_box)
    scale = min(1.0, box_height / height, box_width / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale == 1:
        return photo
    while scale <= 1 / 8 and photo.shape[0] % 2 == photo.shape[1] % 2 == 0:
        # Means of 2 x 2 px have a kernel of their own, several times faster than other scales.
        half = photo.shape[1] // 2, photo.shape[0] // 2
        photo, scale = cv2.resize(photo, half, interpolation=cv2.INTER_AREA), 2 * scale
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)


# ----------------------------------------------------------------------------- many photos


def correct_file(
    path: Path, output: Path, model: ExposureCorrectionNet, config: PredictConfig
) -> None:
    """Correct one file into another.

    Raises:
        PhotoError: the file can't be read, or the result not written.
    """
    photo = load_photo(path, max_pixels=round(config.max_megapixels * 1e6))
    corrected = correct(
        photo.pixels,
        model,
        image_size=config.image_size,
        alpha=None if photo.is_mask else photo.alpha,
        use_orig_size=config.use_orig_size,
        finest_level=config.finest_level,
        self_ensemble=config.self_ensemble,
        level_scales=config.level_scales,
        restraint=config.restraint,
        strength=config.strength,
        fuse=config.fuse,
        stretch=config.stretch,
    )
    if config.compare:  # before the result, which tells skip_existing that all is done
        before, after = (
            fit_into(pixels, COMPARISON_SIZE) / np.float32(WHITE[pixels.dtype])
            for pixels in (photo.pixels, corrected)
        )
        comparison = comparison_path(output)
        with as_photo_error(comparison):
            save_comparison(comparison, before, after)
    save_photo(photo, corrected, output, config.output_format, config.quality)


def count_cores() -> int:
    """Cores that this process may use: its share, where torchrun has started several here."""
    process_count = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if process_count == 1:
        return torch.get_num_threads()
    # Each was told to have one thread, which is right for training alone.
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, (len(affinity(0)) if affinity else os.cpu_count() or 1) // process_count)


def correct_files(
    outputs: dict[Path, Path], model: ExposureCorrectionNet, config: PredictConfig
) -> list[str]:
    """Correct many files, several at a time; returns a line for each failure."""
    # Several photos at a time, each on its own cores: while a file is read, others go on.
    core_count = count_cores()
    # A network pass at full size wants all of them, and all the memory.
    most = 1 if config.use_orig_size else MAX_THREADS
    thread_count = max(1, min(len(outputs), core_count, most))
    cores_per_thread = core_count // thread_count
    cv2.setNumThreads(cores_per_thread)

    def start_thread() -> None:
        torch.set_num_threads(cores_per_thread)
        torch.set_flush_denormal(True)  # denormal numbers are many times slower on CPUs

    failures = []
    is_shown, max_pixels = config.show_result, round(config.max_megapixels * 1e6)
    pool = ThreadPoolExecutor(thread_count, initializer=start_thread)
    try:
        jobs = {
            pool.submit(correct_file, path, output, model, config): (path, output)
            for path, output in outputs.items()
        }
        is_hidden = len(jobs) < 2 or None  # None: where the output is no terminal
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="photo", disable=is_hidden):
            path, output = jobs.pop(job)  # a failed one holds on to its photo
            try:
                job.result()
                if is_shown:
                    is_shown = show_window(path, output, max_pixels)
            except PhotoError as error:
                failures.append(str(error))
            except PHOTO_FAULTS as error:
                failures.append(f"{path}: {one_line(error)}")
    except KeyboardInterrupt:
        # Threads can't be stopped; a second signal ends the process, and leaves temporary files.
        end_at_next_signal()
        lines = [*failures, "stopping after the photos under way; Ctrl-C again to stop at once"]
        print(*lines, sep="\n", file=sys.stderr, flush=True)
        raise
    finally:  # also on Ctrl-C: photos under way are finished, none is begun
        pool.shutdown(cancel_futures=True)
    return failures

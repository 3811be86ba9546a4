"""Files that are whole or absent, a lock, the process's memory, and the scores of a picture."""

import contextlib
import ctypes
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

MAX_PSNR = 60.0  # dB, what a picture counts at most in a mean: equal ones have an infinite PSNR
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which becomes `path` once the block has ended well.

    Whoever reads `path`, even after a power cut, finds the old file or the new one, whole.
    Missing parent folders are made. If the block raises, `path` stays as it was and the
    temporary file is removed.

    Args:
        path: the file to write. The temporary path has its suffix, for writers that go by it.

    Raises:
        OSError: the folder can't be made or written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        with naming_file(path, temporary):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming_file(path: str | Path, temporary: Path | None = None) -> Iterator[None]:
    """Give an OSError the name of the file, for none (of a full disk) or that of a temporary."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary), temporary):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def describe_os_error(error: OSError) -> str:
    """One line for the user: the file, if the error names one, and what is wrong."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def keep_copy(path: str | Path, copy: str | Path) -> None:
    """Keep a file's present content under another name beside it, if there is such a file."""
    if Path(path).exists():
        with atomic_write(copy) as temporary:
            try:
                os.link(path, temporary)  # no bytes are written; `path` is later replaced
            except OSError:  # some disks know no links
                shutil.copyfile(path, temporary)


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a text file, on the disk when this returns."""
    with naming_file(path), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def holding(folder: str | Path) -> Iterator[bool]:
    """Hold a folder for a block, or until the process ends; gives False where another one does.

    Where the system (Windows) or the disk (of some networks) knows no locks, or the lock's file
    is another user's, nothing is held.
    """
    with contextlib.ExitStack() as stack:
        is_ours = True
        try:
            file = stack.enter_context(open(Path(folder) / ".lock", "a"))
            if fcntl:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not forked along
        except BlockingIOError:
            is_ours = False
        except OSError:
            pass
        yield is_ours


def remove_temporaries(folder: str | Path) -> None:
    """Remove what `atomic_write` left in a folder when its program was killed."""
    for temporary in Path(folder).glob(".????????.tmp*"):
        temporary.unlink(missing_ok=True)


def keep_freed_memory() -> None:
    """Have the process keep the memory that it frees for what it needs next (Linux, glibc).

    Large arrays would go back to the system each time, which clears every page of the next ones:
    up to a third of the time of a training step, a sixth of that of a photo of 12 megapixels.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems have no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_ARENA_MAX, 1)  # those of threads give large arrays back all the same


def give_back_memory() -> None:
    """Give back what `keep_freed_memory` has kept so far."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def psnr(image: np.ndarray, reference: np.ndarray, data_range: float = 255) -> float:
    """Return the peak signal-to-noise ratio over all values, in dB; infinite when they are equal.

    Args:
        image: (H, W, 3), or any shape; uint8 in [0, 255], or floats in [0, data_range].
        reference: of the same shape and type.
        data_range: the distance of white from black.

    Raises:
        ValueError: shape or type differ.
    """
    check_alike(image, reference)
    mean_square = cv2.norm(image, reference, cv2.NORM_L2SQR) / image.size
    return 10 * math.log10(data_range**2 / mean_square) if mean_square else math.inf


def capped_psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Return what `psnr` counts in a mean: MAX_PSNR at most."""
    return min(psnr(image, reference), MAX_PSNR)


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the structural similarity, the mean over channels and windows; 1 when equal.

    Wang et al. 2004, as scikit-image's `structural_similarity(channel_axis=2, data_range=255)`:
    uniform 7 x 7 windows that lie wholly inside the picture, sample covariances, K1 = 0.01,
    K2 = 0.03, float64.

    Args:
        image: (H, W, 3) uint8, both sides 7 px or more.
        reference: of the same shape and type.

    Raises:
        ValueError: shape or type differ, or a side is shorter than the window.
    """
    check_alike(image, reference)
    window = 7
    if min(image.shape[:2]) < window:
        size = "{}x{}".format(*image.shape[:2])
        raise ValueError(f"SSIM needs sides of {window} px or more, the picture has {size}")
    x, y = image.astype(np.float64), reference.astype(np.float64)

    def windows(values: np.ndarray) -> np.ndarray:
        """Return the mean of each window that lies wholly inside."""
        inside = slice(window // 2, -(window // 2))
        return cv2.blur(values, (window, window))[inside, inside]

    mean_x, mean_y = windows(x), windows(y)
    to_sample = window**2 / (window**2 - 1)  # from the mean over n to that over n - 1
    variances = to_sample * (windows(x * x + y * y) - mean_x**2 - mean_y**2)
    covariance = to_sample * (windows(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (variances + c2)))


def check_alike(image: np.ndarray, reference: np.ndarray) -> None:
    """Raise ValueError where shape or type differ, instead of letting numpy broadcast."""
    kinds = [f"{array.shape} {array.dtype}" for array in (image, reference)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"the pictures differ in shape or type: {kinds[0]} and {kinds[1]}")

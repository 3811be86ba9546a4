"""Correct what is unlike its surroundings by the bilateral grid: fine things, sides of edges.

The gains and offsets of guided upsampling hold for what looks like the window of the small photo
that they were fitted in. A window across an edge suits neither side, and one around letters not
the paper between them: rims and smudges are left. Those pixels are mapped by a bilateral grid
instead, by their own place and brightness. For all pixels it would take several times as long,
and lose what the correction does to one small place. It is for corrections that such a grid made
at the small size, too: what finer levels of the network make of edges, no grid tells.

torch reads grids fast, but one picture in one thread; so each thread has strips of its own, and
torch no more threads for the rest, which would only be in each other's way.
"""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from bilateral_grid import apply_grid, apply_grid_sparsely, fit_grid, read_rows, to_batch
from upsample import RADIUS, WHITE, to_pixels

# Differences of luma, white = 1, up to which gains and offsets hold, and from which the grid does.
LIKE, UNLIKE = 0.05, 0.08
# px of the photo that a thread looks at, and of those that it corrects, at once: Python's threads
# wait for each other between calls, but arrays take memory.
STRIP, AT_ONCE = 2**19, 2**16


def mend_edges(
    corrected: np.ndarray,
    photo: np.ndarray,
    small_abnormal: np.ndarray,
    small_corrected: np.ndarray,
) -> None:
    """Correct anew, in place, the pixels that are unlike the mean around them in the small photo.

    What the grid, fitted to the small photos, leaves unexplained there is added, as the mean over
    the same window. Beyond the photos this needs a value of luma for every pixel, and some 200
    bytes for every one that a thread corrects at once.

    Args:
        corrected: (H, W, 3), C-contiguous, of the type of `photo`, from upsample_correction.
        photo: (H, W, 3) uint8, uint16 or float32 in [0, 1]; sRGB.
        small_abnormal: (h, w, 3) float32 in [0, 1]; the whole photo, scaled down.
        small_corrected: (h, w, 3) float32 in [0, 1]; what the network made of it.
    """
    assert corrected.flags.c_contiguous  # or its strips would be copies
    white = np.float32(WHITE[photo.dtype])
    height, width = photo.shape[:2]
    small_height, small_width = small_abnormal.shape[:2]
    window = (2 * RADIUS + 1, 2 * RADIUS + 1)

    luma_around = cv2.blur(cv2.cvtColor(small_abnormal, cv2.COLOR_RGB2GRAY), window)
    luma_around = to_pixels(luma_around * white, photo.dtype)
    luma_around = cv2.resize(luma_around, (width, height), interpolation=cv2.INTER_LINEAR)
    abnormal, target = to_batch(small_abnormal), to_batch(small_corrected)
    grid = fit_grid(abnormal, target)
    rest = target - apply_grid(abnormal, grid).clamp(0, 1)
    rest = cv2.blur(rest[0].permute(1, 2, 0).numpy(), window).reshape(-1, 3)
    # Of every row and column of the photo, where the grid and the rest are read.
    y, x = ((torch.arange(side) + 0.5) / side for side in (height, width))
    rest_rows = np.arange(height) * small_height // height * small_width
    rest_columns = np.arange(width) * small_width // width
    strip_height = max(1, STRIP // max(width, grid[0].numel()))

    def mend_strip(first: int) -> None:
        rows = slice(first, first + strip_height)
        luma = cv2.cvtColor(photo[rows], cv2.COLOR_RGB2GRAY)
        distance = cv2.absdiff(luma, luma_around[rows]).reshape(-1)
        where = np.flatnonzero(distance > np.asarray(LIKE * white, photo.dtype))
        planes = read_rows(grid, y[rows])
        for start in range(0, len(where), AT_ONCE):
            part = where[start : start + AT_ONCE]
            mend_pixels(rows, planes, part, distance.take(part))

    def mend_pixels(
        rows: slice, planes: torch.Tensor, where: np.ndarray, distance: np.ndarray
    ) -> None:
        row, column = np.divmod(where.astype(np.int32), np.int32(width))
        colours = photo[rows].reshape(-1, 3).take(where, 0).T.astype(np.float32, order="C") / white
        mapped = apply_grid_sparsely(
            torch.from_numpy(colours), x[column], torch.from_numpy(row), planes
        )
        mapped = mapped.clamp(0, 1).T.numpy()
        mapped = mapped + rest.take(rest_rows[rows][row] + rest_columns[column], 0)

        share = (distance / white - np.float32(LIKE)) / np.float32(UNLIKE - LIKE)
        results = corrected[rows].reshape(-1, 3)
        values = results.take(where, 0).astype(np.float32)
        values += (mapped * white - values) * share.clip(max=1)[:, None]
        results[where] = to_pixels(values, photo.dtype)

    thread_count = torch.get_num_threads()
    with ThreadPoolExecutor(
        cv2.getNumThreads(), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        try:
            list(pool.map(mend_strip, range(0, height, strip_height)))
        finally:  # new threads, whoever starts them, begin with what any thread has set last
            torch.set_num_threads(thread_count)

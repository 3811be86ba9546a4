"""A photo before and after: as a picture with histograms, and in a window."""

import sys
from pathlib import Path

import numpy as np

from photo import load_rgb
from utils import atomic_write


def save_comparison(path: str | Path, before: np.ndarray, after: np.ndarray) -> None:
    """Write before and after side by side, each above its histogram.

    Args:
        path: the file to write, such as a .jpg.
        before, after: (h, w, 3) float32 in [0, 1]; small ones will do.
    """
    from matplotlib.figure import Figure  # takes long to import

    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(4, 1))
    for column, (title, image) in enumerate((("before", before), ("after", after))):
        axes[0, column].imshow(image)
        axes[0, column].set_title(title)
        axes[0, column].axis("off")
        for channel, color in enumerate(("tab:red", "tab:green", "tab:blue")):
            counts, edges = np.histogram(image[..., channel], bins=128, range=(0, 1))
            axes[1, column].stairs(counts / counts.sum(), edges, color=color)
        axes[1, column].set(xlim=(0, 1), yticks=(), xlabel=f"mean {image.mean():.2f}")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)


def show_window(path: Path, output: Path, max_pixels: int) -> bool:
    """Show a photo before and after until its window is closed; False where none opens.

    Args:
        path, output: the two files.
        max_pixels: as for `photo.load_photo`.

    Raises:
        PhotoError: a file can't be read.
    """
    import matplotlib.pyplot as plt

    pictures = [load_rgb(file, min_size=700, max_pixels=max_pixels) for file in (path, output)]
    try:
        figure, axes = plt.subplots(1, 2, figsize=(14, 6), layout="constrained")
    except ImportError:  # where MPLBACKEND insists on a toolkit
        has_window = False
    else:
        for axis, picture in zip(axes, pictures, strict=True):
            axis.imshow(picture)
            axis.axis("off")
        axes[0].set_title(f"before: {path}", parse_math=False)
        axes[1].set_title(f"after: {output}", parse_math=False)
        has_window = plt.get_backend().lower() != "agg"  # what matplotlib falls back on
        if has_window:
            plt.show()
        plt.close(figure)
    if not has_window:
        fix = "no display, or no toolkit for windows (install PyQt6)"
        print(f"show_result: {fix}; going on without", file=sys.stderr)
    return has_window

"""A picture of a photo before and after, with their histograms."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from utils import atomic_write


def save_comparison(path: str | Path, before: np.ndarray, after: np.ndarray) -> None:
    """Write before and after side by side, each above its histogram.

    Args:
        path: the file to write, such as a .jpg.
        before, after: (h, w, 3) float32 in [0, 1]; small ones will do.
    """
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(4, 1))
    for column, (title, image) in enumerate((("before", before), ("after", after))):
        axes[0, column].imshow(image, vmin=0, vmax=1)
        axes[0, column].set_title(title)
        axes[0, column].axis("off")
        for channel, color in enumerate(("tab:red", "tab:green", "tab:blue")):
            counts, edges = np.histogram(image[..., channel], bins=128, range=(0, 1))
            axes[1, column].stairs(counts / counts.sum(), edges, color=color)
        axes[1, column].set(xlim=(0, 1), yticks=(), xlabel=f"mean {image.mean():.2f}")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)

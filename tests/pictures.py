"""Pictures written and read by plain OpenCV, and what lies in a folder."""

from pathlib import Path

import cv2
import numpy as np

from folder import RESULTS_MARK


def save(path: Path, photo: np.ndarray) -> Path:
    """Write RGB, RGBA or grey; of 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    orders = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    cv2.imwrite(str(path), photo[..., orders[photo.shape[2]]] if photo.ndim == 3 else photo)
    return path


def read(path: Path) -> np.ndarray:
    photo = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    orders = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    return photo[..., orders[photo.shape[2]]] if photo.ndim == 3 else photo


def files_in(folder: Path) -> list[str]:
    """The files below, but for the mark of an output folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != RESULTS_MARK]
    return sorted(path.relative_to(folder).as_posix() for path in files)

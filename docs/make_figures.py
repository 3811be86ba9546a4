"""Make README's and model card's pictures from the weights: python -m docs.make_figures"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure

from bilateral_grid import to_batch
from correction import correct, fit_into, load_model
from photo import load_photo
from pyramid import gaussian_pyramid, laplacian_pyramid, pad_for_pyramid

ROOT = Path(__file__).parent.parent
SHOWN = ("room_minus3ev", "pripyat_under", "nuthatch_over", "charminar_over", "rocket_dusk")
FAILURES = ("cove_backlit", "room_plus2_5ev", "duck_dark", "golden_temple_haze", "dinner_dim")


def save_before_after(
    path: Path, names: Sequence[str], model: torch.nn.Module, height: int = 300
) -> None:
    """Write a strip of photos of test/, as they are above and corrected below."""
    columns = []
    for name in names:
        photo = load_photo(ROOT / "test" / f"{name}.jpg").pixels
        width = round(photo.shape[1] * height / photo.shape[0])
        pair = [
            cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            for image in (photo, correct(photo, model))
        ]
        columns.append(np.pad(np.vstack(pair), ((0, 0), (0, 6), (0, 0)), constant_values=255))
    picture = np.hstack(columns)[:, :-6]
    cv2.imwrite(str(path), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


@torch.inference_mode()
def save_levels(path: Path, model: torch.nn.Module) -> None:
    """Write a table of pictures: what every level sees, and what it makes of it."""
    photo = fit_into(load_photo(ROOT / "test" / "room_minus3ev.jpg").pixels, (512, 512))
    abnormal = to_batch(photo.astype(np.float32) / 255)
    padded = pad_for_pyramid(abnormal, model.level_count)
    rows = list(
        zip(
            laplacian_pyramid(padded, model.level_count),
            gaussian_pyramid(padded, model.level_count),
            model(abnormal),
            strict=True,
        )
    )
    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(3, len(rows))
    for column, (band, blurred, corrected) in enumerate(rows):
        level = len(rows) - column
        is_signed = column > 0
        size = [side * 2 ** (1 - level) for side in abnormal.shape[-2:]]
        images = {
            f"level {level}: Laplacian": band * 4 + 0.5 if is_signed else band,
            f"Gaussian, {size[0]:.0f} x {size[1]:.0f}": blurred,
            f"corrected y_{level}": corrected,
        }
        for row, (title, image) in enumerate(images.items()):
            image = image[0, :, : round(size[0]), : round(size[1])].clamp(0, 1)
            # What is enlarged is to show its pixels, without the lines that "auto" puts between.
            kind = "nearest" if level > 2 else "auto"
            axes[row, column].imshow(image.permute(1, 2, 0).numpy(), interpolation=kind)
            axes[row, column].set_title(title, fontsize=10)
            axes[row, column].axis("off")
    figure.savefig(path, dpi=80)


def main() -> None:
    model = load_model(ROOT / "weights" / "exposure_correction.pth")
    save_before_after(ROOT / "docs" / "before_after.jpg", SHOWN, model)
    save_before_after(ROOT / "docs" / "failures.jpg", FAILURES, model)
    save_levels(ROOT / "docs" / "levels.png", model)


if __name__ == "__main__":
    main()

"""What a training run shows: its log, its curves, and before/after pictures."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from checkpoint import CheckpointError
from config import ConfigError
from utils import append_line, atomic_write

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """One JSON object per epoch, or step, in `log.jsonl`; the epochs' curves in `curve.png`.

    Args:
        run_dir: where both are.
        epoch: the epoch to go on with.
        photo_count: photos of it that are done; what the file holds of later ones is dropped.
        writer: of TensorBoard, which gets the same numbers; None: it gets none.

    Raises:
        CheckpointError: the file holds something else.
    """

    def __init__(
        self,
        run_dir: str | Path,
        epoch: int,
        photo_count: int = 0,
        writer: SummaryWriter | None = None,
    ):
        self.path = Path(run_dir) / "log.jsonl"
        self.writer = writer
        try:
            text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
            lines = text[: text.rfind("\n") + 1].splitlines()  # a kill may leave half a line
            self.records = [
                record
                for record in map(json.loads, lines)
                if (record["epoch"], record.get("photos", math.inf)) <= (epoch, photo_count)
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.path} is damaged; move it away to go on") from error
        self.is_on_disk = False  # the file has what came before, and nothing else

    def add(self, record: dict[str, Any]) -> None:
        """Append an epoch (epoch, step, active_levels, losses, valid: scores by exposure ...).

        Or a step: epoch, step (of all epochs), photos (of the epoch that are done), losses ....
        """
        self.records.append(record)
        if self.is_on_disk:
            append_line(self.path, json.dumps(record))
        else:
            with atomic_write(self.path) as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in self.records))
            self.is_on_disk = True
        self.records = [record for record in self.records if "valid" in record]  # for the curve
        if "valid" in record:
            save_curve(self.path.with_name("curve.png"), self.records)
        if self.writer:
            write_scalars(self.writer, record)


def make_writer(run_dir: str | Path, step_count: int) -> SummaryWriter:
    """Make TensorBoard's writer, which hides what it has of steps after the first `step_count`.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    folder = str(Path(run_dir) / "tensorboard")
    return import_summary_writer()(folder, purge_step=step_count + 1)


def import_summary_writer() -> type[SummaryWriter]:
    """Import TensorBoard's writer; raises ConfigError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        fix = "pip install tensorboard, or set it to false"
        message = f"tensorboard is true, but TensorBoard is not installed; {fix}"
        raise ConfigError([message]) from None
    return SummaryWriter


def write_scalars(writer: SummaryWriter, record: dict[str, Any]) -> None:
    """Show a record of the log to TensorBoard."""
    span = "epoch" if "valid" in record else "step"
    for name, loss in record["losses"].items():
        writer.add_scalar(f"loss of the {span}/{name}", loss, record["step"])
    for name, score in record.get("valid", {}).items():
        for metric, value in score.items():
            writer.add_scalar(f"{metric}/{name}", value, record["step"])
    writer.flush()


def describe_epoch(record: dict[str, Any], epochs: int) -> str:
    """One line for the terminal."""
    losses = "  ".join(f"{name} {loss:.4f}" for name, loss in record["losses"].items())
    by_ev = "  ".join(
        f"{name}: {score['psnr']:.2f} dB {score['ssim']:.3f}"
        for name, score in record["valid"].items()
    )
    return (
        f"epoch {record['epoch']}/{epochs}  levels {record['active_levels']}  "
        f"{record['seconds']:.0f} s  {losses}  |  PSNR, SSIM by EV  {by_ev}"
    )


def save_curve(path: Path, records: list[dict[str, Any]]) -> None:
    """Draw losses (log scale) and validation PSNR by exposure over the epochs as a PNG."""
    epochs = [record["epoch"] for record in records]
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    loss_axes, psnr_axes = figure.subplots(1, 2)
    for name in dict.fromkeys(name for record in records for name in record["losses"]):
        values = [record["losses"].get(name, np.nan) for record in records]
        loss_axes.semilogy(epochs, values, ".-", label=name)  # a dot where one epoch is alone
    loss_axes.set(xlabel="epoch", ylabel="loss", title="training losses")
    for name in records[-1]["valid"]:
        values = [record["valid"][name]["psnr"] for record in records]
        is_mean = name == "all"
        label = "all" if is_mean else f"{name} EV"
        color, width = ("black", 2) if is_mean else (None, 1)
        psnr_axes.plot(epochs, values, ".-", label=label, color=color, linewidth=width)
    psnr_axes.set(xlabel="epoch", ylabel="PSNR (dB)", title="validation, by exposure")
    for axes in (loss_axes, psnr_axes):
        for previous, record in pairwise(records):
            if record["active_levels"] != previous["active_levels"]:  # a level joined
                axes.axvline(record["epoch"] - 0.5, color="grey", linestyle=":")
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=80)


def save_comparison(path: Path, samples: list[Tensor], width: int = 200) -> None:
    """Write a grid PNG: for each photo rows of abnormal and corrected.

    In the last column is what is wanted of the first one.

    Args:
        path: the file.
        samples: per photo (3, N, 3, h, w) uint8: abnormal, corrected, normal at N exposures.
        width: of one photo in px.
    """
    rows = []
    for abnormal, corrected, normal in samples:
        for images in (abnormal, corrected):
            rows.append(torch.cat([*images, normal[0]], dim=2))
    grid = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    columns = len(samples[0][0]) + 1
    picture = Image.fromarray(grid)
    picture.thumbnail((columns * width, grid.shape[0]))
    with atomic_write(path) as temporary:
        picture.save(temporary)

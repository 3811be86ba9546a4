"""Means and medians of the scores, and the table and files that show them."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pairs import grouped
from scores import METHODS, Agreement, Score
from utils import MAX_PSNR, atomic_write

PARTS = {  # of the pairs, by the exposure of the photo in stops, None being unknown
    "under": lambda ev: ev is not None and ev < 0,
    "over": lambda ev: ev is not None and ev > 0,
    "all": lambda ev: True,
}
Means = dict[str, float | None]  # such as "under_psnr" -> dB; None: nothing to average
Summary = dict[str, dict[str, Means]]  # section -> method -> means
MEASURES = {  # measure -> its heading and format in the table
    "pairs": ("n", "4.0f"),
    "psnr": ("PSNR", "7.2f"),
    "ssim": ("SSIM", "7.3f"),
    "brightness_error": ("bright", "8.3f"),
    "absolute_brightness_error": ("|bright|", "10.3f"),
}
COLUMNS = {f"{part}_{name}": head for part in PARTS for name, head in MEASURES.items()}
COLUMNS["all_median_psnr"] = ("median", "8.2f")
COLUMNS["all_agreement"] = ("alike", "7.2f")


def summarize(scores: list[Score], agreements: list[Agreement]) -> Summary:
    """Average the scores, no PSNR counting more than MAX_PSNR.

    Returns:
        section -> method -> mean (or median) of each of COLUMNS. The sections are the groups;
        where they are several, also "every pair", and "mean of the groups", where each group's
        mean (or median) counts the same.
    """
    summary = {
        group: mean_methods(members, [a for a in agreements if group in a.groups])
        for group, members in grouped(scores, lambda score: score.pair.group).items()
    }
    if len(summary) > 1:
        groups = list(summary.values())
        summary["every pair"] = mean_methods(scores, agreements)
        summary["mean of the groups"] = {
            method: {
                column: mean_of(group[method][column] for group in groups)
                for column in COLUMNS
                if not column.endswith("_pairs")
            }
            for method in METHODS
        }
    return summary


def mean_methods(scores: list[Score], agreements: list[Agreement]) -> dict[str, Means]:
    """Return method -> mean (or median) of each of COLUMNS, for the scores of one section."""
    section: dict[str, Means] = {method: {} for method in METHODS}
    for method, means in section.items():
        for part, belongs in PARTS.items():
            found = [score.measures[method] for score in scores if belongs(score.pair.ev)]
            errors = [measures["brightness_error"] for measures in found]
            means[f"{part}_pairs"] = len(found)
            means[f"{part}_psnr"] = mean_of(capped_psnrs(found))
            means[f"{part}_ssim"] = mean_of(measures["ssim"] for measures in found)
            means[f"{part}_brightness_error"] = mean_of(errors)
            means[f"{part}_absolute_brightness_error"] = mean_of(map(abs, errors))
        every = [score.measures[method] for score in scores]
        means["all_median_psnr"] = float(np.median(capped_psnrs(every)))
        means["all_agreement"] = mean_of(scene.psnr[method] for scene in agreements)
    return section


def capped_psnrs(found: list[dict[str, float]]) -> list[float]:
    return [min(measures["psnr"], MAX_PSNR) for measures in found]


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that there are, None where there are none."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def format_table(summary: Summary) -> str:
    """Return the summary as text: a block per section, a line per method, and the headline."""
    label = max(map(len, METHODS)) + 2
    widths = {column: int(style.split(".")[0]) for column, (_, style) in COLUMNS.items()}
    parts = " " * label
    for part in PARTS:
        width = sum(widths[column] for column in COLUMNS if column.startswith(part))
        parts += f"  {part:-^{width - 2}}"
    headings = (f"{heading:>{widths[column]}}" for column, (heading, _) in COLUMNS.items())
    lines = [parts, " " * label + "".join(headings)]
    for section, methods in summary.items():
        lines.append(section)
        for method, means in methods.items():
            line = f"{'  ' + method.replace('_', ' '):<{label}}"
            for column, (_, style) in COLUMNS.items():
                value = means.get(column)
                line += f"{'-':>{widths[column]}}" if value is None else f"{value:{style}}"
            lines.append(line)
    headline = (
        f"{method.replace('_', ' ')} {methods[method]['all_psnr']:.2f}" for method in METHODS
    )
    return "\n".join([*lines, "", f"PSNR, {section}, in dB: {', '.join(headline)}"])


def save_scores(
    folder: Path,
    scores: list[Score],
    summary: Summary,
    protocol: dict[str, str],
    failures: list[str],
) -> None:
    """Write scores.csv (a line per pair) and scores.json (means, protocol, failures).

    The table has each PSNR as it is, "inf" for equal pictures; the means are of capped ones.

    Raises:
        OSError: the folder can't be written to.
    """
    rows = [
        {
            **{key: "" if value is None else value for key, value in vars(score.pair).items()},
            **{
                f"{method}_{measure}": value
                for method, measures in score.measures.items()
                for measure, value in measures.items()
            },
        }
        for score in scores
    ]
    with (
        atomic_write(folder / "scores.csv") as path,
        open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)

    content = {"protocol": protocol, "means": summary, "failures": failures}
    with atomic_write(folder / "scores.json") as path:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")

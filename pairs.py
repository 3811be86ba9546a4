"""Which photo is scored against which reference: from a table, or by the names of the files."""

import csv
import math
import os
import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from folder import photo_paths
from photo_formats import PhotoError

COLUMNS = ("set", "scene", "input", "gt")  # of a pairs.csv, all filled; ev may be empty
BRACKET_SETS = ("hdrps", "empa", "mef_stacks", "ntu_stacks")  # small sets of one kind: one group

Item, Key = TypeVar("Item"), TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Pair:
    """A wrongly exposed photo, and the picture that its correction should look like."""

    group: str  # what the scores are averaged over: a kind of photos, or an expert
    set: str
    scene: str  # the versions of one scene should look alike, once corrected
    input: Path
    reference: Path
    ev: float | None  # exposure of the input, in stops; None: unknown


def read_pairs(path: Path) -> tuple[list[Pair], list[str]]:
    """Read a pairs.csv: columns set, scene, input, gt (relative to it), and ev, which may be empty.

    Returns:
        The pairs, and a line for each fault: a column, a file or a number that is missing.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = table.fieldnames or []
            rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        return [], [f"{path}: can't be read ({reason})"]
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        return [], [f"{path}: no column {', '.join(missing)}; its columns: {', '.join(columns)}"]

    pairs, faults = [], []
    for number, row in rows:
        photo, reference = (path.parent / (row[name] or "") for name in ("input", "gt"))
        wrong = [f"{name} is empty" for name in COLUMNS if not row[name]]
        missing = [file for file in (photo, reference) if not os.path.isfile(file)]
        wrong = wrong or [f"no file {file}" for file in missing]
        try:
            ev = float(row["ev"]) if row.get("ev") else None
        except ValueError:
            ev = math.nan
        if ev is not None and not math.isfinite(ev):
            wrong.append(f"ev is {row['ev']!r}, not a number of stops")
        faults += [f"{path}: line {number}: {reason}" for reason in wrong]
        if not wrong:
            group = "brackets" if row["set"] in BRACKET_SETS else row["set"]
            pairs.append(Pair(group, row["set"], row["scene"], photo, reference, ev))
    return pairs, faults if rows else [f"{path}: holds no pairs"]


def match_pairs(input_dir: Path, reference_dirs: list[Path]) -> tuple[list[Pair], list[str]]:
    """Pair photos with references by name, as in the paper's dataset.

    NAME_N1.5.JPG, NAME_0.JPG and NAME_P1.JPG (-1.5, 0 and +1 EV) belong to NAME.jpg, with any
    suffix and in any case; so does a plain NAME. Each folder of references is a group of its own.

    Returns:
        The pairs, and a line for each photo without exactly one reference in every folder, and for
        each folder that can't be listed.
    """
    faults = [
        f"{folder}: no such folder"
        for folder in (input_dir, *reference_dirs)
        if not os.path.isdir(folder)
    ]
    if faults:
        return [], faults

    def note(error: PhotoError) -> None:
        faults.append(str(error))

    photos = photo_paths(input_dir, note)
    is_name_enough = len({folder.name for folder in reference_dirs}) == len(reference_dirs)
    pairs = []
    for folder in reference_dirs:
        references = grouped(photo_paths(folder, note), lambda path: path.stem.lower())
        for photo in photos:
            name, ev = split_name(photo.stem)
            found = references.get(photo.stem.lower()) or references.get(name.lower()) or []
            if len(found) == 1:
                group = folder.name if is_name_enough else str(folder)
                pairs.append(Pair(group, input_dir.name, name.lower(), photo, found[0], ev))
            else:
                faults.append(f"{photo}: {count_of(found)} in {folder}")
    return pairs, faults if photos else [*faults, f"{input_dir}: holds no photos"]


def split_name(stem: str) -> tuple[str, float | None]:
    """Return scene and exposure in stops: NAME_N1.5 is (NAME, -1.5), a plain NAME (NAME, None)."""
    match = re.fullmatch(r"(.+)_(?:([NP])(\d+(?:\.\d+)?)|0)", stem, re.IGNORECASE)
    if match is None:
        return stem, None
    name, direction, stops = match.groups()
    return name, float(stops or 0) * (-1 if direction in ("N", "n") else 1)


def find_results(
    pairs: list[Pair], root: Path, results_dir: Path
) -> tuple[dict[Path, Path], list[str]]:
    """Find the finished picture of every photo: the same path below root, or else the same stem.

    Returns:
        Photo -> picture, and a line for each photo without exactly one picture, of its own, and
        for each folder that can't be listed.
    """
    if not os.path.isdir(results_dir):
        return {}, [f"{results_dir}: no such folder"]
    results, faults = {}, []
    pictures = photo_paths(results_dir, lambda error: faults.append(str(error)))
    by_path = grouped(pictures, lambda path: path_without_suffix(path, results_dir))
    by_stem = grouped(pictures, lambda path: path.stem.lower())
    for photo in dict.fromkeys(pair.input for pair in pairs):
        same_path = by_path.get(path_without_suffix(photo, root), [])
        same_name = [path for path in same_path if path.name == photo.name]
        found = same_name or same_path or by_stem.get(photo.stem.lower(), [])
        if len(found) == 1:
            results[photo] = found[0]
        else:
            faults.append(f"{photo}: {count_of(found)} in {results_dir}")
    for picture, photos in grouped(results, results.get).items():
        if len(photos) > 1:
            names = ", ".join(map(str, photos))
            fix = f"put each result at its photo's path below {results_dir}"
            faults.append(f"{picture}: the only picture for {names}; {fix}")
    return results, faults


def path_without_suffix(path: Path, root: Path) -> str:
    """Return the path below root, in small letters, for comparison."""
    return Path(os.path.relpath(path, root)).with_suffix("").as_posix().lower()


def count_of(found: list[Path]) -> str:
    """Return the end of a fault line about no file, or several, where one is needed."""
    several = ", ".join(path.name for path in found)
    return f"{len(found)} pictures of that name ({several})" if found else "no picture of that name"


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return the items by key, both in the order in which they come."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups

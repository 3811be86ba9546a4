"""Which photos a folder holds, which of them a command corrects, and where their results go."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from config import ConfigError
from photo import output_suffix
from photo_formats import FORMAT_OF_SUFFIX, PhotoError

COMPARISON_SUFFIX = ".compare.png"
# A file in folders that held no photo before the first results: what has their names are results.
RESULTS_MARK = ".results_of_predict"


class Work(NamedTuple):
    """What a command has to do; of several processes, each has its own share."""

    outputs: dict[Path, Path]  # the results by photo
    failures: list[str]  # a line for each folder that can't be listed; the first process has them
    skipped_count: int  # photos whose result is there
    others: list[Path]  # files that are no photos by their suffix; the first process has them
    result_count: int  # photos taken for results, as they are in output_dir; the first process's


def find_inputs(
    source: Path,
    output_dir: Path,
    output_format: str | None = None,
    skip_existing: bool = False,
    compare: bool = False,
) -> Work:
    """Map a photo, or the photos of a folder, to their results.

    Of several processes that torchrun has started, each gets its own share.

    Args:
        source: a photo, or a folder that is searched with its subfolders.
        output_dir: where results go, with the structure and names of the folder. Files there are
            replaced only where `make_output_dir` has marked it.
        output_format: of the results, as for `photo.save_photo`.
        skip_existing: leave out photos whose result is there.
        compare: a result has a comparison beside it, and is not there without it.

    Raises:
        ConfigError: there is no photo, output_dir is a file, or a result would replace a file that
            may be no result.
    """
    failures: list[str] = []
    results: list[Path] = []
    if output_dir.exists() and not output_dir.is_dir():
        raise ConfigError([f"result_output_dir is {output_dir}: a file; name a folder"])
    if source.is_dir():
        root, own = source, real(output_dir)
        files = visible_files(source, on_error=lambda error: failures.append(str(error)))
        if own not in (real(source), *real(source).parents):  # results of a run are no photos
            results = [path for path in files if own in real(path).parents]
            files = sorted(set(files) - set(results))
        paths = [path for path in files if is_photo(path)]
    elif source.exists():
        root, files, paths = source.parent, [source], [source]
    else:
        raise ConfigError([f"img_pth is {source}: no such file or folder; name one"])
    if not paths and not failures:
        raise ConfigError([f"img_pth is {source}: no photo in it; name a folder with photos"])
    outputs = plan_outputs(paths, root, output_dir, output_format)
    skipped = find_finished(outputs, compare) if skip_existing else set()
    photos = {identity(path) for path in paths}
    is_marked = (output_dir / RESULTS_MARK).exists()  # else the files there may be anyone's
    for path, output in outputs.items():
        for file in files_of(output, compare):
            present = identity(file)
            # A comparison is there before its result: what was stopped in between may go on.
            is_result = is_marked or path in skipped or (skip_existing and file != output)
            if present and (present in photos or not is_result):
                fault = f"{file} would be replaced; name another, or an empty one"
                raise ConfigError([f"result_output_dir is {output_dir}: {fault}"])
    rank, rank_count = 0, 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank, rank_count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    share = dict(list(outputs.items())[rank::rank_count])

    left = {path: output for path, output in share.items() if path not in skipped}
    skipped_count = len(share) - len(left)
    if rank:  # what concerns the whole folder is told once
        return Work(left, [], skipped_count, [], 0)
    others = sorted(set(files) - set(paths))
    return Work(left, failures, skipped_count, others, sum(map(is_photo, results)))


def make_output_dir(output_dir: Path) -> None:
    """Make the folder for results, and mark it, unless it holds photos: later runs replace them.

    Raises:
        ConfigError: it can't be made, or written to.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        mark = output_dir / RESULTS_MARK
        if not mark.exists() and not photo_paths(output_dir, on_error=lambda error: None):
            mark.touch()
    except OSError as error:
        reason = f"can't be made, or written to ({error.strerror}); name another"
        raise ConfigError([f"result_output_dir is {output_dir}: {reason}"]) from error


def find_finished(outputs: dict[Path, Path], compare: bool) -> set[Path]:
    """The photos that are done: there is the result and, where asked for, the comparison."""
    there = {
        path
        for path, output in outputs.items()
        if all(map(os.path.exists, files_of(output, compare)))
    }
    finished: set[Path] = set()
    for namesakes in group_namesakes(outputs):
        if there.issuperset(namesakes):  # else the results may have been named otherwise
            finished.update(namesakes)
    return finished


def files_of(output: Path, compare: bool) -> list[Path]:
    """What is written for a photo: the result and, where asked for, the comparison."""
    return [output, comparison_path(output)] if compare else [output]


def group_namesakes(outputs: dict[Path, Path]) -> list[list[Path]]:
    """Group the photos whose results would have had one name."""
    groups: dict[str, list[Path]] = {}
    for path, output in outputs.items():
        groups.setdefault(str(path.with_suffix(output.suffix)).casefold(), []).append(path)
    return list(groups.values())


def real(path: Path) -> Path:
    """The path without links; unlike `Path.resolve`, it takes a link to itself for a file."""
    return Path(os.path.realpath(path))


def identity(path: Path) -> tuple[int, int] | None:
    """What all names of a file or folder share, also on disks that ignore case; None: not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def plan_outputs(
    paths: list[Path], root: Path, output_dir: Path, output_format: str | None = None
) -> dict[Path, Path]:
    """Map every photo to its result: same structure and name, no two alike, whatever the case.

    A result that would meet a namesake, or a namesake's comparison, has more in its name: the
    photo's own suffix, then underscores.
    """
    suffixes = {path: output_suffix(path, output_format) for path in paths}
    outputs: dict[Path, Path] = {}
    taken: set[str] = set()

    def names(output: Path) -> set[str]:
        return {str(path).casefold() for path in (output, comparison_path(output))}

    # Those that keep their suffix go first, and so keep their names.
    for path in sorted(paths, key=lambda path: suffixes[path] != path.suffix):
        output = output_dir / path.relative_to(root).with_suffix(suffixes[path])
        stem = path.name
        while names(output) & taken:
            output = output.with_name(stem + suffixes[path])
            stem += "_"
        taken |= names(output)
        outputs[path] = output
    return {path: outputs[path] for path in paths}


def comparison_path(output: Path) -> Path:
    """Where the picture of before and after goes: photo.jpg beside photo.jpg.compare.png."""
    return output.with_name(output.name + COMPARISON_SUFFIX)


def photo_paths(
    folder: str | Path, on_error: Callable[[PhotoError], None] | None = None
) -> list[Path]:
    """List the photos below a folder by suffix: those of `visible_files`, which see."""
    return [path for path in visible_files(folder, on_error) if is_photo(path)]


def is_photo(path: Path) -> bool:
    """The suffix is one of a format that `photo.load_photo` reads."""
    return path.suffix.lower() in FORMAT_OF_SUFFIX


def count_kinds(paths: list[Path]) -> str:
    """How many files of which suffix (or name, without one) there are, as "2 .gif, 1 .txt"."""
    kinds = Counter(path.suffix.lower() or path.name for path in paths)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def visible_files(
    folder: str | Path, on_error: Callable[[PhotoError], None] | None = None
) -> list[Path]:
    """List the files below a folder, sorted, without hidden files and folders.

    Links to folders are followed, but no folder is listed twice, so loops of links end. The
    comparisons that stand beside results are not listed.

    Args:
        folder: where to look.
        on_error: told of each folder that cannot be listed; without it the first one is raised.

    Raises:
        PhotoError: a folder cannot be listed, and there is no `on_error`.
    """

    def report(error: OSError) -> None:
        failure = PhotoError(f"{error.filename}: cannot be listed: {error.strerror}")
        if on_error is None:
            raise failure from error
        on_error(failure)

    root = os.path.realpath(folder)
    seen = {root}

    def is_new(path: str) -> bool:
        target = os.path.realpath(path)
        # What a link shows of the folder itself is listed under its own name.
        is_inside = Path(target).is_relative_to(root)
        if target in seen or (os.path.islink(path) and is_inside):
            return False
        seen.add(target)
        return True

    paths = []
    for parent, folders, files in os.walk(folder, onerror=report, followlinks=True):
        visible = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in visible if is_new(os.path.join(parent, name))]
        names = {name for name in files if not name.startswith(".")}
        names -= {name + COMPARISON_SUFFIX for name in names}
        paths += [Path(parent, name) for name in names]
    return sorted(paths)

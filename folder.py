"""Which photos a command corrects, and where their results go."""

import os
from pathlib import Path

from config import ConfigError
from photo import output_suffix, photo_paths


def find_inputs(
    source: Path, output_dir: Path, output_format: str | None = None, skip_existing: bool = False
) -> tuple[dict[Path, Path], list[str]]:
    """Map a photo, or the photos of a folder, to their results.

    Of several processes that torchrun has started, each gets its own share.

    Args:
        source: a photo, or a folder that is searched with its subfolders.
        output_dir: where results go, with the structure and names of the folder.
        output_format: of the results, as for `photo.save_photo`.
        skip_existing: leave out photos whose result is there.

    Returns:
        The results by photo, and a line for each folder that can't be listed.

    Raises:
        ConfigError: there is no photo, a result would replace one, or output_dir is a file.
    """
    failures: list[str] = []
    if output_dir.exists() and not output_dir.is_dir():
        raise ConfigError([f"result_output_dir is {output_dir}: a file; name a folder"])
    if source.is_dir():
        root, own = source, real(output_dir)
        paths = photo_paths(source, on_error=lambda error: failures.append(str(error)))
        if real(source) in own.parents:  # results of an earlier run are no photos
            paths = [path for path in paths if own not in real(path).parents]
    elif source.exists():
        root, paths = source.parent, [source]
    else:
        raise ConfigError([f"img_pth is {source}: no such file or folder; name one"])
    if not paths and not failures:
        raise ConfigError([f"img_pth is {source}: no photo in it; name a folder with photos"])
    outputs = plan_outputs(paths, root, output_dir, output_format)
    photos = {real(path) for path in paths}
    # Results among the photos, or above them, may meet ones that were not asked for.
    is_near = real(output_dir) in (real(root), *real(root).parents)
    for output in outputs.values():
        if real(output) in photos or (is_near and not skip_existing and output.exists()):
            raise ConfigError(
                [f"result_output_dir is {output_dir}: {output} would be replaced; name another"]
            )
    rank, rank_count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    share = list(outputs.items())[rank::rank_count]
    return {
        path: output for path, output in share if not (skip_existing and output.exists())
    }, failures


def real(path: Path) -> Path:
    """The path without links; unlike `Path.resolve`, it takes a link to itself for a file."""
    return Path(os.path.realpath(path))


def plan_outputs(
    paths: list[Path], root: Path, output_dir: Path, output_format: str | None = None
) -> dict[Path, Path]:
    """Map every photo to its result: same structure and name, no two alike.

    A result whose suffix must change (RAW becomes .tif) keeps the old one in its name where
    it would meet a namesake.
    """
    suffixes = {path: output_suffix(path, output_format) for path in paths}
    outputs: dict[Path, Path] = {}
    taken: set[Path] = set()
    # Those that keep their suffix go first: they cannot meet each other.
    for path in sorted(paths, key=lambda path: suffixes[path] != path.suffix):
        suffix = suffixes[path] or path.suffix
        output = output_dir / path.relative_to(root).with_suffix(suffix)
        stem = path.name
        while output in taken:
            output = output.with_name(stem + suffix)
            stem += "_"
        taken.add(output)
        outputs[path] = output
    return {path: outputs[path] for path in paths}

"""Correct the exposure of a photo, or of a folder of photos.

    python predict.py [PATH] [--output DIR] [--conf predict_conf.json]

From Python:

    model = predict.load_model("weights/exposure_correction.pth")
    corrected = predict.correct(photo, model)  # (H, W, 3) arrays, sRGB
"""

import argparse
import os
import signal
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import ConfigError, PredictConfig, load_config
from folder import Work, count_kinds, find_inputs, make_output_dir
from interruption import escape_names, leave_closed_pipe, raise_at_signal
from utils import describe_os_error, keep_freed_memory

if TYPE_CHECKING:
    from model import ExposureCorrectionNet

HERE = Path(__file__).parent

# What imports torch is imported where it is used: a mistake in the config shows before the
# seconds that takes.


def __getattr__(name: str) -> Any:
    """`load_model` and `correct`, for use from Python."""
    if name in ("load_model", "correct"):
        import correction

        return getattr(correction, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", help="photo or folder (default: the config's img_pth)")
    parser.add_argument("--output", help="folder for the results (default: result_output_dir)")
    parser.add_argument(
        "--conf",
        type=Path,
        default=HERE / "predict_conf.json",
        help="config file (default: the one beside this script)",
    )
    return parser.parse_args(arguments)


def plan(options: argparse.Namespace) -> tuple[PredictConfig, Path, Work]:
    """Read the config, and find the weights and what there is to correct.

    Raises:
        ConfigError, OSError: a mistake in the config, or in a path.
    """
    config = load_config(options.conf, PredictConfig)
    given = {"img_pth": options.path, "result_output_dir": options.output}
    config = replace(config, **{key: value for key, value in given.items() if value is not None})
    weights = find_weights(config.pretrained_model, options.conf)
    work = find_inputs(
        Path(config.img_pth),
        Path(config.result_output_dir),
        config.output_format,
        config.skip_existing,
        config.compare,
    )
    return config, weights, work


def check_architecture(architecture: dict[str, Any], config: PredictConfig) -> None:
    """Raise ConfigError where the config says something else than the weights."""
    level_count = len(architecture["layer_counts"])
    said = {
        "laplacian_level_count": (config.laplacian_level_count, level_count),
        "layer_count_of_every_unet": (
            config.layer_count_of_every_unet,
            architecture["layer_counts"],
        ),
        "first_layer_out_channels_of_every_unet": (
            config.first_layer_out_channels_of_every_unet,
            architecture["first_channels"],
        ),
    }
    if config.level_scales is not None:
        said["items in level_scales"] = (len(config.level_scales), level_count)
    lines = []
    if config.finest_level is not None and config.finest_level > level_count:
        lines.append(f"finest_level is {config.finest_level}; allowed: 1 to {level_count}, or null")
    for key, (ours, theirs) in said.items():
        ours = list(ours) if isinstance(ours, tuple) else ours
        if ours not in (None, theirs):
            lines.append(
                f"{key}: {ours}, but {theirs} in {config.pretrained_model}; "
                "change it, or leave it out"
            )
    if lines:
        raise ConfigError(lines)


def find_weights(path: str, conf: Path) -> Path:
    """Where the weights are: the path as it is, or else seen from the config's folder.

    Raises:
        ConfigError: neither is there.
    """
    places = dict.fromkeys((Path(path), conf.parent / path))
    for place in places:
        if os.path.exists(place):
            return place
    seen = " nor ".join(map(str, places))
    raise ConfigError([f"pretrained_model is {path}: no file {seen}; name one"])


def load_network(config: PredictConfig, weights: Path) -> "ExposureCorrectionNet":
    """Load the weights.

    Raises:
        ConfigError, OSError: they can't be read, or the config says something else of them.
    """
    from checkpoint import CheckpointError
    from correction import choose_device, load_model

    try:
        model = load_model(weights, choose_device())
    except CheckpointError as error:
        raise ConfigError([str(error)]) from error
    check_architecture(model.architecture, config)
    return model


def run(options: argparse.Namespace) -> int:
    """Correct what the command line and the config name; returns the exit code."""
    try:
        config, weights, work = plan(options)
        model = load_network(config, weights)
        make_output_dir(Path(config.result_output_dir))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(describe_os_error(error), file=sys.stderr)
        return 2
    from correction import correct_files
    from distributed import wait_for_others

    if work.others:
        print(f"left out, as no photos by their suffix: {count_kinds(work.others)}")
    if work.result_count:
        print(f"left out, as they are in {config.result_output_dir}: {work.result_count}")
    wait_for_others()  # who lists the folders late must not find the first results there
    start = time.perf_counter()
    failures = correct_files(work.outputs, model, config)
    seconds = (time.perf_counter() - start) / max(1, len(work.outputs))
    corrected_count = len(work.outputs) - len(failures)
    failures = work.failures + failures
    for failure in failures:
        print(failure, file=sys.stderr)
    skipped = f", {work.skipped_count} there already" if work.skipped_count else ""
    print(
        f"{corrected_count} corrected, {len(failures)} failed{skipped}, "
        f"{seconds:.2f} s a photo; results in {config.result_output_dir}"
    )
    wait_for_others()
    return 1 if failures else 0


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    raise_at_signal()
    escape_names()
    keep_freed_memory()
    warnings.filterwarnings("ignore", module="PIL")  # of what is told better, or can be read
    try:
        exit_code = run(options)
        sys.stdout.flush()
        return exit_code
    except BrokenPipeError:
        leave_closed_pipe()
        return 1
    except KeyboardInterrupt as stopped:
        print("stopped; what is finished stays, skip_existing goes on from there", file=sys.stderr)
        return 128 + getattr(stopped, "number", signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())

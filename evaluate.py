"""Score corrected photos against references.

    python evaluate.py --pairs PAIRS.csv [--weights W | --results DIR]
    python evaluate.py --inputs DIR --references DIR [DIR ...] [--weights W | --results DIR]

Beside the corrected photos stand the untouched ones and a formula that sees nothing but the mean.
"""

import argparse
import hashlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import PIL

from config import PredictConfig
from interruption import escape_names, leave_closed_pipe
from pairs import find_results, match_pairs, read_pairs
from scores import LONG_SIDE, Corrector, load_picture, score_pairs
from summary import format_table, save_scores, summarize
from utils import MAX_PSNR


def make_results_corrector(results: dict[Path, Path]) -> Corrector:
    """Return a corrector that reads finished pictures, resized to the photo's size."""
    return lambda pair, photo: load_picture(results[pair.input], photo.shape[:2])


def make_network_corrector(weights: Path, finest_level: int | None, restraint: float) -> Corrector:
    """Return a corrector that runs the network, on a GPU where there is one.

    Args:
        weights: the file.
        finest_level, restraint: of `correct`.

    Raises:
        OSError, ValueError: the weights can't be read, or have no such level.
    """
    from correction import choose_device, correct, load_model  # scoring pictures does without

    model = load_model(weights, choose_device())
    if finest_level is not None and not 1 <= finest_level <= model.level_count:
        raise ValueError(f"--finest-level is {finest_level}; allowed: 1 to {model.level_count}")
    size = (LONG_SIDE, LONG_SIDE)
    return lambda pair, photo: correct(
        photo, model, size, finest_level=finest_level, restraint=restraint
    )


def describe_protocol(source: str, corrected: str) -> dict[str, str]:
    """Return what one has to know to get the same numbers, by subject."""
    return {
        "pairs": source,
        "corrected": corrected,
        "size": f"photo: long side {LONG_SIDE} px (INTER_AREA), never enlarged; result and "
        "reference: that of the photo",
        "PSNR": "dB, over all RGB values of the 8-bit (rounded) picture; means are over pairs, "
        f"of which none counts more than {MAX_PSNR:g}",
        "SSIM": "7x7 uniform windows, sample covariance, mean over RGB (as in scikit-image)",
        "bright": "mean of the picture less mean of the reference, white = 1; |bright|: its size",
        "median": "of PSNR, over pairs; in the mean of the groups, the mean of their medians",
        "alike": "dB, mean PSNR between a scene's versions, capped likewise; mean over scenes",
        "under, over": "exposure of the photo below, above 0 EV; all: also 0 and unknown",
        "mid grey gamma": "x ** (log 0.5 / log m), m the photo's mean Rec. 601 luma",
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}, PyTorch {version('torch')}",
    }


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong one ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        description="Score corrected photos against references, beside the untouched photos."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pairs", type=Path, metavar="CSV", help="table of set, scene, input, gt, ev"
    )
    source.add_argument(
        "--inputs", type=Path, metavar="DIR", help="photos NAME_N1.5.JPG, NAME_0.JPG, NAME_P1.JPG"
    )
    parser.add_argument(
        "--references",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="references NAME.jpg for --inputs; a folder per expert: scored each, and averaged",
    )
    method = parser.add_mutually_exclusive_group()
    method.add_argument(
        "--weights",
        type=Path,
        default=Path("weights/exposure_correction.pth"),
        help="weights to run (default: %(default)s)",
    )
    method.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="finished pictures of any program, at the photos' paths or with their names",
    )
    for name, kind in (("--finest-level", int), ("--restraint", float)):
        parser.add_argument(name, type=kind, help="as in predict_conf.json")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for scores.csv and scores.json")
    options = parser.parse_args(arguments)
    if (options.inputs is None) != (options.references is None):
        parser.error("--inputs and --references go together")
    if options.results and (options.finest_level, options.restraint) != (None, None):
        parser.error("--finest-level and --restraint are for --weights, not for --results")
    if options.restraint is not None and not 0 <= options.restraint <= 1:
        parser.error(f"--restraint is {options.restraint:g}; allowed: 0 to 1")
    return options


def run(options: argparse.Namespace) -> int:
    """Score what the command line names; return the exit code."""
    if options.pairs:
        pairs, faults = read_pairs(options.pairs)
        source, root = str(options.pairs), options.pairs.parent
    else:
        pairs, faults = match_pairs(options.inputs, options.references)
        against = ", ".join(map(str, options.references))
        source, root = f"{options.inputs} against {against}", options.inputs

    if options.results:
        results, missing = find_results(pairs, root, options.results)
        faults += missing
        corrected = f"finished pictures in {options.results}"
    elif not os.path.isfile(options.weights):
        faults.append(f"{options.weights}: no such weights; name some with --weights")
    if options.output:
        try:
            options.output.mkdir(parents=True, exist_ok=True)  # now, not after all the work
        except OSError as error:
            faults.append(f"{options.output}: can't be made a folder ({error.strerror})")
        else:
            if not os.access(options.output, os.W_OK):
                faults.append(f"{options.output}: can't be written to; name another folder")
    if faults:
        print("\n".join(faults), file=sys.stderr)
        return 2

    if options.results:
        correct = make_results_corrector(results)
    else:
        restraint = PredictConfig.restraint if options.restraint is None else options.restraint
        try:
            correct = make_network_corrector(options.weights, options.finest_level, restraint)
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 2
        digest = hashlib.sha256(options.weights.read_bytes()).hexdigest()[:12]
        corrected = f"network of {options.weights} (sha256 {digest}), at the size below"
        corrected += f", finest_level {options.finest_level or 'null'}, restraint {restraint:g}"

    scores, agreements, failures = score_pairs(pairs, correct)
    if scores:
        summary = summarize(scores, agreements)
        protocol = describe_protocol(f"{len(scores)} of {len(pairs)} from {source}", corrected)
        if options.output:  # before printing, which fails where nobody reads on
            try:
                save_scores(options.output, scores, summary, protocol, failures)
            except OSError as error:
                failures.append(f"{options.output}: can't be written to ({error.strerror})")
        print("\n".join(f"{subject + ':':<16}{words}" for subject, words in protocol.items()))
        print("", format_table(summary), sep="\n", flush=True)
    if failures:
        print("\n".join(["failed:", *failures]), file=sys.stderr)
    return 1 if failures else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1: photos failed, or the scores can't be written; 2: wrong arguments, missing files;
        130: stopped by Ctrl-C.
    """
    options = parse_arguments(arguments)
    escape_names()
    try:
        return run(options)
    except BrokenPipeError:
        leave_closed_pipe()
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

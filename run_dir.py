"""The folder of a training run: whether it will do, made, tidied up, and kept from other runs."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from config import ConfigError
from distributed import gather, rank
from utils import holding, remove_temporaries

BEST = "best.pth"  # weights to predict with
COMPARISONS = "comparisons"  # the pictures of the epochs


def check_run_dir(run_dir: Path) -> None:
    """Raise ConfigError where the run's folder can't be made, or written to."""
    nearest = next(path for path in (run_dir, *run_dir.parents) if path.exists())
    if not nearest.is_dir():
        raise ConfigError([f"model_save_dir is {run_dir}: {nearest} is a file; name another"])
    if not os.access(nearest, os.W_OK):
        raise ConfigError([f"model_save_dir is {run_dir}: {nearest} is read-only; name another"])


@contextlib.contextmanager
def run_dir_of_our_own(run_dir: Path) -> Iterator[None]:
    """Make the run's folder, or tidy it up, and keep other runs out of it for a block.

    Raises:
        ConfigError: it can't be made, or written to, or another run is in it.
    """
    check_run_dir(run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"model_save_dir is {run_dir}: can't be made a folder ({error.strerror})"
        raise ConfigError([f"{message}; name another"]) from None
    with holding(run_dir) if rank() == 0 else contextlib.nullcontext(True) as is_ours:
        if not all(gather(is_ours)):  # so that all processes end alike
            message = f"model_save_dir is {run_dir}: another run is under way there"
            raise ConfigError([f"{message}; let it end, or name another"])
        if rank() == 0:
            remove_temporaries(run_dir)
            remove_temporaries(run_dir / COMPARISONS)
        yield

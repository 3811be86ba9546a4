"""Files of weights, for use, and checkpoints, to go on from. Both hold plain types only."""

from pathlib import Path
from typing import Any

import torch

from model import ExposureCorrectionNet
from utils import atomic_write

FORMAT_VERSION = 1
# What the errors of PyTorch's writer say, which are no OSError.
WRITER_WORDS = ("inline_container", "PytorchStreamWriter", "cannot be opened")


class CheckpointError(ValueError):
    """A file that is no checkpoint or no weights of this program; names the file."""


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write nested dicts of tensors and plain types; the file is whole or absent.

    Raises:
        OSError: the disk is full, or the folder can't be written to.
    """
    with atomic_write(path) as temporary:
        try:
            torch.save({"format_version": FORMAT_VERSION, **state}, temporary)
        except RuntimeError as error:
            if not any(word in str(error) for word in WRITER_WORDS):
                raise
            reason = str(error).splitlines()[0]
            raise OSError(f"{path}: can't be written; is the disk full? ({reason})") from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, onto the CPU, running no code that the file may hold.

    Raises:
        FileNotFoundError, PermissionError: there is no such file, or it can't be read.
        CheckpointError: the file is damaged, of another kind or version, or holds code.
    """
    if Path(path).is_dir():
        raise FileNotFoundError(f"{path}: a folder; name the file in it, such as best.pth")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; name one that train.py saved")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise PermissionError(f"{path}: can't be read ({error.strerror})") from error
    except Exception as error:  # torch.load raises whatever damaged bytes lead to
        raise CheckpointError(
            f"{path}: damaged, not a PyTorch file, or with code inside, which is not run"
        ) from error
    version = state.get("format_version") if isinstance(state, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version is {version}; this program reads {FORMAT_VERSION}: "
            "name a file that train.py saved"
        )
    return state


def save_weights(path: str | Path, network: ExposureCorrectionNet) -> None:
    """Write a network for use: its architecture, and its weights in half precision."""
    weights = {
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in network.state_dict().items()
    }
    save_checkpoint(path, {"architecture": network.architecture, "weights": weights})


def load_weights(path: str | Path) -> ExposureCorrectionNet:
    """Read a network that `save_weights` wrote, in single precision, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is something else, or its weights do not fit its architecture.
    """
    state = load_checkpoint(path)
    if "optimizers" in state:
        raise CheckpointError(f"{path}: a checkpoint of a run; name the best.pth beside it")
    try:
        network = ExposureCorrectionNet(**state["architecture"])
        network.load_state_dict(state["weights"])
    except Exception as error:  # as many kinds as there are ways to be something else
        fix = "name a best.pth that train.py saved"
        raise CheckpointError(f"{path}: holds no exposure correction weights; {fix}") from error
    return network

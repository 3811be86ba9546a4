"""Working as one with several processes, one per GPU, on one machine or several.

Gradients are averaged here by hand and not by DistributedDataParallel: in training, which
sub-networks learn changes from stage to stage, and the discriminator takes part in two different
backward passes.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from config import ConfigError
from interruption import heed_signals, without_handlers


def rank() -> int:
    """Number of this process, from 0; 0 alone writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def rank_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_gradients(network: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, whose shares are equally large."""
    if rank_count() == 1:
        return
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= rank_count()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def share_weights(network: nn.Module) -> None:
    """Give all processes the weights of the first one: files they read may differ by machine."""
    if rank_count() > 1:
        for weights in network.state_dict().values():
            dist.broadcast(weights, 0)


class MeanOverProcesses(torch.autograd.Function):
    """Mean of a tensor over the processes, and its gradient the mean over them, too."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total / rank_count()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return MeanOverProcesses.forward(context, gradient)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the photos of all processes, whose shares are equally large.

    As `nn.SyncBatchNorm`, which works on GPUs only.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if not self.training or rank_count() == 1:
            return super().forward(image)
        values = image.float()
        mean = MeanOverProcesses.apply(values.mean((0, 2, 3), keepdim=True))
        squares = (values - mean).square()
        variance = MeanOverProcesses.apply(squares.mean((0, 2, 3), keepdim=True))
        count = rank_count() * values.numel() / values.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            self.running_var.lerp_(variance.flatten() * count / (count - 1), self.momentum)
        normalised = (values - mean) * (variance + self.eps).rsqrt()
        weight, bias = (vector.view(1, -1, 1, 1) for vector in (self.weight, self.bias))
        return (normalised * weight + bias).to(image.dtype)


def share_batch_norms(network: nn.Module) -> None:
    """Turn every batch norm of a network into a SharedBatchNorm."""
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm2d):
                shared = SharedBatchNorm(norm.num_features).to(norm.weight.device)
                shared.load_state_dict(norm.state_dict())
                setattr(parent, name, shared)


def gather(value: Any) -> list[Any]:
    """Return what each process has given, by rank, in every process."""
    if rank_count() == 1:
        return [value]
    values = [None] * rank_count()
    dist.all_gather_object(values, value)
    return values


def check_gpus(visible: str) -> None:
    """Raise ConfigError where some, but not all, of the GPUs are there, as "0,1" names them."""
    named, found = len(visible.split(",")), torch.cuda.device_count()
    if 0 < found < named:
        message = f"CUDA_VISIBLE_DEVICES is {visible}; of these {named} GPUs {found} can be used"
        raise ConfigError([f"{message}: name those that nvidia-smi lists"])


def launch(run: Callable[..., int], *arguments: Any) -> int:
    """Call run(device, *arguments) in one process per visible GPU; returns its exit code.

    Under torchrun, which has started the processes already, this one joins them. Without a
    GPU, or with one, there is this process only.
    """
    if {"RANK", "LOCAL_RANK"} <= os.environ.keys():
        return _run_rank(int(os.environ["LOCAL_RANK"]), run, arguments)
    gpu_count = torch.cuda.device_count()
    if gpu_count < 2:
        return run(torch.device("cuda" if gpu_count else "cpu"), *arguments)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(gpu_count),
    }
    processes = torch.multiprocessing.spawn(
        _spawned, (run, arguments), nprocs=gpu_count, join=False
    )

    def pass_on(number: int, frame: object) -> None:
        for pid in processes.pids():
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(pid, number)

    heed_signals(pass_on)
    try:
        while not processes.join():
            pass
    except torch.multiprocessing.ProcessExitedException as ended:  # which has ended the others
        if ended.signal_name:
            message = (
                f"process {ended.error_index} of {gpu_count} was killed by {ended.signal_name}"
            )
            print(f"{message}; the same command goes on from the last checkpoint", file=sys.stderr)
            return 1
        return ended.exit_code
    return 0


def wait_for_others() -> None:
    """Wait for the other processes of torchrun, which ends them all where one ends with a 1."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        with without_handlers():  # Python's wait for the end of what is not Python
            if not dist.is_initialized():
                dist.init_process_group("gloo", timeout=timedelta(days=7))
            dist.barrier()


def _spawned(local_rank: int, run: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    if hasattr(os, "setpgrp"):  # signals come once, from the parent
        os.setpgrp()
    if "fork" in torch.multiprocessing.get_all_start_methods():
        # A spawned process would spawn its loaders' workers, which takes seconds each time.
        torch.multiprocessing.set_start_method("fork", force=True)
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(local_rank)
    raise SystemExit(_run_rank(local_rank, run, arguments))


def _run_rank(local_rank: int, run: Callable[..., int], arguments: tuple[Any, ...]) -> int:
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            print(
                f"CUDA_VISIBLE_DEVICES is {visible}; name a GPU for each process of torchrun",
                file=sys.stderr,
            )
            return 2
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        device = torch.device("cpu")
        dist.init_process_group("gloo")
    exit_code = run(device, *arguments)
    dist.destroy_process_group()
    return exit_code

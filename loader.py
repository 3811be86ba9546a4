"""Which photos the network sees in an epoch, how large, and in what batches."""

import contextlib
import itertools
import multiprocessing
import signal
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import torch
from torch.utils.data import DataLoader

from config import ConfigError, TrainConfig
from dataset import (
    EpochSampler,
    TrainDataset,
    ValidationDataset,
    find_photos,
    find_shared,
    keep_readable,
)
from distributed import gather, rank, rank_count
from interruption import SIGNALS
from stages import count_versions, stage_image_size
from synthesis import ExposureSynthesis


def count_epoch_photos(photo_count: int) -> int:
    """How many of the photos an epoch sees, over all processes."""
    return EpochSampler(photo_count, seed=0, rank_count=rank_count()).total


def start_worker(_: int) -> None:
    """Workers take one core each, and leave signals to the training process, as it ends them."""
    cv2.setNumThreads(1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def ending_workers() -> Iterator[None]:
    """End the workers with a block, which may hold loaders, or fail.

    They ignore the SIGTERM by which the program's exit would end them, and it would wait.
    """
    try:
        yield
    finally:
        if hasattr(signal, "SIGCHLD"):  # PyTorch would take their end for a fault
            handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)


def check_shares(config: TrainConfig) -> None:
    """Raise ConfigError where the processes cannot share a batch evenly."""
    if config.batch_size % rank_count():
        message = f"batch_size is {config.batch_size}; {rank_count()} processes cannot share it"
        raise ConfigError([f"{message} evenly: make it a multiple"])


def find_train_and_valid_photos(config: TrainConfig) -> tuple[list[Path], list[Path]]:
    """List the photos to train on, and those to validate on that can be read.

    Warns of photos that are in both folders, which makes scores too good.

    Raises:
        FileNotFoundError: a folder is missing, holds too few photos, or differs by machine.
    """
    train_paths = find_photos(config.train_data_dir, "train_data_dir")
    all_valid_paths = find_photos(config.valid_data_dir, "valid_data_dir")
    if len(train_paths) < rank_count():
        raise FileNotFoundError(
            f"train_data_dir: {config.train_data_dir} has {len(train_paths)} photos for "
            f"{rank_count()} processes; add photos, or name fewer GPUs"
        )
    counts = gather((len(train_paths), len(all_valid_paths)))
    if len(set(counts)) > 1:
        raise FileNotFoundError(
            f"train_data_dir, valid_data_dir: the processes see {sorted(set(counts))} photos; give "
            "all machines the same"
        )
    own_readable = keep_readable(all_valid_paths[rank() :: rank_count()])
    readable = set(itertools.chain(*gather(own_readable)))
    valid_paths = [path for path in all_valid_paths if path in readable]
    if not valid_paths:
        message = f"valid_data_dir: no photo in {config.valid_data_dir} can be read"
        raise FileNotFoundError(f"{message}; put some there that can")
    shared = find_shared(all_valid_paths, train_paths) if rank() == 0 else []
    if shared:
        warnings.warn(
            f"valid_data_dir: {len(shared)} of {len(all_valid_paths)} photos, such as {shared[0]}, "
            f"are in {config.train_data_dir} too; their scores say nothing of other photos",
            stacklevel=2,
        )
    return train_paths, valid_paths


def make_train_loader(
    config: TrainConfig, paths: Sequence[Path], active_count: int, device: torch.device
) -> DataLoader:
    synthesis = ExposureSynthesis(
        color_jitter_brightness=config.color_jitter_brightness,
        color_jitter_contrast=config.color_jitter_contrast,
        color_jitter_saturation=config.color_jitter_saturation,
        exposure_shift_ev=config.exposure_shift_ev,
        exposure_shift_share=config.exposure_shift_share,
        untouched_share=config.untouched_share,
        retone_strength=config.retone_strength,
        brightness_pull=config.brightness_pull,
        hidden_light_share=config.hidden_light_share,
        version_count=count_versions(config, active_count),
    )
    image_size = stage_image_size(config, active_count)
    return DataLoader(
        TrainDataset(paths, image_size, synthesis, config.crop_scale, config.seed),
        batch_size=config.batch_size // rank_count(),
        sampler=EpochSampler(len(paths), config.seed, rank(), rank_count()),
        num_workers=config.num_workers,
        worker_init_fn=start_worker,
        persistent_workers=config.num_workers > 0,
        pin_memory=device.type == "cuda",
    )


def make_valid_loader(
    config: TrainConfig, paths: Sequence[Path], active_count: int, device: torch.device
) -> DataLoader:
    dataset = ValidationDataset(
        paths[rank() :: rank_count()],
        stage_image_size(config, active_count),
        config.brightness_pull,
    )
    return DataLoader(
        dataset,
        batch_size=None,  # one photo at all its exposures
        num_workers=config.num_workers,
        worker_init_fn=start_worker,
        pin_memory=device.type == "cuda",
    )

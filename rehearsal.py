"""A few steps of every stage, to see that a run will work, how long it takes, and its memory."""

import itertools
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from config import TrainConfig
from dataset import ValidationDataset, keep_readable, none_readable, to_floats
from distributed import gather, rank, rank_count
from interruption import Interrupted, StopSignal, say
from loader import count_epoch_photos, find_train_and_valid_photos, make_train_loader
from report import import_summary_writer
from run_dir import check_run_dir
from run_state import LAST, Networks, Optimizers, make_networks, make_optimizers, restore_run
from stages import count_active_levels, stage_image_size
from step import step_settings, train_step
from validation import validate

STEP_COUNT = 4  # per stage; the first one, which is slower, does not count


def rehearse(config: TrainConfig, device: torch.device, stop: StopSignal) -> None:
    """Check photos and checkpoint, take steps of every stage left, and print what they took.

    Nothing is written.

    Raises:
        Interrupted: a signal came.
        CheckpointError, ConfigError, NonFiniteLossError, OSError, PhotoError: as in training.
    """
    check_run_dir(Path(config.model_save_dir))
    if config.tensorboard:
        import_summary_writer()
    train_paths, valid_paths = find_train_and_valid_photos(config)
    own_paths = train_paths[rank() :: rank_count()]
    bar = tqdm(own_paths, "reading", unit="photo", leave=False, disable=rank() > 0 or None)
    shares = gather((len(keep_readable(until_stopped(bar, stop))), stop.number))
    raise_if_stopped(stop_number for _, stop_number in shares)
    readable_count = sum(count for count, _ in shares)
    tell(f"train_data_dir: {len(train_paths)} photos, {readable_count} can be read")
    tell(f"valid_data_dir: {len(valid_paths)} photos can be read")
    if not readable_count:
        raise none_readable(train_paths)
    checkpoint = Path(config.model_save_dir) / LAST
    networks = make_networks(config, device, checkpoint.exists())
    optimizers = make_optimizers(networks, config)
    photo_total = count_epoch_photos(len(train_paths))
    progress = restore_run(checkpoint, networks, optimizers, config, photo_total)
    if progress.epoch > config.epochs:
        tell(f"{checkpoint}: all {config.epochs} epochs are done")
        return
    if checkpoint.exists():
        tell(f"{checkpoint}: goes on with epoch {progress.epoch}")

    seconds = 0.0
    for epochs in split_into_stages(config, progress.epoch):
        active_count = count_active_levels(config, epochs[0])
        train_loader = make_train_loader(config, train_paths, active_count, device)
        loading, batches = time_loading(train_loader, config.num_workers)
        settings = step_settings(config, active_count, epochs[0], device)
        training = time_steps(networks, optimizers, batches, settings, device, stop)
        validating = time_validation(networks, config, valid_paths, active_count, device)
        raise_if_stopped(gather(stop.number))
        # Workers have cores of their own only where a GPU does the training.
        is_parallel = device.type == "cuda" and config.num_workers > 0
        per_photo = max(loading, training) if is_parallel else loading + training
        per_photo /= rank_count()
        per_epoch = per_photo * photo_total + validating
        seconds += len(epochs) * per_epoch
        if epochs[0] == progress.epoch:
            seconds -= per_photo * progress.photo_count
        height, width = stage_image_size(config, active_count)
        span = f"s {epochs[0]} to {epochs[-1]}" if len(epochs) > 1 else f" {epochs[0]}"
        tell(
            f"epoch{span}: levels {active_count}, {height} x {width} px, "
            f"adversarial {'on' if settings['is_adversarial'] else 'off'}, photos per second: "
            f"loading {rank_count() / loading:.1f}, training {rank_count() / training:.1f}; "
            f"an epoch {format_time(per_epoch)}"
        )
    tell(f"in all about {format_time(seconds)}; memory {describe_memory(device)}")


def tell(line: str) -> None:
    """Print in one process of several."""
    if rank() == 0:
        say(line)


def until_stopped(paths: Iterable[Path], stop: StopSignal) -> Iterator[Path]:
    """Pass the paths on until a signal comes."""
    return itertools.takewhile(lambda _: not stop.number, paths)


def raise_if_stopped(numbers: Iterable[int]) -> None:
    """Raise Interrupted in every process once a signal, whose number it is, came to one."""
    stop_number = max(numbers)
    if stop_number:
        raise Interrupted(stop_number, "stopped")


def split_into_stages(config: TrainConfig, first_epoch: int) -> list[list[int]]:
    """The epochs from the first on, those together that train the same networks."""

    def trained(epoch: int) -> tuple[int, bool]:
        return count_active_levels(config, epoch), epoch >= config.begin_use_adv_loss_epoch

    epochs = range(first_epoch, config.epochs + 1)
    return [list(stage) for _, stage in itertools.groupby(epochs, trained)]


def time_loading(loader: DataLoader, worker_count: int) -> tuple[float, list[list[Tensor]]]:
    """Return seconds per photo, once all workers are at it, and the last batches."""

    def endless() -> Iterator[list[Tensor]]:
        for epoch in itertools.count(1):
            loader.sampler.epoch = epoch
            yield from loader

    batches, at_once = endless(), max(1, worker_count)
    for _ in range(at_once):  # which the workers began together
        next(batches)
    start, photo_count, kept = time.perf_counter(), 0, deque(maxlen=STEP_COUNT)
    for batch in itertools.islice(batches, at_once * math.ceil(STEP_COUNT / at_once)):
        photo_count += len(batch[1])
        kept.append(batch)
    return (time.perf_counter() - start) / photo_count, list(kept)


def time_steps(
    networks: Networks,
    optimizers: Optimizers,
    batches: Sequence[Sequence[Tensor]],
    settings: dict,
    device: torch.device,
    stop: StopSignal,
) -> float:
    """Train on the batches; returns seconds per photo."""
    networks.generator.train()
    photo_count = 0
    for index, batch in enumerate(batches):
        if index == 1:
            start = time.perf_counter()
        abnormal, normal = (to_floats(images, device) for images in batch)
        train_step(networks, optimizers, abnormal, normal, **settings)
        photo_count += len(normal) if index else 0
        raise_if_stopped(gather(stop.number))
    return (time.perf_counter() - start) / photo_count


def time_validation(
    networks: Networks,
    config: TrainConfig,
    paths: Sequence[Path],
    active_count: int,
    device: torch.device,
) -> float:
    """Validate a photo in each process, twice; returns seconds for all of them."""
    image_size = stage_image_size(config, active_count)
    dataset = ValidationDataset(paths[:1], image_size, config.brightness_pull)
    for _ in range(2):  # the first one, which is slower, does not count
        start = time.perf_counter()
        validate(networks.average, [dataset[0]], active_count, device)
    return (time.perf_counter() - start) * len(paths) / rank_count()


def format_time(seconds: float) -> str:
    """Such as "2 h 05 min", "3 min" or "40 s"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def describe_memory(device: torch.device) -> str:
    """Peak of this process so far."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_reserved(device) / 1e9:.1f} GB of the GPU"
    try:
        import resource
    except ImportError:  # on Windows
        return "not known here"
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB"

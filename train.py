"""Train the exposure correction network on a folder of well-exposed photos.

    python train.py [--conf conf.json]

The same command again goes on where an interrupted run stopped.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from checkpoint import CheckpointError, save_weights
from config import ConfigError, TrainConfig, load_config
from dataset import to_floats
from distributed import gather, launch, rank, rank_count
from interruption import Interrupted, StopSignal
from loader import (
    count_active_levels,
    find_train_and_valid_photos,
    make_train_loader,
    make_valid_loader,
    stage_image_size,
)
from photo import PhotoError
from report import RunLog, describe_epoch, save_comparison
from run_state import (
    Networks,
    Optimizers,
    Progress,
    make_networks,
    make_optimizers,
    restore_run,
    save_run,
    set_rates,
)
from step import NonFiniteLossError, has_fast_half_precision, train_step
from utils import remove_temporaries
from validation import mean, spoilt_psnr, validate

BEST, LAST = "best.pth", "last.pth"  # weights to predict with; checkpoint to go on from


def train_one_epoch(
    networks: Networks,
    optimizers: Optimizers,
    loader: DataLoader,
    config: TrainConfig,
    progress: Progress,
    active_count: int,
    stop: StopSignal,
) -> dict[str, float]:
    """Train from where `progress` stands to the end of its epoch; returns the mean losses.

    Raises:
        Interrupted: a signal came; the checkpoint is written.
    """
    device = next(networks.generator.parameters()).device
    is_mixed_precision = config.mixed_precision == "auto" and has_fast_half_precision(device)
    is_adversarial = progress.epoch >= config.begin_use_adv_loss_epoch
    loader.sampler.epoch, loader.sampler.start = progress.epoch, progress.photo_count
    photo_total = loader.sampler.total
    if progress.photo_count and progress.photo_total != photo_total:
        raise CheckpointError(
            f"train_data_dir: {photo_total} photos an epoch, but {progress.photo_total} when the "
            f"run was interrupted; restore {config.train_data_dir} (and the number of GPUs), or "
            "choose another model_save_dir"
        )
    progress.photo_total = photo_total
    networks.generator.train()
    last_saved = last_step = time.monotonic()
    bar = tqdm(
        total=photo_total,
        initial=progress.photo_count,
        desc=f"epoch {progress.epoch}/{config.epochs}",
        unit="photo",
        leave=False,
        disable=rank() > 0 or None,  # None: where the output is no terminal
    )
    with bar:
        for abnormal, normal in loader:
            epochs_done = progress.epoch - 1 + progress.photo_count / photo_total
            set_rates(optimizers, config, epochs_done)
            try:
                losses = train_step(
                    networks,
                    optimizers,
                    to_floats(abnormal, device),
                    to_floats(normal, device),
                    active_count=active_count,
                    is_adversarial=is_adversarial,
                    is_mixed_precision=is_mixed_precision,
                    ema_decay=config.ema_decay,
                    agreement_weight=config.agreement_weight,
                )
            except NonFiniteLossError as error:
                place = f"in epoch {progress.epoch} after {progress.photo_count} photos"
                raise NonFiniteLossError(f"{error} {place}") from None
            shares = gather((stop.number, losses))
            stop_number = max(number for number, _ in shares)
            losses = {name: mean(share[name] for _, share in shares) for name in losses}
            batch_size = len(normal) * rank_count()
            for name, loss in losses.items():
                total = progress.loss_sums.get(name, 0.0)
                progress.loss_sums[name] = total + loss * batch_size
            progress.photo_count += batch_size
            now = time.monotonic()
            progress.seconds += now - last_step
            last_step = now
            bar.update(batch_size)
            bar.set_postfix({name: f"{loss:.4f}" for name, loss in losses.items()})
            if stop_number or now - last_saved > 60 * config.checkpoint_minutes:
                save_run(Path(config.model_save_dir) / LAST, networks, optimizers, progress, config)
                last_saved = now
            if stop_number:
                gather(None)  # no process ends before the checkpoint is written
                done = f"stopped in epoch {progress.epoch} after {progress.photo_count} photos"
                raise Interrupted(stop_number, f"{done}; the same command goes on from there")
    return {name: total / photo_total for name, total in progress.loss_sums.items()}


def train(config: TrainConfig, device: torch.device, stop: StopSignal) -> None:
    """Run the recipe that `config` describes, or the rest of it.

    Raises:
        Interrupted: a signal came; the checkpoint is written.
        CheckpointError, ConfigError, NonFiniteLossError, OSError, PhotoError: with the fix.
    """
    if config.batch_size % rank_count():
        message = f"batch_size is {config.batch_size}; {rank_count()} processes cannot share it"
        raise ConfigError([f"{message} evenly: make it a multiple"])
    run_dir = Path(config.model_save_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"model_save_dir is {run_dir}: can't be made a folder ({error.strerror})"
        raise ConfigError([f"{message}; name another"]) from None
    if rank() == 0:
        remove_temporaries(run_dir)
    train_paths, valid_paths = find_train_and_valid_photos(config)
    networks = make_networks(config, device)
    optimizers = make_optimizers(networks, config)
    progress = restore_run(run_dir / LAST, networks, optimizers, config)
    log = RunLog(run_dir, progress.epoch)
    active_count = 0
    for epoch in range(progress.epoch, config.epochs + 1):
        if active_count != count_active_levels(config, epoch):
            active_count = count_active_levels(config, epoch)
            train_loader = make_train_loader(config, train_paths, active_count, device)
            valid_loader = make_valid_loader(config, valid_paths, active_count, device)
        losses = train_one_epoch(
            networks, optimizers, train_loader, config, progress, active_count, stop
        )
        scores, samples = validate(networks.average, valid_loader, active_count, device)
        is_comparable = progress.active_count > 0 and (
            stage_image_size(config, progress.active_count)
            == stage_image_size(config, active_count)
        )
        is_best = not is_comparable or spoilt_psnr(scores) > progress.best_psnr
        record = {
            "epoch": epoch,
            "active_levels": active_count,
            "seconds": round(progress.seconds, 1),
            "losses": losses,
            "valid": scores,
        }
        progress = Progress(
            epoch=epoch + 1,
            best_psnr=spoilt_psnr(scores) if is_best else progress.best_psnr,
            active_count=active_count,
        )
        if rank() == 0:
            if is_best:
                save_weights(run_dir / BEST, networks.average)
            save_comparison(run_dir / "comparison.png", samples)
            log.add(record)
            print(describe_epoch(record, config.epochs), flush=True)
        save_run(run_dir / LAST, networks, optimizers, progress, config)
    if rank() == 0:
        print(f"done: the best weights are in {run_dir / BEST}")


def run(device: torch.device, config: TrainConfig) -> int:
    """Train, in this process, and return its exit code."""
    if device.type == "cpu":
        torch.set_flush_denormal(True)  # denormal numbers are many times slower there
        if rank() == 0:
            print("no CUDA GPU is visible: training on the CPU")
    stop = StopSignal()
    try:
        train(config, device, stop)
    except Interrupted as interruption:
        message, exit_code = str(interruption), interruption.exit_code
    except NonFiniteLossError as error:
        fix = "lower init_lr and start anew, with another model_save_dir"
        message, exit_code = f"{error}; {fix}", 1
    except torch.OutOfMemoryError:
        message, exit_code = "the GPU's memory is full; lower batch_size or image_size", 1
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # the CPU's kind of OutOfMemoryError
            print("the memory is full; lower batch_size or image_size", file=sys.stderr)
            return 1
        if not stop.number:
            raise
        # The signal went to the loader's workers, too, whose death is reported here.
        message = "stopped; the same command goes on from the last checkpoint"
        exit_code = 128 + stop.number
    except PhotoError as error:
        # From a loader's worker it comes with a traceback, the message last.
        message, exit_code = str(error).splitlines()[-1].rpartition("PhotoError: ")[2], 2
    except (CheckpointError, ConfigError, OSError) as error:
        message, exit_code = str(error), 2
    else:
        return 0
    if rank() == 0 or exit_code < 128:  # a fault may be of one process alone
        print(message, file=sys.stderr)
    return exit_code


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conf", default="conf.json", help="config file (default: conf.json)")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.conf, TrainConfig)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    # Before CUDA wakes, which is when it looks at this.
    os.environ["CUDA_VISIBLE_DEVICES"] = config.CUDA_VISIBLE_DEVICES
    return launch(run, config)


if __name__ == "__main__":
    sys.exit(main())

"""Train the exposure correction network on a folder of well-exposed photos.

    python train.py [--conf conf.json] [--dry-run]

The same command again goes on where an interrupted run stopped.
"""

import argparse
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from interruption import Interrupted, StopSignal, heed_signals, say

if __name__ == "__main__":
    heed_signals(signal.SIG_DFL)  # quietly, while PyTorch is imported: there is nothing to save

import cv2
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from checkpoint import CheckpointError, save_weights
from config import ConfigError, TrainConfig, load_config
from dataset import to_floats
from distributed import check_gpus, gather, launch, rank, rank_count
from loader import (
    check_shares,
    count_epoch_photos,
    ending_workers,
    find_train_and_valid_photos,
    make_train_loader,
    make_valid_loader,
)
from photo import PhotoError, one_line
from rehearsal import rehearse
from report import RunLog, describe_epoch, make_writer, save_comparison
from run_dir import BEST, COMPARISONS, run_dir_of_our_own
from run_state import (
    LAST,
    Networks,
    Optimizers,
    Progress,
    freeze_levels,
    make_networks,
    make_optimizers,
    restore_run,
    save_run,
    set_rates,
)
from stages import count_active_levels, stage_image_size
from step import NonFiniteLossError, step_settings, train_step
from utils import describe_os_error, give_back_memory, keep_freed_memory
from validation import mean, spoilt_psnr, validate


def train_one_epoch(
    networks: Networks,
    optimizers: Optimizers,
    loader: DataLoader,
    config: TrainConfig,
    progress: Progress,
    log: RunLog,
    stop: StopSignal,
) -> dict[str, float]:
    """Train from where `progress` stands to the end of its epoch; returns the mean losses.

    Raises:
        Interrupted: a signal came; the checkpoint is written.
    """
    device = next(networks.generator.parameters()).device
    active_count = count_active_levels(config, progress.epoch)
    settings = step_settings(config, active_count, progress.epoch, device)
    loader.sampler.epoch, loader.sampler.start = progress.epoch, progress.photo_count
    progress.photo_total = photo_total = loader.sampler.total
    networks.generator.train()
    freeze_levels(networks, settings["frozen_count"])
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
            abnormal, normal = to_floats(abnormal, device), to_floats(normal, device)
            try:
                losses = train_step(networks, optimizers, abnormal, normal, **settings)
            except NonFiniteLossError as error:
                step = progress.step_count + 1
                place = f"in epoch {progress.epoch} after {progress.photo_count} photos"
                raise NonFiniteLossError(f"{error} {place}, step {step} of the run") from None
            shares = gather((stop.number, losses))
            stop_number = max(number for number, _ in shares)
            losses = {name: mean(share[name] for _, share in shares) for name in losses}
            batch_size = len(normal) * rank_count()
            for name, loss in losses.items():
                total = progress.loss_sums.get(name, 0.0)
                progress.loss_sums[name] = total + loss * batch_size
            progress.photo_count += batch_size
            progress.step_count += 1
            now = time.monotonic()
            progress.seconds += now - last_step
            last_step = now
            bar.update(batch_size)
            bar.set_postfix({name: f"{loss:.4f}" for name, loss in losses.items()})
            if config.log_steps and progress.step_count % config.log_steps == 0 and rank() == 0:
                log.add(make_step_record(progress, losses))
            is_over = progress.photo_count == photo_total  # validation takes its time, too
            if stop_number or is_over or now - last_saved > 60 * config.checkpoint_minutes:
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
        CheckpointError, ConfigError, NonFiniteLossError, PhotoError: with the fix.
        OSError: of a file that can't be written, or with the fix.
    """
    run_dir = Path(config.model_save_dir)
    train_paths, valid_paths = find_train_and_valid_photos(config)
    networks = make_networks(config, device, (run_dir / LAST).exists())
    optimizers = make_optimizers(networks, config)
    photo_total = count_epoch_photos(len(train_paths))
    progress = restore_run(run_dir / LAST, networks, optimizers, config, photo_total)
    has_writer = config.tensorboard and rank() == 0
    writer = make_writer(run_dir, progress.step_count) if has_writer else None
    log = RunLog(run_dir, progress.epoch, progress.photo_count, writer)
    active_count = 0
    for epoch in range(progress.epoch, config.epochs + 1):
        if active_count != count_active_levels(config, epoch):
            active_count = count_active_levels(config, epoch)
            train_loader = make_train_loader(config, train_paths, active_count, device)
            valid_loader = make_valid_loader(config, valid_paths, active_count, device)
        give_back_memory()  # or new processes that load photos would share it, page by page
        losses = train_one_epoch(networks, optimizers, train_loader, config, progress, log, stop)
        give_back_memory()
        scores, samples = validate(networks.average, valid_loader, active_count, device)
        is_comparable = progress.active_count > 0 and (
            stage_image_size(config, progress.active_count)
            == stage_image_size(config, active_count)
        )
        is_best = not is_comparable or spoilt_psnr(scores) > progress.best_psnr
        record = {
            "epoch": epoch,
            "step": progress.step_count,
            "active_levels": active_count,
            "seconds": round(progress.seconds, 1),
            "losses": losses,
            "valid": scores,
        }
        progress = Progress(
            epoch=epoch + 1,
            best_psnr=spoilt_psnr(scores) if is_best else progress.best_psnr,
            active_count=active_count,
            step_count=progress.step_count,
        )
        if rank() == 0:
            if is_best:
                save_weights(run_dir / BEST, networks.average)
            save_comparison(run_dir / COMPARISONS / f"epoch_{epoch:03}.png", samples)
            log.add(record)
        save_run(run_dir / LAST, networks, optimizers, progress, config)
        if rank() == 0:
            say(describe_epoch(record, config.epochs))
        stop_number = max(gather(stop.number))  # none ends before the checkpoint is written
        if stop_number and epoch < config.epochs:
            done = f"stopped after epoch {epoch}"
            raise Interrupted(stop_number, f"{done}; the same command goes on from there")
    if rank() == 0:
        say(f"done: the best weights are in {run_dir / BEST}")


def make_deterministic() -> None:
    """Have CUDA compute the same bits every time, with a warning for each kernel that can't."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # before cuBLAS wakes
    torch.use_deterministic_algorithms(True, warn_only=True)


def make_step_record(progress: Progress, losses: dict[str, float]) -> dict[str, Any]:
    """The line of log.jsonl for the step that is just done."""
    return {
        "epoch": progress.epoch,
        "step": progress.step_count,
        "photos": progress.photo_count,
        "seconds": round(progress.seconds, 1),
        "losses": losses,
    }


def lower_sizes(config: TrainConfig) -> str:
    """What to do where memory is short."""
    size, run_dir = list(config.image_size), Path(config.model_save_dir)
    fix = f"lower batch_size, which is {config.batch_size}, or image_size, which is {size}"
    if (run_dir / LAST).exists():  # which holds for its own sizes
        fix += ", and begin anew in another model_save_dir"
    if (run_dir / BEST).exists():
        fix += f", with pretrained_model {run_dir / BEST}"
    return fix


def format_warning(message: Warning | str, *_: Any) -> str:
    """One line, as for errors: whoever trains has no use for the line of code behind a warning."""
    return f"warning: {message}\n"


def run(device: torch.device, config: TrainConfig, is_rehearsal: bool) -> int:
    """Train, in this process, or rehearse it; returns the exit code."""
    warnings.formatwarning = format_warning
    keep_freed_memory()
    if device.type == "cpu":
        torch.set_flush_denormal(True)  # denormal numbers are many times slower there
        if rank() == 0:
            say("no CUDA GPU is visible: training on the CPU")
    cv2.setNumThreads(1)  # forked beside a pool of OpenCV's threads, workers would hang
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.deterministic
        if config.deterministic:
            make_deterministic()
    stop = StopSignal()
    try:
        check_shares(config)
        with ending_workers():
            if is_rehearsal:
                rehearse(config, device, stop)
            else:
                with run_dir_of_our_own(Path(config.model_save_dir)):
                    train(config, device, stop)
    except Interrupted as interruption:
        message, exit_code = str(interruption), interruption.exit_code
    except NonFiniteLossError as error:
        is_judged = any(word in str(error) for word in ("adversarial", "discriminator"))
        key = "discriminator_init_lr" if is_judged else "init_lr"
        fix = f"lower {key}, which is {getattr(config, key):g}, and start anew"
        message, exit_code = f"{error}; {fix}, with another model_save_dir", 1
    except torch.OutOfMemoryError:
        message, exit_code = f"the GPU's memory is full; {lower_sizes(config)}", 1
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # the CPU's kind of OutOfMemoryError
            message, exit_code = f"the memory is full; {lower_sizes(config)}", 1
        elif "DataLoader worker (pid" in str(error) and not stop.number:  # it was killed
            reason = one_line(error)
            fix = f"lower num_workers, which is {config.num_workers}, or {lower_sizes(config)}"
            message, exit_code = f"{reason}; {fix}", 1
        elif stop.number:
            # The signal went to all processes, also to a worker that could not ignore it yet.
            message = "stopped; the same command goes on from the last checkpoint"
            exit_code = 128 + stop.number
        else:
            raise
    except PhotoError as error:
        # From a loader's worker it comes with a traceback, the message last.
        message, exit_code = str(error).splitlines()[-1].rpartition("PhotoError: ")[2], 2
    except OSError as error:
        message, exit_code = describe_os_error(error), 2
    except (CheckpointError, ConfigError) as error:
        message, exit_code = str(error), 2
    else:
        return 0
    if rank() == 0 or exit_code < 128:  # a fault may be of one process alone
        say(message, sys.stderr)
    return exit_code


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conf", default="conf.json", help="config file (default: conf.json)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check config and photos, take a few steps, estimate time and memory; write nothing",
    )
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.conf, TrainConfig)
        # Before CUDA wakes, which is when it looks at this.
        os.environ["CUDA_VISIBLE_DEVICES"] = config.CUDA_VISIBLE_DEVICES
        check_gpus(config.CUDA_VISIBLE_DEVICES)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return launch(run, config, options.dry_run)


if __name__ == "__main__":
    sys.exit(main())

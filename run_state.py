"""A training run: its networks, optimizers and progress, made, saved and restored."""

import copy
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from checkpoint import CheckpointError, load_checkpoint, load_weights, save_checkpoint
from config import ConfigError, TrainConfig
from distributed import gather, rank, share_batch_norms, share_weights
from model import Discriminator, ExposureCorrectionNet
from stages import last_learning_epoch
from utils import keep_copy

# Where and how a run computes, saves and logs may change when it goes on; what it computes not.
FREE_KEYS = {
    "CUDA_VISIBLE_DEVICES",
    "num_workers",
    "checkpoint_minutes",
    "model_save_dir",
    "deterministic",
    "compile",
    "log_steps",
    "tensorboard",
}
LAST, PREVIOUS = "last.pth", "previous.pth"  # the checkpoint to go on from, the one before


@dataclass
class Networks:
    """The network that learns, its running average, which is validated and saved, and its judge."""

    generator: ExposureCorrectionNet
    average: ExposureCorrectionNet
    discriminator: Discriminator


@dataclass
class Optimizers:
    generator: torch.optim.Optimizer
    discriminator: torch.optim.Optimizer


@dataclass
class Progress:
    """How far a run has come; all of it is in the checkpoint.

    Attributes:
        epoch: the epoch under way, from 1.
        photo_count: photos of this epoch that are done.
        photo_total: photos of an epoch; 0: not known yet.
        loss_sums: of those photos, by name.
        best_psnr: in dB, of the epochs that saw photos of the present size; others do not
            compare.
        active_count: levels at work in the epoch before; 0: none yet.
        seconds: training time of this epoch.
        step_count: steps of all epochs.
    """

    epoch: int = 1
    photo_count: int = 0
    photo_total: int = 0
    loss_sums: dict[str, float] = field(default_factory=dict)
    best_psnr: float = -math.inf
    active_count: int = 0
    seconds: float = 0.0
    step_count: int = 0


def make_networks(config: TrainConfig, device: torch.device, is_resumed: bool = False) -> Networks:
    """Make the networks, untrained or from `pretrained_model`, which a resumed run leaves alone.

    Raises:
        FileNotFoundError, CheckpointError: there are no such weights, or of other architecture.
    """
    torch.manual_seed(config.seed)
    generator = ExposureCorrectionNet(
        config.layer_count_of_every_unet,
        config.first_layer_out_channels_of_every_unet,
        config.is_group_norm_of_every_unet,
        config.has_gain,
        config.padding_mode_of_every_unet,
    )
    if config.pretrained_model and not is_resumed:
        pretrained = load_weights(config.pretrained_model)
        if pretrained.architecture != generator.architecture:
            changes = ", ".join(tell_difference(generator.architecture, pretrained.architecture))
            raise CheckpointError(
                f"pretrained_model: {config.pretrained_model} is another network; set {changes}"
            )
        generator = pretrained
    generator.to(device)
    share_weights(generator)

    average = copy.deepcopy(generator).eval().requires_grad_(False)
    discriminator = Discriminator(config.discriminator_image_size).to(device)
    share_batch_norms(discriminator)
    if config.compile and device.type == "cuda":
        generator.compile()  # at its first call
        discriminator.compile()
    return Networks(generator, average, discriminator)


def tell_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the keys of conf.json, and their values, that would make our architecture theirs."""
    keys = {
        "layer_counts": "layer_count_of_every_unet",
        "first_channels": "first_layer_out_channels_of_every_unet",
        "has_group_norm": "is_group_norm_of_every_unet",
        "has_gain": "has_gain",
        "padding_modes": "padding_mode_of_every_unet",
    }
    changes = [
        f"{key} to {json.dumps(theirs[name])}"
        for name, key in keys.items()
        if theirs[name] != ours[name]
    ]
    level_count = len(theirs["layer_counts"])
    if level_count != len(ours["layer_counts"]):
        changes.insert(0, f"laplacian_level_count to {level_count}")
    return changes


def level_weights(network: ExposureCorrectionNet) -> list[list[torch.nn.Parameter]]:
    """The weights of every level, coarsest first, those that enlarge the coarser one included."""
    levels = [list(sub_network.parameters()) for sub_network in network.sub_networks]
    for weights, upsampling in zip(levels[1:], network.upsamplings, strict=True):
        weights += upsampling.parameters()
    return levels


def paired_levels(networks: Networks) -> list[tuple[list[torch.nn.Parameter], ...]]:
    """The weights of every level of the network that learns, and those of its average."""
    pair = (networks.generator, networks.average)
    return list(zip(*map(level_weights, pair), strict=True))


@torch.no_grad()
def update_average(networks: Networks, optimizer: torch.optim.Optimizer, ema_decay: float) -> None:
    """Move the running average towards the weights, after a step of the generator's optimizer.

    A level's first steps count more, whenever it joins: its untrained weights are soon
    forgotten. Levels that do not learn stay as they are.
    """
    for weights, averaged in paired_levels(networks):
        if not weights[0].requires_grad:
            continue
        state = optimizer.state.get(weights[0])
        step_count = int(state["step"]) if state else 0
        decay = min(ema_decay, (1 + step_count) / (10 + step_count))
        torch._foreach_lerp_(averaged, weights, 1 - decay)


@torch.no_grad()
def freeze_levels(networks: Networks, frozen_count: int) -> None:
    """Give the coarsest levels their running average, which finer ones are then trained for."""
    for weights, averaged in paired_levels(networks)[:frozen_count]:
        torch._foreach_copy_(weights, averaged)


def make_optimizers(networks: Networks, config: TrainConfig) -> Optimizers:
    """Make Adam for both networks; the generator's has one group of weights per level."""
    return Optimizers(
        torch.optim.Adam(
            [{"params": weights} for weights in level_weights(networks.generator)],
            config.init_lr,
            weight_decay=config.weight_decay,
            fused=True,
        ),
        torch.optim.Adam(
            networks.discriminator.parameters(),
            config.discriminator_init_lr,
            weight_decay=config.discriminator_weight_decay,
            fused=True,
        ),
    )


def cosine_rate(init_lr: float, final_lr: float, share: float) -> float:
    """Learning rate after a share in [0, 1] of the training."""
    return final_lr + (init_lr - final_lr) * (1 + math.cos(math.pi * share)) / 2


def set_rates(optimizers: Optimizers, config: TrainConfig, epochs_done: float) -> None:
    """Set all learning rates; each level and the discriminator has its own cosine.

    It runs from the epoch in which training of the level begins to the end of its last one.

    Args:
        epochs_done: epochs that are over, and the share of the one under way.
    """

    def rate(init_lr: float, final_lr: float, begin_epoch: int, end_epoch: int) -> float:
        before = begin_epoch - 1
        share = (epochs_done - before) / max(1, end_epoch - before)
        return cosine_rate(init_lr, final_lr, min(max(share, 0.0), 1.0))

    groups = optimizers.generator.param_groups
    begin_epochs = config.begin_use_level_epoch or [1] * len(groups)
    for group, begin_epoch in zip(groups, begin_epochs, strict=True):
        if begin_epoch is not None:
            end_epoch = last_learning_epoch(config, begin_epoch)
            group["lr"] = rate(config.init_lr, config.final_lr, begin_epoch, end_epoch)
    for group in optimizers.discriminator.param_groups:
        group["lr"] = rate(
            config.discriminator_init_lr,
            config.discriminator_final_lr,
            config.begin_use_adv_loss_epoch,
            config.epochs,
        )


def save_run(
    path: Path,
    networks: Networks,
    optimizers: Optimizers,
    progress: Progress,
    config: TrainConfig,
) -> None:
    """Write a checkpoint that `restore_run` goes on from; of several processes, one does.

    The one before is kept beside it.
    """
    if rank() > 0:
        return
    state = {
        "config": config.to_dict(),
        "progress": vars(progress),
        "networks": {name: network.state_dict() for name, network in vars(networks).items()},
        "optimizers": {name: opt.state_dict() for name, opt in vars(optimizers).items()},
    }
    keep_copy(path, path.with_name(PREVIOUS))
    save_checkpoint(path, state)


def restore_run(
    path: Path, networks: Networks, optimizers: Optimizers, config: TrainConfig, photo_total: int
) -> Progress:
    """Load a checkpoint of the same config, if there is one, into networks and optimizers.

    Raises:
        CheckpointError: the file is damaged, belongs to another config, or differs by machine; or
            it is of the midst of an epoch of other than `photo_total` photos; or it is missing
            where the one before is there, which a run from the start would replace.
    """
    if path.with_name(PREVIOUS).exists() and not path.exists():
        raise CheckpointError(f"{path} is missing; {tell_fix(path)}")
    progress = _restore(path, networks, optimizers, config) if path.exists() else Progress()
    places = gather((progress.epoch, progress.photo_count))
    if len(set(places)) > 1:
        fix = "set model_save_dir to a folder that all machines share"
        raise CheckpointError(f"{path} is not the same for all processes; {fix}")
    if progress.photo_count and progress.photo_total != photo_total:
        raise CheckpointError(
            f"train_data_dir: {photo_total} photos an epoch, but {progress.photo_total} when the "
            f"run was interrupted; restore {config.train_data_dir} (and the number of GPUs), or "
            "choose another model_save_dir"
        )
    return progress


def tell_fix(path: Path) -> str:
    """What to do about a checkpoint that can't be gone on from."""
    previous, fix = path.with_name(PREVIOUS), "choose another model_save_dir, to begin anew"
    return f"put {previous} in its place, or {fix}" if previous.exists() else fix


def _restore(
    path: Path, networks: Networks, optimizers: Optimizers, config: TrainConfig
) -> Progress:
    fix = tell_fix(path)
    try:
        state = load_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {fix}") from error
    try:
        ours, theirs = config.to_dict(), TrainConfig(**state["config"]).to_dict()
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path} is no checkpoint of this version; {fix}") from error
    different = [
        f"{key} is {ours[key]!r} here and {theirs[key]!r} there"
        for key in ours
        if key not in FREE_KEYS and ours[key] != theirs[key]
    ]
    if different:
        raise CheckpointError(
            f"{path} belongs to another config: {'; '.join(different)}. "
            "Change them back, or choose another model_save_dir"
        )
    try:
        for name, network in vars(networks).items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in vars(optimizers).items():
            optimizer.load_state_dict(state["optimizers"][name])
        return Progress(**state["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} lacks a part of a run; {fix}") from error

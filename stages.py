"""Training from coarse to fine: what each epoch trains, and on what."""

from config import TrainConfig


def count_active_levels(config: TrainConfig, epoch: int) -> int:
    """How many of the coarsest sub-networks are run in an epoch (from 1)."""
    if config.begin_use_level_epoch is None:
        return config.laplacian_level_count
    return sum(begin is not None and begin <= epoch for begin in config.begin_use_level_epoch)


def count_frozen_levels(config: TrainConfig, active_count: int) -> int:
    """How many of the active levels, coarsest first, stay as they are.

    With `is_first_stage_frozen`, those of the first stage, once finer ones have joined.
    """
    first_count = count_active_levels(config, 1)
    return first_count if config.is_first_stage_frozen and active_count > first_count else 0


def last_learning_epoch(config: TrainConfig, begin_epoch: int) -> int:
    """The last epoch in which a level learns that joins in `begin_epoch`."""
    if config.is_first_stage_frozen and begin_epoch == 1:
        later = [epoch for epoch in config.begin_use_level_epoch or () if epoch and epoch > 1]
        if later:
            return min(later) - 1
    return config.epochs


def stage_image_size(config: TrainConfig, active_count: int) -> tuple[int, int]:
    """Size in px at which the network sees photos while only coarse levels are active.

    One level finer than the finest of them, as `ExposureCorrectionNet.forward` wants.
    """
    halvings = max(0, config.laplacian_level_count - active_count - 1)
    height, width = (side >> halvings for side in config.image_size)
    return height, width


def count_versions(config: TrainConfig, active_count: int) -> int:
    """How many spoilt versions of a photo are seen: two, to agree, until finer levels join.

    Exposure is found by the first levels, and two versions double the cost of the finer ones.
    """
    is_first_stage = active_count == count_active_levels(config, 1)
    return 2 if config.agreement_weight and is_first_stage else 1

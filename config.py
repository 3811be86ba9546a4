"""The two JSON files that people edit: what each key means, and what it may hold."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from photo_formats import OUTPUT_FORMATS
from rules import (
    Relation,
    boolean,
    either,
    file_path,
    find_faults,
    gpu_list,
    image_side_pair,
    jitter,
    list_of,
    not_above,
    number,
    one_of,
    one_per_level,
    optional,
    or_null,
    pair,
    required,
    show,
    whole,
)

LEVEL_LISTS = ("layer_count_of_every_unet", "first_layer_out_channels_of_every_unet")


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is a folder, or somewhere in it, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def is_rising_from_one(epochs: Sequence[int | None]) -> bool:
    """Whether epochs start with 1 and never fall, None counting as later than all others."""
    ranks = [math.inf if epoch is None else epoch for epoch in epochs]
    return ranks[0] == 1 and ranks == sorted(ranks)


class ConfigError(ValueError):
    """Everything that is wrong with a config; `str` gives one line per fault.

    Attributes:
        lines: the faults, each with key, value, what is allowed, and the fix.
    """

    def __init__(self, lines: list[str]):
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of both configs: checks itself when made, in Python as well as from a file."""

    RELATIONS: ClassVar[tuple[Relation, ...]] = ()

    def __post_init__(self):
        lines = find_faults(fields(self), self.RELATIONS, vars(self))
        if lines:
            raise ConfigError(lines)
        for key in fields(self):
            value = key.metadata["rule"].read(getattr(self, key.name))
            object.__setattr__(self, key.name, value)  # frozen from here on

    def to_dict(self) -> dict[str, Any]:
        """Return the config as plain JSON types (lists for tuples), fit for `load_config`."""
        values = ((key.name, getattr(self, key.name)) for key in fields(self))
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """conf.json. Paths are relative to the folder that the script is started in.

    Raises:
        ConfigError: naming every value that is not allowed.
    """

    # size of the training crops, (height, width) in px; while coarse levels are trained alone, they
    # are seen at half of it, a quarter, and so on
    image_size: tuple[int, int] = required(image_side_pair(1), [512, 512])
    # size at which the discriminator sees photos, (height, width) in px; one number: a square
    discriminator_image_size: tuple[int, int] = required(
        either(whole(128, 65536), image_side_pair(128), lambda side: (side, side)), [256, 256]
    )
    # folders of well-exposed photos, searched with their subfolders
    train_data_dir: str = required(file_path(), "data/train")
    valid_data_dir: str = required(file_path(), "data/valid")
    # photos per step, over all GPUs together
    batch_size: int = required(whole(1), 16)
    # learning rate at the start and end of a cosine; each level has its own, while it learns
    init_lr: float = required(number(0, above=True), 1e-3)
    final_lr: float = required(number(0), 1e-6)
    # L2 penalty on the weights of the network, and of the discriminator
    weight_decay: float = required(number(0), 0)
    discriminator_weight_decay: float = required(number(0), 0)
    # the discriminator's learning rate at the start and end of a cosine of its own
    discriminator_init_lr: float = required(number(0, above=True), 1e-4)
    discriminator_final_lr: float = required(number(0), 1e-6)
    # passes over the training photos
    epochs: int = required(whole(1), 64)
    # first epoch (from 1) with the adversarial loss; greater than epochs: never
    begin_use_adv_loss_epoch: int = required(whole(1), 64)
    # GPUs to train on, such as "0" or "0,1"; "": the CPU
    CUDA_VISIBLE_DEVICES: str = required(gpu_list(), "0")
    # processes that load photos, per GPU; 0: the training process itself
    num_workers: int = required(whole(0, 1024), 1)
    # folder for weights, checkpoint, log and pictures of this run
    model_save_dir: str = required(file_path(), "runs/default")
    # levels of the Laplacian pyramid, and sub-networks
    laplacian_level_count: int = required(whole(1, 8), 4)
    # encoder stages of every sub-network, coarsest level first
    layer_count_of_every_unet: tuple[int, ...] = required(list_of(whole(1, 8)), [4, 3, 3, 3])
    # channels of every sub-network's first stage, coarsest level first
    first_layer_out_channels_of_every_unet: tuple[int, ...] = required(
        list_of(whole(1, 4096)), [24, 24, 24, 16]
    )
    # torchvision's ColorJitter: a strength, or (min, max) of the factor
    color_jitter_brightness: float | tuple[float, float] = required(jitter(), [0.3, 2.0])
    color_jitter_saturation: float | tuple[float, float] = required(jitter(), 0.2)
    color_jitter_contrast: float | tuple[float, float] = required(jitter(), 0.2)

    # everything random derives from it
    seed: int = optional(whole(0, 2**32 - 1), 0)
    # weights to start from; "": from scratch
    pretrained_model: str = optional(file_path(can_be_empty=True), "")
    # epoch (from 1) from which each level is trained, coarsest first, None in it: never; None: all
    # from the first
    begin_use_level_epoch: tuple[int | None, ...] | None = optional(
        or_null(list_of(or_null(whole(1)))), None
    )
    # levels that are trained from the first epoch stay as they are once finer ones join
    is_first_stage_frozen: bool = optional(boolean(), False)
    # range of exposure shifts in linear light, in stops; one number x: (-x, x)
    exposure_shift_ev: tuple[float, float] = optional(
        either(
            number(0, 16),
            pair("[min, max]", number(-16, 16), is_rising=True),
            lambda stops: (-stops, stops),
        ),
        0,
    )
    # share of the spoilt photos that get such a shift instead of ColorJitter, 0..1
    exposure_shift_share: float = optional(number(0, 1), 0.0)
    # share of all photos that are left as they are, 0..1
    untouched_share: float = optional(number(0, 1), 0.0)
    # random re-toning after the exposure change, 0 (none) .. 1
    retone_strength: float = optional(number(0, 1), 0.0)
    # how far the normal photos' brightness is drawn to a typical one and their contrast reduced
    brightness_pull: float = optional(number(0, 1), 0.0)
    # share of the spoilt photos whose white areas hold detail that exposure shifts show, 0..1
    hidden_light_share: float = optional(number(0, 1), 0.0)
    # weight of the agreement loss between two spoilt versions of every photo, until finer levels
    # join; 0: one version
    agreement_weight: float = optional(number(0, 100), 0.0)
    # decay per step of the running average of the weights that is validated and saved; 0: off
    ema_decay: float = optional(number(0, 1, below=True), 0.0)
    # group normalisation in every sub-network, coarsest level first; None: nowhere
    is_group_norm_of_every_unet: tuple[bool, ...] | None = optional(
        or_null(list_of(boolean())), None
    )
    # what convolutions of every sub-network see beyond the border; None: zeros everywhere
    padding_mode_of_every_unet: tuple[str, ...] | None = optional(
        or_null(list_of(one_of("zeros", "replicate"))), None
    )
    # sub-networks predict a gain and an offset per pixel (see model.py); false: as the paper
    has_gain: bool = optional(boolean(), False)
    # range of the crops' sides, as shares of the largest crop that fits into the photo, 0..1
    crop_scale: tuple[float, float] = optional(
        pair("[min, max]", number(0, 1, above=True), is_rising=True), (1.0, 1.0)
    )
    # "auto": bfloat16 where the GPU or CPU is good at it; "off": float32
    mixed_precision: Literal["auto", "off"] = optional(one_of("auto", "off"), "auto")
    # on a GPU: kernels that repeat their results bit for bit, where PyTorch has them
    deterministic: bool = optional(boolean(), False)
    # on a GPU: networks run through torch.compile
    compile: bool = optional(boolean(), False)
    # log.jsonl gets a line every so many steps, besides that of each epoch; 0: none
    log_steps: int = optional(whole(0), 0)
    # write what log.jsonl gets for TensorBoard, too, which must be installed
    tensorboard: bool = optional(boolean(), False)
    # a checkpoint to resume from is written at least this often, in minutes
    checkpoint_minutes: float = optional(number(0, above=True), 10)

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        *map(one_per_level, LEVEL_LISTS),
        one_per_level("begin_use_level_epoch"),
        one_per_level("is_group_norm_of_every_unet"),
        one_per_level("padding_mode_of_every_unet"),
        not_above("final_lr", "init_lr"),
        not_above("discriminator_final_lr", "discriminator_init_lr"),
        Relation(
            ("begin_use_level_epoch",),
            lambda epochs: not epochs or is_rising_from_one(epochs),
            "begin_use_level_epoch starts with 1 and never falls, such as [1, 1, 10, 20], with "
            "null for the levels that are never trained, all at its end",
        ),
        Relation(
            ("begin_use_level_epoch", "epochs"),
            lambda begin_epochs, epochs: all(
                (begin or 1) <= epochs for begin in begin_epochs or ()
            ),
            "every level begins by the last epoch, or never (null); begin_use_level_epoch moves "
            "with epochs",
        ),
        Relation(
            ("image_size", "laplacian_level_count"),
            lambda size, level_count: min(size) >= 8 * 2 ** (level_count - 1),
            "sides of 8 px or more at the coarsest level, each finer one doubling them",
        ),
        Relation(
            ("batch_size", "CUDA_VISIBLE_DEVICES"),
            lambda batch_size, gpus: batch_size % (gpus.count(",") + 1) == 0,
            "batch_size is a multiple of the number of GPUs, which share it evenly",
        ),
        Relation(
            ("model_save_dir", "train_data_dir", "valid_data_dir"),
            lambda run_dir, *photo_dirs: not any(is_inside(run_dir, each) for each in photo_dirs),
            "model_save_dir lies outside the folders of photos, or runs would see their own",
        ),
        Relation(
            ("exposure_shift_share", "exposure_shift_ev"),
            lambda share, stops: share == 0 or stops not in (0, (0, 0), [0, 0]),
            "exposure_shift_share above 0 needs a range in exposure_shift_ev, such as 3",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Config):
    """predict_conf.json. Paths are relative to the folder that the script is started in.

    Raises:
        ConfigError: naming every value that is not allowed.
    """

    # photo, or folder of photos, to correct
    img_pth: str = required(file_path(), "test")
    # box that the photo is fitted into for the network, (height, width) in px
    image_size: tuple[int, int] = required(image_side_pair(1), [512, 512])
    # true: the network sees the photo at its own size, and image_size is unused
    use_orig_size: bool = required(boolean(), False)
    # folder for the corrected photos
    result_output_dir: str = required(file_path(), "output")
    # weights, as train.py saves them; also seen from the folder of the config
    pretrained_model: str = required(file_path(), "weights/exposure_correction.pth")
    # open a window with before and after
    show_result: bool = required(boolean(), False)

    # the architecture; None: as stored in the weights, otherwise it must agree with them
    laplacian_level_count: int | None = optional(or_null(whole(1, 8)), None)
    layer_count_of_every_unet: tuple[int, ...] | None = optional(
        or_null(list_of(whole(1, 8))), None
    )
    first_layer_out_channels_of_every_unet: tuple[int, ...] | None = optional(
        or_null(list_of(whole(1, 4096))), None
    )

    # finest level that the network corrects, 1: all; None: the coarsest, and a grid carries it on
    finest_level: int | None = optional(or_null(whole(1, 8)), None)
    # mean over mirror images; where much changes, of darker and brighter ones, but for level_scales
    self_ensemble: bool = optional(boolean(), True)
    # factor on each level of the photo's pyramid, coarsest first (the authors' S); None: none
    level_scales: tuple[float, ...] | None = optional(or_null(list_of(number(0, 10))), None)
    # 0: the photo as it is; 1: the correction; up to 2: overdone
    strength: float = optional(number(0, 2), 1.0)
    # a correction that changes the median luma by less (white = 1) is faded out, 0..1; not with
    # level_scales
    restraint: float = optional(number(0, 1), 0.11)
    # exposure fusion of photo and correction
    fuse: bool = optional(boolean(), False)
    # contrast stretch of the correction
    stretch: bool = optional(boolean(), False)
    # write a picture of before and after with histograms beside each result
    compare: bool = optional(boolean(), False)
    # None: the photo's own
    output_format: str | None = optional(or_null(one_of(*OUTPUT_FORMATS)), None)
    # of JPEG, WebP, AVIF and HEIC; None: 95, and lossless for a WebP that was
    quality: int | None = optional(or_null(whole(1, 100)), None)
    # a larger file is taken for a decompression bomb
    max_megapixels: float = optional(number(0, above=True), 300)
    # leave out photos whose result is there, with compare also the comparison
    skip_existing: bool = optional(boolean(), False)

    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        *map(one_per_level, LEVEL_LISTS),
        one_per_level("level_scales"),
        Relation(
            ("finest_level", "level_scales"),
            lambda finest_level, scales: scales is None or finest_level in (None, 1),
            "with level_scales, which are of all levels, finest_level is 1 or null",
        ),
    )


AnyConfig = TypeVar("AnyConfig", bound=Config)


def load_config(path: str | Path, config_class: type[AnyConfig]) -> AnyConfig:
    """Read a config from a JSON file.

    Args:
        path: the file, UTF-8.
        config_class: TrainConfig or PredictConfig.

    Raises:
        ConfigError: with a line for each fault: the file, the key, its value, what is allowed,
            the fix. Faults of several keys together come once each is sound by itself.
    """
    repeated: list[str] = []

    def note_repeated(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        repeated.extend(key for key in dict(items) if keys.count(key) > 1)
        return dict(items)

    try:
        # Windows editors put a byte order mark before UTF-8, which "utf-8-sig" skips
        source = Path(path).read_text(encoding="utf-8-sig")
        values = json.loads(source, object_pairs_hook=note_repeated)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ConfigError([f"{path}: {place}: not valid JSON ({error.msg}); mend it"]) from None
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; name one with --conf"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: can't be read ({error.strerror}); name another"]) from None
    except (ValueError, RecursionError) as error:  # bytes that aren't text; absurd numbers
        fix = "write JSON, in UTF-8"
        raise ConfigError([f"{path}: can't be read as JSON ({error}); {fix}"]) from None
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: holds {show(values)}; write an object: {{...}}"])

    lines = [f"{key} stands there more than once; keep one of them" for key in repeated]
    lines += find_faults(fields(config_class), config_class.RELATIONS, values)
    if lines:
        raise ConfigError([f"{path}: {line}" for line in lines])
    return config_class(**values)

"""One step of training: forward, losses, backward, for the network and then for its judge."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from config import TrainConfig
from distributed import average_gradients
from loss import (
    adversarial_loss,
    agreement_loss,
    discriminator_loss,
    pyramid_loss,
    reconstruction_loss,
)
from pyramid import gaussian_pyramid, pad_for_pyramid
from run_state import Networks, Optimizers, level_weights, update_average
from stages import count_frozen_levels


class NonFiniteLossError(ValueError):
    """A loss, or its gradient, is infinite or not a number."""


def has_fast_half_precision(device: torch.device) -> bool:
    """True where bfloat16 convolutions are faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def step_settings(
    config: TrainConfig, active_count: int, epoch: int, device: torch.device
) -> dict[str, Any]:
    """What `train_step` takes besides networks and photos, in an epoch."""
    return {
        "active_count": active_count,
        "frozen_count": count_frozen_levels(config, active_count),
        "is_adversarial": epoch >= config.begin_use_adv_loss_epoch,
        "is_mixed_precision": config.mixed_precision == "auto" and has_fast_half_precision(device),
        "ema_decay": config.ema_decay,
        "agreement_weight": config.agreement_weight,
    }


def train_step(
    networks: Networks,
    optimizers: Optimizers,
    abnormal: Tensor,
    normal: Tensor,
    active_count: int,
    frozen_count: int,
    is_adversarial: bool,
    is_mixed_precision: bool,
    ema_decay: float,
    agreement_weight: float,
) -> dict[str, float]:
    """One step of the generator, then one of the discriminator; returns the losses by name.

    `abnormal` is (N, versions, 3, h, w), `normal` (N, 3, h, w); see `step_settings`.
    """
    generator, discriminator = networks.generator, networks.discriminator
    half_precision = torch.autocast(abnormal.device.type, torch.bfloat16, is_mixed_precision)
    pyramid_count = min(active_count + 1, generator.level_count)
    version_count = abnormal.shape[1]
    abnormal = abnormal.flatten(0, 1)
    for index, weights in enumerate(level_weights(generator)):
        for weight in weights:
            weight.requires_grad_(frozen_count <= index < active_count)
    abnormal, normal = (pad_for_pyramid(photos, pyramid_count) for photos in (abnormal, normal))

    with half_precision:
        outputs = generator(abnormal, active_count=active_count)
    targets = [
        level.repeat_interleave(version_count, dim=0)
        for level in gaussian_pyramid(normal, pyramid_count)
    ]
    losses = {
        "reconstruction": reconstruction_loss(outputs, targets),
        "pyramid": pyramid_loss(outputs, targets),
    }
    if version_count > 1:
        losses["agreement"] = agreement_weight * agreement_loss(outputs, version_count)
    if is_adversarial:
        # Frozen weights, yet the gradient runs through them to the generator.
        discriminator.requires_grad_(False)
        with half_precision:
            logits = discriminator(outputs[-1])
        losses["adversarial"] = adversarial_loss(logits.float(), generator.level_count)
        discriminator.requires_grad_(True)
    check_finite(losses)
    optimizers.generator.zero_grad()
    sum(losses.values()).backward()
    average_gradients(generator)
    check_gradient("generator", generator)
    optimizers.generator.step()
    update_average(networks, optimizers.generator, ema_decay)

    if is_adversarial:
        with half_precision:
            real_logits = discriminator(normal)
            fake_logits = discriminator(outputs[-1].detach())
        losses["discriminator"] = discriminator_loss(real_logits.float(), fake_logits.float())
        check_finite(losses)
        optimizers.discriminator.zero_grad()
        losses["discriminator"].backward()
        average_gradients(discriminator)
        check_gradient("discriminator", discriminator)
        optimizers.discriminator.step()
    return {name: loss.item() for name, loss in losses.items()}


def check_finite(losses: dict[str, Tensor]) -> None:
    """Raise NonFiniteLossError, naming the loss, before it can spoil any weights."""
    for name, loss in losses.items():
        if not torch.isfinite(loss):
            raise NonFiniteLossError(f"the {name} loss is {loss.item()}")


def check_gradient(name: str, network: nn.Module) -> None:
    """Raise NonFiniteLossError, naming the network, before a step can spoil any weights."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    norm = get_total_norm(gradients)
    if not torch.isfinite(norm):
        raise NonFiniteLossError(f"the gradient of the {name} is {norm.item()}")

import math

import pytest
import torch
from conftest import make_batch
from train_runs import is_same

import step
from config import TrainConfig
from loss import adversarial_loss, discriminator_loss
from run_state import make_networks, make_optimizers

CPU = torch.device("cpu")


@pytest.fixture
def step_parts(train_settings):
    """Networks whose heads are not zero, their optimizers, and a batch (abnormal, normal)."""
    config = TrainConfig(**train_settings)
    networks = make_networks(config, CPU)
    for unet in networks.generator.sub_networks:
        torch.nn.init.normal_(unet.head.weight, std=0.1)
    return (
        networks,
        make_optimizers(networks, config),
        (torch.rand(2, 1, 3, 32, 32), torch.rand(2, 3, 32, 32)),
    )


def take_step(
    step_parts, active_count: int = 2, frozen_count: int = 0, is_adversarial: bool = True
) -> dict[str, float]:
    networks, optimizers, (abnormal, normal) = step_parts
    return step.train_step(
        networks,
        optimizers,
        abnormal,
        normal,
        active_count=active_count,
        frozen_count=frozen_count,
        is_adversarial=is_adversarial,
        is_mixed_precision=False,
        ema_decay=0.0,
        agreement_weight=1.0,
    )


def gradients_of(network) -> list:
    return [None if p.grad is None else p.grad.clone() for p in network.parameters()]


def copy_of(network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def spy_on(optimizer, note) -> None:
    """Call note() before every step of the optimizer."""
    step = optimizer.step

    def noted(*arguments):
        note()
        return step(*arguments)

    optimizer.step = noted


def test_adversarial_gradient_reaches_every_weight_of_the_generator(step_parts, monkeypatch):
    networks, _, (abnormal, _) = step_parts
    for name in ("reconstruction_loss", "pyramid_loss"):
        monkeypatch.setattr(step, name, lambda outputs, targets: outputs[-1].sum() * 0)
    logits = networks.discriminator(networks.generator(abnormal.flatten(0, 1))[-1])
    weights = list(networks.generator.parameters())
    expected = torch.autograd.grad(adversarial_loss(logits, 2), weights)
    take_step(step_parts)
    assert all(gradient.any() for gradient in expected)
    for gradient, right in zip(gradients_of(networks.generator), expected, strict=True):
        torch.testing.assert_close(gradient, right)


def test_generators_step_leaves_the_discriminator_without_gradients(step_parts):
    networks, optimizers, _ = step_parts
    before, seen = copy_of(networks.discriminator), []
    spy_on(optimizers.generator, lambda: seen.append(gradients_of(networks.discriminator)))
    spy_on(
        optimizers.discriminator,
        lambda: seen.append(
            [p.equal(before[n]) for n, p in networks.discriminator.named_parameters()]
        ),
    )
    take_step(step_parts)
    count = len(list(networks.discriminator.parameters()))
    assert seen == [[None] * count, [True] * count]
    assert all(p.requires_grad for p in networks.discriminator.parameters())


def test_discriminators_step_leaves_the_generator_alone(step_parts):
    networks, optimizers, (abnormal, normal) = step_parts
    with torch.no_grad():
        corrected = networks.generator(abnormal.flatten(0, 1))[-1]
    logits = networks.discriminator(normal), networks.discriminator(corrected)
    weights = list(networks.discriminator.parameters())
    expected = torch.autograd.grad(discriminator_loss(*logits), weights)
    seen = []
    spy_on(optimizers.generator, lambda: seen.append(gradients_of(networks.generator)))
    spy_on(optimizers.discriminator, lambda: seen.append(copy_of(networks.generator)))
    take_step(step_parts)
    gradients, state = seen
    assert is_same(gradients, gradients_of(networks.generator))
    assert is_same(state, copy_of(networks.generator))
    for gradient, right in zip(gradients_of(networks.discriminator), expected, strict=True):
        torch.testing.assert_close(gradient, right)


def test_both_networks_learn_in_an_adversarial_step(step_parts):
    networks, _, _ = step_parts
    before = [copy_of(networks.generator), copy_of(networks.discriminator)]
    losses = take_step(step_parts)
    assert list(losses) == ["reconstruction", "pyramid", "adversarial", "discriminator"]
    for network, old in zip((networks.generator, networks.discriminator), before, strict=True):
        assert not any(p.equal(old[name]) for name, p in network.named_parameters())


def test_the_discriminator_rests_until_the_adversarial_loss_begins(step_parts):
    networks, _, _ = step_parts
    before = copy_of(networks.discriminator)
    assert list(take_step(step_parts, is_adversarial=False)) == ["reconstruction", "pyramid"]
    assert is_same(copy_of(networks.discriminator), before)
    assert set(gradients_of(networks.discriminator)) == {None}


def test_gradients_do_not_pile_up_from_step_to_step(step_parts):
    networks, optimizers, _ = step_parts
    for optimizer in (optimizers.generator, optimizers.discriminator):
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    take_step(step_parts)
    first = gradients_of(networks.generator), gradients_of(networks.discriminator)
    take_step(step_parts)
    second = gradients_of(networks.generator), gradients_of(networks.discriminator)
    for before, after in zip(first, second, strict=True):
        for gradient, other in zip(before, after, strict=True):
            torch.testing.assert_close(gradient, other)


def test_levels_that_are_not_trained_yet_stay_as_they_are(step_parts):
    networks, _, _ = step_parts
    before = copy_of(networks.generator.sub_networks[1])
    upsamplings = copy_of(networks.generator.upsamplings)
    take_step(step_parts, active_count=1, is_adversarial=False)
    assert is_same(copy_of(networks.generator.upsamplings), upsamplings)
    assert is_same(copy_of(networks.generator.sub_networks[1]), before)
    assert set(gradients_of(networks.generator.sub_networks[1])) == {None}
    assert None not in gradients_of(networks.generator.sub_networks[0])


@pytest.mark.parametrize("is_adversarial", [False, True])
def test_frozen_levels_stay_as_they_are_and_finer_ones_learn(step_parts, is_adversarial):
    networks, _, _ = step_parts
    take_step(step_parts, active_count=1, is_adversarial=False)
    coarse, fine = networks.generator.sub_networks
    before = copy_of(coarse), copy_of(fine), copy_of(networks.generator.upsamplings)
    take_step(step_parts, frozen_count=1, is_adversarial=is_adversarial)
    assert is_same(copy_of(coarse), before[0])
    assert not any(p.equal(before[1][name]) for name, p in fine.named_parameters())
    assert not any(
        p.equal(before[2][name]) for name, p in networks.generator.upsamplings.named_parameters()
    )


def test_two_versions_of_a_photo_are_trained_on_and_made_to_agree(step_parts):
    networks, optimizers, (_, normal) = step_parts
    versions = make_batch(2, 2, 3, 32, 32)
    losses = take_step((networks, optimizers, (versions, normal)), is_adversarial=False)
    assert losses["agreement"] > 0
    alike = versions[:, :1].expand(-1, 2, -1, -1, -1)
    losses = take_step((networks, optimizers, (alike, normal)), is_adversarial=False)
    assert losses["agreement"] == 0


def test_losses_of_an_untrained_network_are_those_of_the_abnormal_photo(train_settings):
    config = TrainConfig(**train_settings)
    networks = make_networks(config, CPU)
    abnormal, normal = torch.full((2, 1, 3, 32, 32), 0.25), torch.full((2, 3, 32, 32), 0.5)
    parts = networks, make_optimizers(networks, config), (abnormal, normal)
    losses = take_step(parts, is_adversarial=False)
    assert losses == pytest.approx({"reconstruction": 0.25, "pyramid": 0.25}, abs=1e-5)


def test_a_loss_is_checked_before_it_spoils_the_weights(step_parts, monkeypatch):
    networks, _, _ = step_parts
    before = copy_of(networks.generator)
    monkeypatch.setattr(step, "adversarial_loss", lambda logits, _: logits.mean() * math.inf)
    with pytest.raises(step.NonFiniteLossError, match="the adversarial loss is"):
        take_step(step_parts)
    assert is_same(copy_of(networks.generator), before)


@pytest.mark.parametrize("name", ["adversarial", "discriminator"])
def test_a_finite_loss_with_a_gradient_that_is_not_spoils_no_weights(step_parts, monkeypatch, name):
    networks, _, _ = step_parts
    judged = "generator" if name == "adversarial" else "discriminator"
    network = getattr(networks, judged)
    before = [weight.clone() for weight in network.parameters()]
    # 0, with the gradient 0 * inf
    monkeypatch.setattr(step, f"{name}_loss", lambda logits, _: (logits.mean() * 0).abs().sqrt())
    with pytest.raises(step.NonFiniteLossError, match=f"the gradient of the {judged} is nan"):
        take_step(step_parts)
    assert is_same(list(network.parameters()), before)

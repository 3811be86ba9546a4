import math
from itertools import pairwise

import pytest
import torch

from run_state import cosine_rate, make_networks, make_optimizers, set_rates

CPU = torch.device("cpu")


def rates_of(optimizers) -> list[float]:
    groups = optimizers.generator.param_groups + optimizers.discriminator.param_groups
    return [group["lr"] for group in groups]


def test_cosine_runs_from_the_first_rate_to_the_last():
    assert cosine_rate(1e-3, 1e-6, 0) == 1e-3
    assert cosine_rate(1e-3, 1e-6, 1) == pytest.approx(1e-6)
    assert cosine_rate(1e-3, 1e-6, 0.5) == pytest.approx((1e-3 + 1e-6) / 2)


def test_cosine_always_falls():
    rates = [cosine_rate(1.0, 0.01, step / 100) for step in range(101)]
    assert all(later < earlier for earlier, later in pairwise(rates))


def test_every_level_and_the_discriminator_fall_over_their_own_epochs(make_config):
    config = make_config(
        epochs=10,
        begin_use_adv_loss_epoch=6,
        begin_use_level_epoch=[1, 5],
        init_lr=0.1,
        final_lr=0.01,
        discriminator_init_lr=0.2,
        discriminator_final_lr=0.02,
    )
    optimizers = make_optimizers(make_networks(config, CPU), config)
    expected = {  # epochs done: rates of the coarse level, the fine one and the discriminator
        0: (0.1, 0.1, 0.2),
        4: (None, 0.1, 0.2),
        5: (0.055, None, 0.2),
        7: (None, 0.055, None),
        7.5: (None, None, 0.11),
        10: (0.01, 0.01, 0.02),
    }
    for epochs_done, rates in expected.items():
        set_rates(optimizers, config, epochs_done)
        for rate, right in zip(rates_of(optimizers), rates, strict=True):
            assert right is None or rate == pytest.approx(right)


def test_frozen_levels_fall_until_finer_ones_join(make_config):
    config = make_config(epochs=10, begin_use_level_epoch=[1, 5], is_first_stage_frozen=True)
    optimizers = make_optimizers(make_networks(config, CPU), config)
    for epochs_done, share in ((0, 0), (2, 0.5), (4, 1), (9, 1)):
        set_rates(optimizers, config, epochs_done)
        right = cosine_rate(config.init_lr, config.final_lr, share)
        assert rates_of(optimizers)[0] == pytest.approx(right)
    assert rates_of(optimizers)[1] == cosine_rate(config.init_lr, config.final_lr, 5 / 6)


def test_without_stages_all_levels_have_the_same_rate(make_config):
    config = make_config(epochs=10)
    optimizers = make_optimizers(make_networks(config, CPU), config)
    set_rates(optimizers, config, 3.3)
    coarse, fine, _ = rates_of(optimizers)
    assert coarse == fine == cosine_rate(config.init_lr, config.final_lr, 0.33)


def test_rates_are_defined_where_the_adversarial_loss_never_begins(make_config):
    config = make_config(epochs=2, begin_use_adv_loss_epoch=100)
    optimizers = make_optimizers(make_networks(config, CPU), config)
    set_rates(optimizers, config, 1.5)
    assert all(math.isfinite(rate) for rate in rates_of(optimizers))

import copy

import pytest
import torch

from checkpoint import CheckpointError, save_checkpoint, save_weights
from model import ExposureCorrectionNet
from run_state import (
    FREE_KEYS,
    Progress,
    make_networks,
    make_optimizers,
    restore_run,
    save_run,
    update_average,
)

CPU = torch.device("cpu")


def are_alike(network, other) -> bool:
    state, others = network.state_dict(), other.state_dict()
    return state.keys() == others.keys() and all(state[key].equal(others[key]) for key in state)


def make_a_step(networks, optimizers, seed: int = 0, ema_decay: float = 0.0) -> None:
    """Any step that leaves traces in all networks and both optimizers."""
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    for network, optimizer in (
        (networks.generator, optimizers.generator),
        (networks.discriminator, optimizers.discriminator),
    ):
        output = network(image)
        loss = output[-1].square().mean() if network is networks.generator else output.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    update_average(networks, optimizers.generator, ema_decay)


# --------------------------------------------------------------------------------- making


def test_the_seed_decides_the_first_weights(make_config):
    first = make_networks(make_config(seed=1), CPU)
    torch.manual_seed(77)
    again = make_networks(make_config(seed=1), CPU)
    other = make_networks(make_config(seed=2), CPU)
    for name in ("generator", "average", "discriminator"):
        assert are_alike(getattr(first, name), getattr(again, name))
        assert not are_alike(getattr(first, name), getattr(other, name))


def test_networks_are_built_as_the_config_says(make_config):
    config = make_config(
        laplacian_level_count=3,
        layer_count_of_every_unet=[2, 1, 1],
        first_layer_out_channels_of_every_unet=[4, 8, 4],
        is_group_norm_of_every_unet=[True, False, False],
        padding_mode_of_every_unet=["replicate", "zeros", "zeros"],
        has_gain=True,
        discriminator_image_size=[128, 160],
    )
    networks = make_networks(config, CPU)
    assert networks.generator.architecture == {
        "layer_counts": [2, 1, 1],
        "first_channels": [4, 8, 4],
        "has_group_norm": [True, False, False],
        "has_gain": True,
        "padding_modes": ["replicate", "zeros", "zeros"],
    }
    assert networks.discriminator.image_size == (128, 160)


def test_training_starts_from_pretrained_weights(make_config, tmp_path):
    network = ExposureCorrectionNet([1, 1], [8, 8])
    torch.nn.init.constant_(network.sub_networks[1].head.bias, 0.5)
    save_weights(tmp_path / "start.pth", network)
    networks = make_networks(make_config(pretrained_model=str(tmp_path / "start.pth")), CPU)
    assert networks.generator.sub_networks[1].head.bias.tolist() == [0.5] * 3
    assert are_alike(networks.average, networks.generator)


def test_pretrained_weights_of_another_architecture_are_refused(make_config, tmp_path):
    save_weights(tmp_path / "start.pth", ExposureCorrectionNet([1, 1, 1], [8, 8, 8]))
    with pytest.raises(ValueError, match=r"start\.pth"):
        make_networks(make_config(pretrained_model=str(tmp_path / "start.pth")), CPU)


def test_optimizers_are_adam_with_a_rate_and_a_decay_of_their_own(make_config):
    config = make_config(weight_decay=0.1, discriminator_weight_decay=0.2)
    networks = make_networks(config, CPU)
    optimizers = make_optimizers(networks, config)
    for name, decay in (("generator", 0.1), ("discriminator", 0.2)):
        optimizer = getattr(optimizers, name)
        assert isinstance(optimizer, torch.optim.Adam)
        assert {group["weight_decay"] for group in optimizer.param_groups} == {decay}
        ours = {id(p) for p in getattr(networks, name).parameters()}
        assert {id(p) for group in optimizer.param_groups for p in group["params"]} == ours


@pytest.mark.parametrize(("device", "is_compiled"), [("cpu", False), ("cuda", True)])
def test_networks_are_compiled_on_a_gpu_where_asked_for(
    make_config, monkeypatch, device, is_compiled
):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)  # there is no GPU
    networks = make_networks(make_config(compile=True), torch.device(device))
    assert compiled == [networks.generator, networks.discriminator] * is_compiled
    make_networks(make_config(), torch.device(device))
    assert len(compiled) == 2 * is_compiled


def test_compiled_networks_are_saved_like_others(make_config):
    networks = make_networks(make_config(), CPU)
    before = networks.generator.state_dict().keys()
    networks.generator.compile(backend="eager")
    networks.generator(torch.rand(1, 3, 16, 16))
    assert networks.generator.state_dict().keys() == before


def test_without_decay_the_average_is_the_network_itself(make_config):
    config = make_config()
    networks = make_networks(config, CPU)
    optimizers = make_optimizers(networks, config)
    for seed in range(3):
        make_a_step(networks, optimizers, seed, ema_decay=0.0)
        assert are_alike(networks.average, networks.generator)


def test_average_of_a_hand_case(make_config):
    config = make_config()
    networks = make_networks(config, CPU)
    optimizers = make_optimizers(networks, config)
    bias = networks.generator.sub_networks[0].head.bias
    averaged = networks.average.sub_networks[0].head.bias
    values = []
    for value in (1.0, 2.0, 3.0, 5.0):
        for group in optimizers.generator.param_groups:
            group["lr"] = 0.0  # a step that counts, and changes nothing
        networks.generator(torch.rand(1, 3, 16, 16))[-1].sum().backward()
        optimizers.generator.step()
        torch.nn.init.constant_(bias, value)
        update_average(networks, optimizers.generator, 0.27)
        values.append(averaged[0].item())
    first = 1 - 2 / 11  # from 0; decays: 2/11 and 3/12 after one and two steps, then 0.27
    second = first + (2 - first) * (1 - 3 / 12)
    third = second + (3 - second) * (1 - 0.27)
    assert values == pytest.approx([first, second, third, third + (5 - third) * (1 - 0.27)])


def test_the_average_of_a_level_that_joins_late_soon_forgets_its_untrained_weights(make_config):
    config = make_config(init_lr=1e-2)
    networks = make_networks(config, CPU)
    optimizers = make_optimizers(networks, config)
    generator, optimizer = networks.generator, optimizers.generator
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def train(step_count: int, active_count: int) -> None:
        for _ in range(step_count):
            optimizer.zero_grad()
            (generator(image, active_count=active_count)[-1] - 0.9).square().mean().backward()
            optimizer.step()
            update_average(networks, optimizer, 0.999)

    train(3, active_count=1)
    for weight in optimizer.param_groups[0]["params"]:
        optimizer.state[weight]["step"].fill_(20_000)  # as after a long first stage
    starts = [copy.deepcopy(level.state_dict()) for level in generator.sub_networks]
    average_starts = [copy.deepcopy(level.state_dict()) for level in networks.average.sub_networks]
    train(40, active_count=2)

    def distance(level, start) -> float:
        squares = [(w - start[n]).square().sum() for n, w in level.named_parameters()]
        return sum(squares).sqrt().item()

    moved = [distance(*pair) for pair in zip(generator.sub_networks, starts, strict=True)]
    average_moved = [
        distance(*pair) for pair in zip(networks.average.sub_networks, average_starts, strict=True)
    ]
    assert average_moved[1] > 0.75 * moved[1] > 0
    assert average_moved[0] < 0.1 * moved[0]


def test_the_average_is_never_trained_itself(make_config):
    config = make_config()
    networks = make_networks(config, CPU)
    assert type(networks.average) is ExposureCorrectionNet and not networks.average.training
    make_a_step(networks, make_optimizers(networks, config), ema_decay=0.5)
    assert all(not w.requires_grad and w.grad is None for w in networks.average.parameters())


# -------------------------------------------------------------------- saving and restoring


def test_a_run_without_checkpoint_begins_at_the_beginning(make_config, tmp_path):
    config = make_config()
    networks = make_networks(config, CPU)
    progress = restore_run(
        tmp_path / "none.pth", networks, make_optimizers(networks, config), config, 5
    )
    assert progress == Progress() and progress.epoch == 1 and progress.photo_count == 0


def test_a_restored_run_goes_on_bit_for_bit(make_config, tmp_path):
    config = make_config(ema_decay=0.9, weight_decay=0.01)
    networks = make_networks(config, CPU)
    optimizers = make_optimizers(networks, config)
    make_a_step(networks, optimizers, ema_decay=0.9)
    progress = Progress(
        epoch=3,
        photo_count=4,
        photo_total=5,
        loss_sums={"reconstruction": 0.1 + 0.2},
        best_psnr=21.5,
        active_count=2,
        seconds=0.25,
        step_count=12,
    )
    save_run(tmp_path / "last.pth", networks, optimizers, progress, config)
    make_a_step(networks, optimizers, seed=1, ema_decay=0.9)

    others = make_networks(config, CPU)
    other_optimizers = make_optimizers(others, config)
    make_a_step(others, other_optimizers, seed=5, ema_decay=0.9)
    assert restore_run(tmp_path / "last.pth", others, other_optimizers, config, 5) == progress
    make_a_step(others, other_optimizers, seed=1, ema_decay=0.9)
    for name, network in vars(networks).items():
        assert are_alike(network, getattr(others, name))


def test_a_checkpoint_of_another_config_is_refused_with_the_keys_that_differ(make_config, tmp_path):
    config = make_config(ema_decay=0.5)
    networks = make_networks(config, CPU)
    optimizers = make_optimizers(networks, config)
    save_run(tmp_path / "last.pth", networks, optimizers, Progress(), config)
    changed = make_config(ema_decay=0.5, init_lr=0.5, batch_size=3, image_size=[48, 32])
    with pytest.raises(CheckpointError) as caught:
        restore_run(tmp_path / "last.pth", networks, optimizers, changed, 5)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'last.pth'} belongs to another config: ")
    assert "batch_size is 3 here and 2 there" in message
    assert "image_size is [48, 32] here and [32, 32] there" in message
    assert "init_lr is 0.5 here and 0.001 there" in message
    assert "epochs" not in message and "ema_decay" not in message


def test_where_and_how_a_run_computes_saves_and_logs_may_change(make_config, tmp_path):
    config = make_config()
    networks = make_networks(config, CPU)
    optimizers = make_optimizers(networks, config)
    save_run(tmp_path / "last.pth", networks, optimizers, Progress(2), config)
    changes = {
        "CUDA_VISIBLE_DEVICES": "0",
        "num_workers": 3,
        "checkpoint_minutes": 0.5,
        "model_save_dir": "elsewhere",
        "deterministic": True,
        "compile": True,
        "log_steps": 7,
        "tensorboard": True,
    }
    assert changes.keys() == FREE_KEYS
    changed = make_config(**changes)
    assert restore_run(tmp_path / "last.pth", networks, optimizers, changed, 5) == Progress(2)


@pytest.mark.parametrize("kind", ["weights", "other", "newer", "broken"])
def test_a_file_that_is_no_run_is_refused_by_name(make_config, tmp_path, kind):
    config, path = make_config(), tmp_path / "last.pth"
    networks = make_networks(config, CPU)
    if kind == "weights":
        save_weights(path, networks.generator)  # best.pth, renamed
    elif kind == "other":
        save_checkpoint(path, {"config": config.to_dict()})
    elif kind == "newer":
        save_checkpoint(path, {"config": config.to_dict() | {"key_of_tomorrow": 1}})
    else:
        path.write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"last\.pth"):
        restore_run(path, networks, make_optimizers(networks, config), config, 5)

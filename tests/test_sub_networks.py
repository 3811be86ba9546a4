"""What a sub-network sees, and when it runs."""

import pytest
import torch
from conftest import make_batch
from networks import make_trained, note_runs
from torch import nn

from model import SubUNet


@pytest.mark.parametrize("size", [(1, 1), (5, 12), (13, 16)])
def test_sub_network_sees_any_size_without_padding(size):
    torch.manual_seed(0)
    unet, image = make_trained(layer_counts=[2], first_channels=[8]).sub_networks[0], []
    unet.encoder[0].register_forward_hook(lambda _, inputs, __: image.append(inputs[0]))
    photo = make_batch(2, 3, *size)
    with torch.no_grad():
        assert unet(photo).shape == (2, 3, *size)
    assert image[0].equal(photo)


def test_odd_sides_end_as_if_the_last_row_and_column_stood_there_twice():
    stage = nn.Identity()  # max-pool, enlarge by the nearest, add: what the shape of a U-Net does
    unet = SubUNet(1, 8)
    unet.encoder[0], unet.bridge, unet.decoder[0], unet.head = stage, stage, stage, stage
    unet.upsamplings[0] = nn.Upsample(scale_factor=2)
    photo = make_batch(1, 3, 5, 7)
    doubled = torch.nn.functional.pad(photo, (0, 1, 0, 1), mode="replicate")
    assert unet(photo).equal(unet(doubled)[..., :5, :7])


@pytest.mark.parametrize(("padding_mode", "sees_frame"), [("zeros", True), ("replicate", False)])
def test_a_sub_network_sees_the_frame_only_by_zeros_around_it(padding_mode, sees_frame):
    network = make_trained(layer_counts=[2], first_channels=[8], padding_modes=[padding_mode])
    unet, features = network.sub_networks[0], []
    unet.bridge.register_forward_hook(lambda *step: features.append(step[-1]))
    with torch.no_grad():
        unet(torch.full((1, 3, 24, 16), 0.4))
    spread = features[0].std(dim=(2, 3)).max()
    assert spread > 1e-3 if sees_frame else spread < 1e-6


@pytest.mark.parametrize(("padding_mode", "is_held"), [("zeros", True), ("replicate", False)])
def test_gains_and_offsets_at_the_border_are_those_beside_them(padding_mode, is_held):
    network = make_trained(
        layer_counts=[1], first_channels=[8], padding_modes=[padding_mode], has_gain=True
    )
    image = make_batch(2, 3, 5, 9)
    with torch.no_grad():
        update = network.sub_networks[0](image)
        corrected = network(image)[-1]
    if is_held:
        update = update[..., [1, 1, 2, 3, 3], :][..., [1, 1, 2, 3, 4, 5, 6, 7, 7]]
    expected = (1 + update[:, :3]) * image + update[:, 3:]
    torch.testing.assert_close(corrected, expected)


@pytest.mark.parametrize("has_gain", [False, True])
@pytest.mark.parametrize("index", [0, 1])
def test_a_sub_network_that_gives_zeros_is_left_out_unless_it_learns(index, has_gain):
    network = make_trained(has_gain=has_gain)
    untrained = network.sub_networks[index].head
    nn.init.zeros_(untrained.weight)
    nn.init.zeros_(untrained.bias)
    image, runs = make_batch(1, 3, 16, 24), note_runs(network)
    expected = network(image)[-1]
    assert runs == [0, 1]
    with torch.no_grad():
        assert network(image)[-1].equal(expected)
    assert runs == [0, 1, 1 - index]
    untrained.bias.data[0] = 0.5
    with torch.no_grad():
        assert not network(image)[-1].equal(expected)


def test_self_ensemble_averages_the_coarsest_sub_network_over_mirror_images():
    network = make_trained(layer_counts=[1], first_channels=[8], has_group_norm=[True])
    image = make_batch(2, 3, 16, 24)
    with torch.no_grad():
        corrected = network(image, self_ensemble=True)[-1]
        plain = network(image)[-1]
        mirrored = [network(image.flip(sides))[-1].flip(sides) for sides in ([3], [2], [2, 3])]
    torch.testing.assert_close(corrected, torch.stack([plain, *mirrored]).mean(0))
    assert (corrected - plain).abs().max() > 0.01


def test_self_ensemble_leaves_finer_sub_networks_as_they_are():
    network = make_trained(has_gain=True)
    image, batch_sizes = make_batch(1, 3, 16, 24), []
    for unet in network.sub_networks:
        unet.register_forward_hook(lambda _, inputs, __: batch_sizes.append(len(inputs[0])))
    with torch.no_grad():
        network(image, self_ensemble=True)
    assert batch_sizes == [4, 1]


@pytest.mark.parametrize("has_gain", [False, True])
def test_toned_versions_are_corrected_mirrored_and_averaged(has_gain):
    network = make_trained(has_gain=has_gain)
    level = make_batch(2, 3, 12, 10)
    versions = [([], 2**0.5), ([3], 2**-0.5), ([2], 2**-0.5), ([2, 3], 2**0.5)]
    with torch.no_grad():
        expected = [
            network.correct_level(0, level.flip(sides) ** gamma)[0].flip(sides)
            for sides, gamma in versions
        ]
        corrected = network.correct_toned(level)
    torch.testing.assert_close(corrected, torch.stack(expected).mean(0))
    assert (corrected - network.correct_level(0, level, True)[0]).abs().max() > 0.01


def test_values_just_beyond_black_and_white_are_toned_too():
    corrected = make_trained().correct_toned(torch.tensor([-1e-4, 1 + 1e-4]).repeat(1, 3, 4, 1))
    assert corrected.isfinite().all()

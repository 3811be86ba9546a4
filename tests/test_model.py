import pytest
import torch
from conftest import make_batch
from networks import DEFAULT, TINY, make_trained, make_untrained, note_runs
from torch import nn

from model import (
    Discriminator,
    ExposureCorrectionNet,
    LearnedUpsampling,
    SubUNet,
    collapse_pyramid,
    gaussian_pyramid,
    laplacian_pyramid,
)
from pyramid import pyramid_down, pyramid_up

SIZES = [(1, 1), (1, 200), (200, 1), (2, 3), (17, 31), (64, 64), (101, 67)]
VARIANTS = [
    {},
    {"has_gain": True},
    {"has_group_norm": [True, True]},
    {"has_gain": True, "has_group_norm": [True, False], "padding_modes": ["replicate", "zeros"]},
]


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --------------------------------------------------------------------- untrained networks


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.parametrize("size", SIZES)
def test_untrained_network_returns_the_photo_unchanged(size, settings):
    image = make_batch(1, 3, *size)
    with torch.no_grad():
        corrected = make_untrained(**TINY, **settings)(image)[-1]
    torch.testing.assert_close(corrected, image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (53, 37)])
@pytest.mark.parametrize("has_gain", [False, True])
def test_untrained_default_network_returns_the_photo_unchanged(size, has_gain):
    image = make_batch(1, 3, *size)
    with torch.inference_mode():
        corrected = make_untrained(**DEFAULT, has_gain=has_gain)(image)[-1]
    torch.testing.assert_close(corrected, image, rtol=0, atol=1e-5)


def test_untrained_default_network_returns_a_photo_of_1024x683_unchanged():
    image = make_batch(1, 3, 1024, 683)
    with torch.inference_mode():
        corrected = make_untrained(**DEFAULT)(image)[-1]
    torch.testing.assert_close(corrected, image, rtol=0, atol=1e-5)


def test_untrained_network_gives_the_gaussian_pyramid_coarsest_first():
    image = make_batch(1, 3, 32, 64)
    with torch.no_grad():
        outputs = make_untrained([1, 1, 1], [8, 8, 8])(image)
    for output, target in zip(outputs, gaussian_pyramid(image, 3), strict=True):
        torch.testing.assert_close(output, target, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------- the size


def test_untrained_upsampling_equals_pyramid_up():
    image = make_batch(2, 3, 7, 9) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(LearnedUpsampling()(image), pyramid_up(image), rtol=0, atol=1e-6)


def test_default_network_has_the_seven_million_parameters_of_the_paper():
    network = ExposureCorrectionNet(**DEFAULT)
    sizes = [count_parameters(unet) for unet in network.sub_networks]
    assert sizes == [4_365_915, 1_083_675, 1_083_675, 482_067]
    assert [count_parameters(up) for up in network.upsamplings] == [228, 228, 228]
    assert count_parameters(network) == 7_016_016


def test_gain_adds_three_channels_to_every_head():
    network = ExposureCorrectionNet(**DEFAULT, has_gain=True)
    assert count_parameters(network) == 7_016_016 + 3 * (25 + 25 + 25 + 17)


def test_sub_network_has_the_parameters_of_a_hand_count():
    def conv(inputs: int, outputs: int, taps: int) -> int:
        return inputs * outputs * taps + outputs

    encoder = conv(3, 8, 9) + conv(8, 8, 9)
    bridge = conv(8, 16, 9) + conv(16, 16, 9)
    decoder = conv(16, 8, 4) + conv(16, 8, 9) + conv(8, 8, 9)
    assert count_parameters(SubUNet(1, 8)) == encoder + bridge + decoder + conv(8, 3, 1)


def test_sub_network_keeps_the_size_and_starts_at_zero():
    with torch.no_grad():
        update = SubUNet(2, 4)(make_batch(2, 3, 8, 12))
    assert update.shape == (2, 3, 8, 12)
    assert not update.any()


def test_discriminator_has_the_papers_parameters_and_gives_one_logit_a_photo():
    discriminator = Discriminator((256, 256))
    assert count_parameters(discriminator) == 962_585
    with torch.no_grad():
        logits = discriminator(make_batch(3, 3, 40, 70))
    assert logits.shape == (3,)
    norms = [isinstance(layer, nn.BatchNorm2d) for layer in discriminator.layers]
    assert norms.index(True) == 3 and sum(norms) == 1  # only after the second convolution


@pytest.mark.parametrize("image_size", [(128, 128), (128, 300), (511, 256)])
def test_discriminator_works_at_other_sizes(image_size):
    with torch.no_grad():
        assert Discriminator(image_size)(make_batch(2, 3, 20, 30)).shape == (2,)


def test_discriminator_refuses_a_size_that_seven_halvings_leave_nothing_of():
    with pytest.raises(ValueError, match=r"127.*128 px or more"):
        Discriminator((127, 256))


def test_network_stores_its_arguments_as_plain_types():
    network = ExposureCorrectionNet(
        (1, 2), (8, 4), (True, False), True, padding_modes=("replicate", "zeros")
    )
    assert network.architecture == {
        "layer_counts": [1, 2],
        "first_channels": [8, 4],
        "has_group_norm": [True, False],
        "has_gain": True,
        "padding_modes": ["replicate", "zeros"],
    }
    again = ExposureCorrectionNet(**network.architecture)
    again.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    "arguments",
    [
        ([], []),
        ([1, 1], [8]),
        ([1], [8, 8]),
        ([1, 1], [8, 8], [True]),
        ([1, 1], [8, 8], None, False, ["zeros"]),
    ],
)
def test_network_refuses_lists_of_different_lengths(arguments):
    with pytest.raises(ValueError, match="must be equal and 1 or more"):
        ExposureCorrectionNet(*arguments)


# ------------------------------------------------------------------------ level by level


@pytest.mark.parametrize(
    ("active_count", "sizes"),
    [(1, [(24, 24), (48, 48)]), (2, [(12, 12), (24, 24), (48, 48)])],
)
def test_coarse_levels_run_alone_on_a_photo_one_level_finer(active_count, sizes):
    network = make_trained(layer_counts=[1, 1, 1], first_channels=[8, 8, 8])
    runs = note_runs(network)
    with torch.no_grad():
        outputs = network(make_batch(1, 3, 48, 48), active_count=active_count)
    assert runs == list(range(active_count))
    assert [tuple(output.shape[2:]) for output in outputs] == sizes


def test_a_finest_level_that_is_not_trained_yet_adds_its_detail_unchanged():
    network = make_trained()
    image = make_batch(1, 3, 16, 16)
    coarse, band = laplacian_pyramid(image, 2)
    with torch.no_grad():
        outputs = network(image, active_count=1)
        expected = coarse + network.sub_networks[0](coarse)
        torch.testing.assert_close(outputs[0], expected)
        torch.testing.assert_close(outputs[1], pyramid_up(expected) + band, rtol=0, atol=1e-6)


@pytest.mark.parametrize("active_count", [1, 2, 3])
def test_gain_of_the_coarsest_level_brightens_the_detail_of_all_finer_ones(active_count):
    network = ExposureCorrectionNet([1, 1, 1], [8, 8, 8], has_gain=True)
    nn.init.constant_(network.sub_networks[0].head.bias[:3], 1.0)
    image = make_batch(1, 3, 19, 26)
    with torch.no_grad():
        corrected = network(image, active_count=active_count)[-1]
    torch.testing.assert_close(corrected, 2 * image, rtol=0, atol=1e-5)


def test_gains_of_all_levels_multiply():
    network = ExposureCorrectionNet([1, 1], [8, 8], has_gain=True)
    for unet in network.sub_networks:
        nn.init.constant_(unet.head.bias[:3], 1.0)
    image = make_batch(1, 3, 16, 16)
    with torch.no_grad():
        outputs = network(image)
    torch.testing.assert_close(outputs[0], 2 * pyramid_down(image), rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs[1], 4 * image, rtol=0, atol=1e-5)


def test_each_colour_has_its_own_gain_and_offset():
    network = ExposureCorrectionNet([1, 1], [8, 8], has_gain=True)
    with torch.no_grad():
        network.sub_networks[0].head.bias.copy_(torch.tensor([1, 0, -0.5, 0.1, 0.2, 0.3]))
        image = make_batch(1, 3, 16, 16)
        corrected = network(image)[-1]
    scale, offset = torch.tensor([2, 1, 0.5]), torch.tensor([0.1, 0.2, 0.3])
    expected = image * scale[:, None, None] + offset[:, None, None]
    torch.testing.assert_close(corrected, expected, rtol=0, atol=1e-5)


def test_without_gain_detail_is_left_as_it_is():
    network = ExposureCorrectionNet([1, 1], [8, 8])
    nn.init.constant_(network.sub_networks[0].head.bias, 0.25)
    image = make_batch(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(image)[-1], image + 0.25, rtol=0, atol=1e-5)


@pytest.mark.parametrize("has_gain", [False, True])
def test_level_scales_multiply_the_laplacian_levels(has_gain):
    image = make_batch(1, 3, 32, 32)
    scales = [0.5, 2.0, 3.0]
    network = ExposureCorrectionNet([1, 1, 1], [8, 8, 8], has_gain=has_gain)
    with torch.no_grad():
        corrected = network(image, level_scales=scales)[-1]
    bands = laplacian_pyramid(image, 3)
    expected = collapse_pyramid([s * band for s, band in zip(scales, bands, strict=True)])
    torch.testing.assert_close(corrected, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scales", [[], [1.0], [1.0, 1.0, 1.0]])
def test_level_scales_of_the_wrong_length_are_refused(scales):
    with pytest.raises(ValueError, match=f"{len(scales)} level_scales for 2 levels"):
        ExposureCorrectionNet(**TINY)(make_batch(1, 3, 8, 8), level_scales=scales)


@pytest.mark.parametrize("active_count", [0, 3, -1])
def test_active_counts_that_do_not_exist_are_refused(active_count):
    with pytest.raises(ValueError, match=f"active_count is {active_count}; allowed: 1 to 2"):
        ExposureCorrectionNet(**TINY)(make_batch(1, 3, 8, 8), active_count=active_count)


# ------------------------------------------------------- one photo, whatever is around it


@pytest.mark.parametrize("settings", VARIANTS)
def test_each_photo_of_a_batch_comes_out_as_alone(settings):
    network = make_trained(**settings)
    batch = make_batch(3, 3, 21, 34)
    with torch.no_grad():
        together = network(batch)[-1]
        alone = torch.cat([network(photo[None])[-1] for photo in batch])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert (together - batch).abs().max() > 0.05  # it is a trained network, not the identity


@pytest.mark.parametrize("settings", VARIANTS)
def test_result_depends_neither_on_photos_before_nor_on_the_mode(settings):
    network = make_trained(**settings)
    image = make_batch(1, 3, 18, 18)
    with torch.no_grad():
        before = network(image)[-1]
        network.train()
        network(make_batch(4, 3, 40, 18, seed=1))
        assert network(image)[-1].equal(before)
        assert network.eval()(image)[-1].equal(before)


@pytest.mark.parametrize("settings", VARIANTS)
def test_every_weight_gets_a_gradient(settings):
    network = make_trained(**settings)
    sum(output.square().mean() for output in network(make_batch(1, 3, 16, 16))).backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_half_precision_leaves_the_pyramids_in_full_precision():
    network, image = make_untrained(**TINY), make_batch(1, 3, 17, 23)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = network(image)
    assert {output.dtype for output in outputs} == {torch.float32}
    torch.testing.assert_close(outputs[-1], image, rtol=0, atol=1e-5)

import math

import pytest
import torch

from dataset import make_generator, to_tensor
from synthesis import (
    TYPICAL_BRIGHTNESS,
    ExposureSynthesis,
    draw_brightness,
    invent_hidden_light,
    quantise,
    retone,
    shift_exposure,
)

NO_JITTER = {
    "color_jitter_brightness": 0,
    "color_jitter_contrast": 0,
    "color_jitter_saturation": 0,
}
EVERYTHING = ExposureSynthesis(
    color_jitter_brightness=(0.3, 2.5),
    color_jitter_contrast=0.2,
    color_jitter_saturation=0.2,
    exposure_shift_ev=(-3, 3),
    exposure_shift_share=0.5,
    untouched_share=0.1,
    retone_strength=0.5,
    hidden_light_share=0.5,
)


@pytest.fixture
def normal(make_photo) -> torch.Tensor:
    return to_tensor(make_photo(24, 32))


# ------------------------------------------------------------------------------- exposure


@pytest.mark.parametrize("ev", [-3, -1, 1, 2])
def test_shift_exposure_multiplies_linear_light_by_two_per_stop(ev):
    light = torch.linspace(0.001, 2.0 ** -max(ev, 0), 50).expand(3, 1, 50)
    shifted = shift_exposure(light ** (1 / 2.2), ev)
    torch.testing.assert_close(shifted**2.2, light * 2.0**ev, rtol=1e-4, atol=1e-6)


def test_shift_exposure_clips_what_the_sensor_cannot_hold():
    assert shift_exposure(torch.full((3, 1, 1), 0.9), 1).flatten().tolist() == pytest.approx(
        [1] * 3
    )


@pytest.mark.parametrize("shoulder", [1e6, 10, 0.3])
def test_shift_exposure_by_nothing_changes_nothing(shoulder, normal):
    shifted = shift_exposure(normal, 0, gamma=1.9, shoulder=shoulder)
    torch.testing.assert_close(shifted, normal, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shoulder", [1e6, 0.3])
@pytest.mark.parametrize("ev", [-2.5, 1.5])
def test_shift_exposure_is_monotone_and_keeps_black_and_range(ev, shoulder):
    ramp = torch.linspace(0, 1, 256).expand(3, 1, 256)
    shifted = shift_exposure(ramp, ev, shoulder=shoulder)
    assert (shifted.diff() >= 0).all()
    assert shifted.min() == 0 and shifted.max() <= 1
    assert ((shifted - ramp) * ev >= -1e-6).all()


def test_shoulder_undoes_and_applies_a_cameras_tone_curve():
    def camera(light: float) -> float:
        return (light * (1 + 0.5) / (light + 0.5)) ** (1 / 2)

    image = torch.full((3, 1, 1), camera(0.2))
    shifted = shift_exposure(image, 1, gamma=2, shoulder=0.5)
    assert shifted.flatten().tolist() == pytest.approx([camera(0.4)] * 3)


def test_retone_of_strength_zero_changes_nothing(normal):
    assert retone(normal, 0, make_generator(0)).equal(normal)


def test_retone_is_monotone_and_stays_in_range():
    ramp = torch.linspace(0, 1, 256).expand(3, 1, 256)
    for seed in range(20):
        toned = retone(ramp, 1, make_generator(seed))
        assert (toned.diff() >= -1e-6).all()
        assert toned.min() >= 0 and toned.max() <= 1
        assert not toned.equal(ramp)


def test_quantise_rounds_to_the_nearest_of_256_values():
    image = torch.tensor([-0.2, 0.4 / 255, 0.6 / 255, 100.4 / 255, 254.6 / 255, 1.3])
    assert (quantise(image) * 255).tolist() == pytest.approx([0, 0, 1, 100, 255, 255])


@pytest.fixture
def window(normal) -> torch.Tensor:
    """A photo with a white area on the left."""
    normal = 0.8 * normal
    normal[:, :, :10] = 1
    return normal


def test_hidden_light_is_where_the_photo_is_white_and_differs_from_sample_to_sample(window):
    lights = [invent_hidden_light(window, make_generator(0, index)) for index in range(20)]
    for light in lights:
        assert light.shape == window.shape
        assert light.min() >= 0 and light[:, :, 10:].max() == 0
    assert max(light.max() for light in lights) > 2
    assert len({light.sum().item() for light in lights}) == 20


def test_hidden_light_shows_in_short_exposures_and_not_in_the_photo_itself(window):
    light = next(
        light
        for index in range(20)
        if (light := invent_hidden_light(window, make_generator(0, index)))[:, :, :10].std() > 1
    )
    assert shift_exposure(window, -3)[:, :, :10].std() < 1e-6
    assert shift_exposure(window, -3, hidden_light=light)[:, :, :10].std() > 0.05
    torch.testing.assert_close(shift_exposure(window, 0, hidden_light=light), window)


def test_the_share_says_how_many_samples_hide_light(window):
    def is_flat(share: float, index: int) -> bool:
        synthesis = ExposureSynthesis(
            **NO_JITTER,
            exposure_shift_ev=(-3, -3),
            exposure_shift_share=1,
            hidden_light_share=share,
        )
        abnormal, _ = synthesis(window, make_generator(0, index))
        return abnormal[0, :, :, :10].std().item() < 1e-6

    assert all(is_flat(0, index) for index in range(20))
    assert not any(is_flat(1, index) for index in range(20))
    assert 30 < sum(is_flat(0.5, index) for index in range(100)) < 70


# ------------------------------------------------------------------------------ synthesis


def spoil(normal: torch.Tensor, seed: int = 0, **settings) -> torch.Tensor:
    """The abnormal photo alone, of a synthesis that has nothing but these settings."""
    return ExposureSynthesis(**(NO_JITTER | settings))(normal, make_generator(seed))[0][0]


def test_abnormal_photos_have_256_values_in_range(normal):
    for seed in range(30):
        abnormal, _ = EVERYTHING(normal, make_generator(seed))
        values = abnormal * 255
        assert abnormal.shape == (1, *normal.shape) and abnormal.dtype == torch.float32
        assert abnormal.min() >= 0 and abnormal.max() <= 1
        torch.testing.assert_close(values, values.round(), rtol=0, atol=1e-4)


def test_the_normal_photo_stays_what_it_is(normal):
    original = normal.clone()
    for seed in range(10):
        assert EVERYTHING(normal, make_generator(seed))[1].equal(original)
    assert normal.equal(original)


def test_untouched_share_of_one_leaves_every_photo(normal):
    settings = {"color_jitter_brightness": (0.5, 0.5), "brightness_pull": 1.0}
    synthesis = ExposureSynthesis(**(NO_JITTER | settings), untouched_share=1.0)
    for seed in range(10):
        abnormal, target = synthesis(normal, make_generator(seed))
        assert abnormal.equal(normal[None]) and target.equal(normal)


def test_untouched_share_is_the_share_of_photos_left(normal):
    settings = {"color_jitter_brightness": (0.5, 0.5), "untouched_share": 0.25}
    left = sum(spoil(normal, seed, **settings).equal(normal) for seed in range(400))
    assert 70 < left < 130


def test_brightness_of_a_half_halves_every_value(normal):
    abnormal = spoil(normal, color_jitter_brightness=(0.5, 0.5))
    torch.testing.assert_close(abnormal, quantise(normal / 2), rtol=0, atol=1.01 / 255)


def test_brightness_factors_fill_the_range_given():
    grey = torch.full((3, 4, 4), 0.4)
    jitter = {"color_jitter_brightness": (0.5, 2.0)}
    factors = [spoil(grey, seed, **jitter)[0, 0, 0].item() / 0.4 for seed in range(100)]
    assert 0.49 < min(factors) < 0.6 and 1.9 < max(factors) < 2.01


def test_saturation_of_zero_makes_grey(normal):
    abnormal = spoil(normal, color_jitter_saturation=(0, 0))
    assert abnormal[0].equal(abnormal[1]) and abnormal[1].equal(abnormal[2])


def test_contrast_of_zero_makes_one_flat_tone(normal):
    assert len(spoil(normal, color_jitter_contrast=(0, 0)).unique()) == 1


def test_jitter_without_strength_changes_nothing(normal):
    torch.testing.assert_close(spoil(normal), normal)


def test_exposure_shift_takes_the_place_of_jitter(normal):
    abnormal = spoil(
        normal,
        color_jitter_brightness=(0, 0),
        exposure_shift_ev=(1.0, 1.0),
        exposure_shift_share=1.0,
    )
    assert (abnormal >= normal).all() and abnormal.mean() > normal.mean() + 0.05


@pytest.mark.parametrize("seed", range(8))  # some of which jitter, others shift
def test_synthesis_depends_on_its_generator_only(normal, seed):
    state = torch.random.get_rng_state()
    first, _ = EVERYTHING(normal, make_generator(seed))
    assert torch.random.get_rng_state().equal(state)
    torch.manual_seed(99)
    assert EVERYTHING(normal, make_generator(seed))[0].equal(first)
    assert not EVERYTHING(normal, make_generator(seed + 100))[0].equal(first)


def test_drawing_brightness_by_nothing_changes_nothing(normal):
    torch.testing.assert_close(draw_brightness(normal, 0), normal, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tone", [0.38, 0.45])
def test_drawing_brightness_moves_the_mean_towards_the_typical_one(tone):
    image = torch.full((3, 2, 2), tone)
    half, whole = (draw_brightness(image, strength).mean().item() for strength in (0.5, 1))
    assert whole == pytest.approx(TYPICAL_BRIGHTNESS)
    # strength counts in powers: half way between the two logarithms
    assert math.log(half) ** 2 == pytest.approx(math.log(tone) * math.log(TYPICAL_BRIGHTNESS))


@pytest.mark.parametrize(
    ("tone", "gamma"), [(0.0, 0.8), (0.02, 0.8), (0.25, 0.8), (0.6, 1.4), (0.9, 1.4), (1.0, 1.4)]
)
def test_drawing_brightness_leaves_night_as_night_and_snow_as_snow(tone, gamma):
    image = torch.full((3, 2, 2), tone)
    torch.testing.assert_close(draw_brightness(image, 1), image**gamma)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_drawing_brightness_is_one_gamma_that_keeps_black_and_white(share):
    ramp = torch.linspace(0, 1, 256)
    image = torch.where(torch.arange(256) < 256 * share, ramp * 0.5, ramp).expand(3, 1, 256)
    for strength in (0.3, 1.0):
        drawn = draw_brightness(image, strength)
        assert drawn[image == 0].unique().tolist() == [0]
        assert drawn[image == 1].unique().tolist() == [1]
        between = (image > 0) & (image < 1)
        gammas = drawn[between].log() / image[between].log()
        assert gammas.min() >= 0.8 - 1e-4 and gammas.max() <= 1.4 + 1e-4
        assert gammas.max() - gammas.min() < 1e-3


def test_brightness_pull_changes_the_normal_photo_of_spoilt_ones(normal):
    dark = normal / 2
    synthesis = ExposureSynthesis(**NO_JITTER, brightness_pull=0.5)
    abnormal, target = synthesis(dark, make_generator(0))
    torch.testing.assert_close(abnormal[0], quantise(dark))
    assert target.equal(draw_brightness(dark, 0.5)) and target.mean() > dark.mean()


def test_versions_are_spoilt_each_in_its_own_way_from_one_photo(normal):
    settings = {"color_jitter_brightness": (0.3, 2.0), "brightness_pull": 0.5}
    synthesis = ExposureSynthesis(**(NO_JITTER | settings), version_count=3)
    abnormal, target = synthesis(normal, make_generator(0))
    assert abnormal.shape == (3, *normal.shape) and target.shape == normal.shape
    assert abnormal[0].mean() != abnormal[1].mean() != abnormal[2].mean()


def test_versions_of_an_untouched_photo_are_all_the_photo(normal):
    synthesis = ExposureSynthesis(**NO_JITTER, untouched_share=1.0, version_count=2)
    abnormal, target = synthesis(normal, make_generator(0))
    assert abnormal[0].equal(normal) and abnormal[1].equal(normal) and target.equal(normal)

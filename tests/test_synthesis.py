import cv2
import numpy as np
import pytest
import torch
from spoiling import NO_JITTER, flat, is_equal, spoil
from torchvision.transforms import functional

from dataset import make_generator
from synthesis import ExposureSynthesis, shift_exposure
from tones import draw_brightness

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
def normal(make_photo) -> np.ndarray:
    return make_photo(24, 32)


@pytest.fixture
def image(normal) -> torch.Tensor:
    """The same photo as (3, H, W) floats."""
    return torch.from_numpy(normal).permute(2, 0, 1) / 255


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
def test_shift_exposure_by_nothing_changes_nothing(shoulder, image):
    shifted = shift_exposure(image, 0, gamma=1.9, shoulder=shoulder, steepness=1.4)
    torch.testing.assert_close(shifted, image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steepness", [1, 1.4])
@pytest.mark.parametrize("shoulder", [1e6, 0.3])
@pytest.mark.parametrize("ev", [-2.5, 1.5])
def test_shift_exposure_is_monotone_and_keeps_black_and_range(ev, shoulder, steepness):
    ramp = torch.linspace(0, 1, 256).expand(3, 1, 256)
    shifted = shift_exposure(ramp, ev, shoulder=shoulder, steepness=steepness)
    assert (shifted.diff() >= 0).all()
    assert shifted.min() == 0 and shifted.max() <= 1
    assert ((shifted - ramp) * ev >= -1e-6).all()


def test_white_stays_white_at_longer_exposures_in_any_camera():
    # Rounding takes some whites beyond 1, where a power of what is left to 1 is not a number.
    draws = torch.rand(2000, 4, generator=make_generator(0)).tolist()
    for ev, gamma, shoulder, steepness in draws:
        shifted = shift_exposure(
            torch.tensor([0.9, 1.0]), 3 * ev + 1, 1.8 + 0.8 * gamma, 0.05 + shoulder, 1 + steepness
        )
        assert shifted.isfinite().all() and shifted[1] > 0.999


def test_a_cameras_tone_curve_is_undone_and_applied():
    def camera(light: float) -> float:
        encoded = (light * (1 + 0.5) / (light + 0.5)) ** (1 / 2)
        return encoded**1.3 / (encoded**1.3 + (1 - encoded) ** 1.3)

    image = torch.full((3, 1, 1), camera(0.2))
    shifted = shift_exposure(image, 1, gamma=2, shoulder=0.5, steepness=1.3)
    assert shifted.flatten().tolist() == pytest.approx([camera(0.4)] * 3)


# ------------------------------------------------------------------------------ synthesis


def test_abnormal_photos_are_photos_of_8_bits(normal):
    for seed in range(30):
        (abnormal,), _ = EVERYTHING(normal, make_generator(seed))
        assert abnormal.shape == normal.shape and abnormal.dtype == np.uint8


def test_the_normal_photo_stays_what_it_is(normal):
    original = normal.copy()
    for seed in range(10):
        assert is_equal(EVERYTHING(normal, make_generator(seed))[1], original)
    assert is_equal(normal, original)


def test_untouched_share_of_one_leaves_every_photo(normal):
    settings = {"color_jitter_brightness": (0.5, 0.5), "brightness_pull": 1.0}
    synthesis = ExposureSynthesis(**(NO_JITTER | settings), untouched_share=1.0)
    for seed in range(10):
        (abnormal,), target = synthesis(normal, make_generator(seed))
        assert is_equal(abnormal, normal) and is_equal(target, normal)


def test_untouched_share_is_the_share_of_photos_left(normal):
    settings = {"color_jitter_brightness": (0.5, 0.5), "untouched_share": 0.25}
    left = sum(is_equal(spoil(normal, seed, **settings), normal) for seed in range(400))
    assert 70 < left < 130


def test_brightness_of_a_half_halves_every_value(normal):
    abnormal = spoil(normal, color_jitter_brightness=(0.5, 0.5))
    assert np.abs(abnormal - normal / 2).max() <= 0.5


def test_brightness_factors_fill_the_range_given():
    jitter = {"color_jitter_brightness": (0.5, 2.0)}
    factors = [spoil(flat(0.4), seed, **jitter)[0, 0, 0] / 102 for seed in range(100)]
    assert 0.49 < min(factors) < 0.6 and 1.9 < max(factors) < 2.01


@pytest.mark.parametrize("factor", [0, 0.4, 1, 1.7, 3])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_each_jitter_is_torchvisions(normal, image, name, factor):
    abnormal = spoil(normal, **{f"color_jitter_{name}": (factor, factor)})
    expected = getattr(functional, f"adjust_{name}")(image, factor).permute(1, 2, 0) * 255
    assert np.abs(abnormal - expected.numpy()).max() < 1


def test_jitters_come_in_any_order(normal):
    jitter = {
        "color_jitter_brightness": (2, 2),
        "color_jitter_contrast": (0.5, 0.5),
        "color_jitter_saturation": (2, 2),
    }
    results = {spoil(normal, seed, **jitter).tobytes() for seed in range(60)}
    assert len(results) == 6


def test_saturation_of_zero_makes_grey(normal):
    red, green, blue = cv2.split(spoil(normal, color_jitter_saturation=(0, 0)))
    assert is_equal(red, green) and is_equal(green, blue)


def test_contrast_of_zero_makes_one_flat_tone(normal):
    assert len(np.unique(spoil(normal, color_jitter_contrast=(0, 0)))) == 1


def test_jitter_without_strength_changes_nothing(normal):
    assert is_equal(spoil(normal), normal)


def test_exposure_shift_takes_the_place_of_jitter(normal):
    abnormal = spoil(
        normal,
        color_jitter_brightness=(0, 0),
        exposure_shift_ev=(1.0, 1.0),
        exposure_shift_share=1.0,
    )
    assert (abnormal >= normal).all() and abnormal.mean() > normal.mean() + 12


@pytest.mark.parametrize("seed", range(8))  # some of which jitter, others shift
def test_synthesis_depends_on_its_generator_only(normal, seed):
    state = torch.random.get_rng_state()
    (first,), _ = EVERYTHING(normal, make_generator(seed))
    assert torch.random.get_rng_state().equal(state)
    torch.manual_seed(99)
    assert is_equal(EVERYTHING(normal, make_generator(seed))[0][0], first)
    assert not is_equal(EVERYTHING(normal, make_generator(seed + 100))[0][0], first)


def test_brightness_pull_changes_the_normal_photo_of_spoilt_ones(normal):
    dark = normal // 2
    synthesis = ExposureSynthesis(**NO_JITTER, brightness_pull=0.5)
    (abnormal,), target = synthesis(dark, make_generator(0))
    assert is_equal(abnormal, dark)
    assert is_equal(target, draw_brightness(dark, 0.5)) and target.mean() > dark.mean()


def test_versions_are_spoilt_each_in_its_own_way_from_one_photo(normal):
    settings = {"color_jitter_brightness": (0.3, 2.0), "brightness_pull": 0.5}
    synthesis = ExposureSynthesis(**(NO_JITTER | settings), version_count=3)
    abnormal, target = synthesis(normal, make_generator(0))
    assert len(abnormal) == 3 and target.shape == normal.shape
    assert abnormal[0].mean() != abnormal[1].mean() != abnormal[2].mean()


def test_versions_of_an_untouched_photo_are_all_the_photo(normal):
    synthesis = ExposureSynthesis(**NO_JITTER, untouched_share=1.0, version_count=2)
    abnormal, target = synthesis(normal, make_generator(0))
    assert len(abnormal) == 2
    assert all(is_equal(photo, normal) for photo in (*abnormal, target))

import math

import cv2
import numpy as np
import pytest
import torch
from spoiling import NO_JITTER, is_equal, spoil
from torchvision.transforms import functional

from dataset import make_generator
from synthesis import (
    MAX_KEPT_GAIN,
    TYPICAL_BRIGHTNESS,
    TYPICAL_CONTRAST,
    ExposureSynthesis,
    apply_curve,
    apply_tone,
    draw_brightness,
    plain_curve,
    retone,
    s_curve,
    shift_exposure,
)

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


def test_s_curve_compresses_shadows_and_highlights_and_keeps_the_rest():
    curved = s_curve(torch.tensor([0, 0.1, 0.5, 0.9, 1]), 1.4)
    dark = 0.1**1.4 / (0.1**1.4 + 0.9**1.4)
    assert curved.tolist() == pytest.approx([0, dark, 0.5, 1 - dark, 1])
    assert dark < 0.1


@pytest.mark.parametrize("steepness", [0.8, 1.3])
def test_s_curve_about_another_middle_keeps_that_and_is_as_steep_there(steepness):
    curved = s_curve(torch.tensor([0, 0.299, 0.3, 0.301, 1]), steepness, middle=0.3)
    assert curved[[0, 2, 4]].tolist() == pytest.approx([0, 0.3, 1])
    assert (curved[3] - curved[1]).item() == pytest.approx(steepness * 0.002, rel=0.01)


def test_retone_of_strength_zero_changes_nothing(image):
    assert retone(image, 0, make_generator(0)).equal(image)


def test_retone_is_monotone_and_stays_in_range():
    ramp = torch.linspace(0, 1, 256).expand(3, 1, 256)
    for seed in range(20):
        toned = retone(ramp, 1, make_generator(seed))
        assert (toned.diff() >= -1e-6).all()
        assert toned.min() >= 0 and toned.max() <= 1
        assert not toned.equal(ramp)


def test_a_curve_is_looked_up_and_rounded_to_the_nearest_of_256_values(normal):
    assert is_equal(apply_curve(normal, plain_curve()), normal)
    curve = plain_curve() * 0.7
    expected = (torch.from_numpy(normal) / 255 * 0.7 * 255).round().byte().numpy()
    assert is_equal(apply_curve(normal, curve), expected)


@pytest.mark.parametrize("kept_colour", [0, 0.6, 1])
def test_a_plain_tone_curve_changes_nothing(normal, kept_colour):
    assert is_equal(apply_tone(normal, plain_curve(), kept_colour), normal)
    near_black = np.stack(np.indices((6, 6, 6)), axis=-1).reshape(36, 6, 3).astype(np.uint8)
    assert is_equal(apply_tone(near_black, plain_curve(), kept_colour), near_black)


@pytest.mark.parametrize("kept_colour", [0, 0.6, 1])
def test_greys_get_the_tone_curve_however_much_colour_is_kept(kept_colour):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    curve = 0.05 + 0.9 * plain_curve() ** 0.7
    assert is_equal(apply_tone(ramp, curve, kept_colour), apply_curve(ramp, curve))


def test_a_tone_curve_that_keeps_no_colour_is_that_of_each_channel(normal):
    curve = plain_curve() ** 1.4
    assert is_equal(apply_tone(normal, curve, 0), apply_curve(normal, curve))


@pytest.mark.parametrize("gamma", [0.7, 1.4])
def test_kept_colours_are_the_ratios_of_the_channels(gamma):
    photo = np.full((2, 2, 3), (120, 80, 40), np.uint8)
    curve = plain_curve() ** gamma
    grey = round(0.2989 * 120 + 0.587 * 80 + 0.114 * 40)
    gain = curve[grey].item() * 255 / grey
    kept, half, by_channel = (apply_tone(photo, curve, share)[0, 0] for share in (1, 0.5, 0))
    assert kept == pytest.approx(np.multiply((120, 80, 40), gain), abs=0.51)
    assert half == pytest.approx((kept.astype(float) + by_channel) / 2, abs=1)


def test_a_raised_black_adds_grey_and_not_the_colours_of_noise():
    noise = np.full((2, 2, 3), (3, 1, 0), np.uint8)
    toned = apply_tone(noise, (plain_curve() + 0.1).clamp(max=1), 1)
    assert toned.min() >= 23 and np.ptp(toned) <= MAX_KEPT_GAIN * 3


def test_retoned_photos_keep_their_colours_better_than_by_curves_of_each_channel(monkeypatch):
    photo = np.full((2, 2, 3), (180, 140, 100), np.uint8)

    def spread() -> float:
        toned = [spoil(photo, seed, retone_strength=1)[0, 0].astype(float) for seed in range(100)]
        return np.std([math.log(red / blue) for red, _, blue in toned])

    kept = spread()
    monkeypatch.setattr("synthesis.KEPT_COLOUR_RANGE", (0, 0))
    assert kept < 0.5 * spread()


# ------------------------------------------------------------------------------ synthesis


def flat(tone: float, size: tuple[int, int] = (4, 4)) -> np.ndarray:
    """A grey photo of one value in [0, 1]."""
    return np.full((*size, 3), round(tone * 255), np.uint8)


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


# ----------------------------------------------------------------------------- brightness


def test_drawing_brightness_by_nothing_changes_nothing(normal):
    assert is_equal(draw_brightness(normal, 0), normal)


def softened(photo: np.ndarray, strength: float) -> np.ndarray:
    """The photo with less contrast, in [0, 1]."""
    image = torch.from_numpy(photo / 255)
    return s_curve(image, TYPICAL_CONTRAST**strength, TYPICAL_BRIGHTNESS).numpy()


@pytest.mark.parametrize("tone", [0.28, 0.42])
def test_drawing_brightness_moves_the_mean_towards_the_typical_one(tone):
    photo = flat(tone)
    half, whole = (draw_brightness(photo, strength).mean() / 255 for strength in (0.5, 1))
    assert whole == pytest.approx(TYPICAL_BRIGHTNESS, abs=1 / 255)
    # strength counts in powers: half way between the two logarithms
    logarithms = math.log(softened(photo, 0.5).mean()) * math.log(TYPICAL_BRIGHTNESS)
    assert half == pytest.approx(math.exp(-math.sqrt(logarithms)), abs=1 / 255)


@pytest.mark.parametrize(
    ("tone", "gamma"), [(0.0, 0.8), (0.02, 0.8), (0.22, 0.8), (0.6, 1.4), (0.9, 1.4), (1.0, 1.4)]
)
def test_drawing_brightness_leaves_night_as_night_and_snow_as_snow(tone, gamma):
    photo = flat(tone)
    drawn = draw_brightness(photo, 1)
    assert np.abs(drawn - 255 * softened(photo, 1) ** gamma).max() <= 0.501


@pytest.mark.parametrize("tone", [0.3, 0.7])
def test_drawing_brightness_is_one_curve_that_keeps_black_and_white(tone):
    photo = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    photo = np.concatenate([photo, flat(tone, (3, 256))])
    for strength in (0.3, 1.0):
        drawn = draw_brightness(photo, strength)[0, :, 0]
        assert drawn[0] == 0 and drawn[255] == 255
        tones = slice(64, 200)
        gammas = np.log(drawn[tones] / 255) / np.log(softened(photo[0, tones, 0], strength))
        assert gammas.min() > 0.79 and gammas.max() < 1.41 and np.ptp(gammas) < 0.1


def test_drawing_brightness_takes_contrast_away():
    photo = np.concatenate([flat(TYPICAL_BRIGHTNESS - 0.05), flat(TYPICAL_BRIGHTNESS + 0.05)])
    for strength in (0.5, 1):
        left = draw_brightness(photo, strength).std() / photo.std()
        assert left == pytest.approx(TYPICAL_CONTRAST**strength, abs=0.03)


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

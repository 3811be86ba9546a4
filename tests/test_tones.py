import math

import numpy as np
import pytest
import torch
from spoiling import flat, is_equal, spoil

from dataset import make_generator
from synthesis import retone
from tones import (
    KEPT_CONTRAST,
    MAX_KEPT_GAIN,
    TYPICAL_BRIGHTNESS,
    apply_curve,
    apply_tone,
    draw_brightness,
    plain_curve,
    s_curve,
)


@pytest.fixture
def normal(make_photo) -> np.ndarray:
    return make_photo(24, 32)


# ---------------------------------------------------------------------------- tone curves


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


def test_retone_of_strength_zero_changes_nothing():
    assert retone(plain_curve(), 0, make_generator(0)).equal(plain_curve())


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
    gain = curve[120].item() * 255 / 120
    kept, half, by_channel = (apply_tone(photo, curve, share)[0, 0] for share in (1, 0.5, 0))
    assert kept == pytest.approx(np.multiply((120, 80, 40), gain), abs=0.51)
    assert half == pytest.approx((kept.astype(float) + by_channel) / 2, abs=1)


@pytest.mark.parametrize("kept_colour", [0, 0.6, 1])
@pytest.mark.parametrize("gamma", [0.7, 1.4])
def test_the_brightest_channel_gets_the_curve_however_much_colour_is_kept(gamma, kept_colour):
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    curve = 0.05 + 0.9 * plain_curve() ** gamma
    toned = apply_tone(photo, curve, kept_colour)
    assert is_equal(toned.max(axis=2), apply_curve(photo, curve).max(axis=2))


def test_a_raised_black_adds_grey_and_not_the_colours_of_noise():
    noise = np.full((2, 2, 3), (3, 1, 0), np.uint8)
    toned = apply_tone(noise, (plain_curve() + 26 / 255).clamp(max=1), 1)
    added = 3 + 26 - 3 * MAX_KEPT_GAIN
    assert toned[0, 0].tolist() == [3 + 26, added + MAX_KEPT_GAIN, added]


def test_retoned_photos_keep_their_colours_better_than_by_curves_of_each_channel(monkeypatch):
    photo = np.full((2, 2, 3), (180, 140, 100), np.uint8)

    def spread() -> float:
        toned = [spoil(photo, seed, retone_strength=1)[0, 0].astype(float) for seed in range(100)]
        return np.std([math.log(red / blue) for red, _, blue in toned])

    kept = spread()
    monkeypatch.setattr("synthesis.KEPT_COLOUR_RANGE", (0, 0))
    assert kept < 0.5 * spread()


# ----------------------------------------------------------------------------- brightness


def test_drawing_brightness_by_nothing_changes_nothing(normal):
    assert is_equal(draw_brightness(normal, 0), normal)


def softened(photo: np.ndarray, strength: float) -> np.ndarray:
    """The photo with less contrast, in [0, 1]."""
    image = torch.from_numpy(photo / 255)
    return s_curve(image, KEPT_CONTRAST**strength, TYPICAL_BRIGHTNESS).numpy()


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
        assert left == pytest.approx(KEPT_CONTRAST**strength, abs=0.03)

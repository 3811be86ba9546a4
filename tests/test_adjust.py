import cv2
import numpy as np
import pytest

from adjust import blend, fuse, restrained_strength, stretch_contrast


@pytest.fixture
def pair():
    random = np.random.default_rng(0)
    return random.random((2, 20, 30, 3), dtype=np.float32)


@pytest.mark.parametrize("strength, share", [(0, 0), (1, 1), (0.25, 0.25)])
def test_strength_goes_a_share_of_the_way_to_the_correction(pair, strength, share):
    abnormal, corrected = pair
    expected = (1 - share) * abnormal + share * corrected
    assert np.abs(blend(abnormal, corrected, strength) - expected).max() < 1e-6


@pytest.mark.parametrize(("restraint", "share"), [(0, 1), (0.1, 1), (0.2, 0.5), (0.4, 0.15625)])
def test_a_change_below_the_restraint_is_faded_out(pair, restraint, share):
    abnormal, _ = pair
    corrected = abnormal + np.float32(0.1)
    assert restrained_strength(abnormal, corrected, restraint) == pytest.approx(share, abs=1e-5)


def test_a_bright_sky_does_not_hide_how_dark_the_rest_is(pair):
    abnormal = pair[0] / 8
    abnormal[:8] = 1
    corrected = abnormal.copy()
    corrected[8:] += np.float32(0.1)
    assert restrained_strength(abnormal, corrected, 0.1) == pytest.approx(1, abs=1e-3)
    corrected[:8] = 0.85  # so that the mean stays as it was
    assert restrained_strength(abnormal, corrected, 0.1) == pytest.approx(1, abs=1e-3)


def test_no_change_has_no_strength_under_any_restraint_above_0(pair):
    abnormal, _ = pair
    assert restrained_strength(abnormal, abnormal.copy(), 0.06) == 0


def test_strength_beyond_one_overdoes_the_correction_and_stays_in_range(pair):
    dark, bright = pair[0] * 0.5, pair[0] * 0.9
    overdone = blend(dark, bright, 2)
    assert np.abs(overdone - np.minimum(1, 2 * bright - dark)).max() < 1e-6
    assert overdone.max() <= 1


@pytest.mark.parametrize("bad", [0.01, 0.99])
@pytest.mark.parametrize("is_first", [True, False])
def test_fusion_takes_the_better_exposed_picture_also_of_grey_ones(bad, is_first):
    noise = np.random.default_rng(0).random((64, 64, 1), dtype=np.float32)
    good = (0.4 + 0.2 * noise).repeat(3, axis=2)
    flat = np.full_like(good, bad)
    fused = fuse(flat, good) if is_first else fuse(good, flat)
    assert fused.dtype == np.float32
    assert np.abs(fused - good).mean() < 0.02


def test_fusion_equals_opencv_on_8_bit_pictures(pair):
    pair = (pair * 255).round()
    expected = cv2.createMergeMertens(1, 0, 1).process(list(pair.astype(np.uint8)))
    assert np.abs(fuse(*(pair / 255)) - np.clip(expected, 0, 1)).max() < 1e-4


def test_stretching_reaches_black_and_white_and_keeps_the_order():
    image = np.linspace(0.3, 0.6, 1200, dtype=np.float32).reshape(20, 20, 3)
    stretched = stretch_contrast(image)
    assert stretched.min() == 0 and stretched.max() == 1
    assert (np.diff(stretched.ravel()) >= 0).all()
    middle = stretched.ravel()[600]
    assert abs(middle - 0.5) < 0.01


def test_stretching_leaves_a_flat_image_alone():
    flat = np.full((8, 8, 3), 0.4, np.float32)
    assert np.array_equal(stretch_contrast(flat), flat)

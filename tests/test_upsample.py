import cv2
import numpy as np
import pytest

from upsample import apply_gains, fit_gains, upsample_correction


def make_photo(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    """Soft colours, a hard edge between dark and bright, and fine detail, over dtype's range."""
    rng = np.random.default_rng(3)
    soft = cv2.resize(rng.random((5, 6, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    soft[:, width // 2 :] = 0.6 + 0.4 * soft[:, width // 2 :]
    photo = np.clip(0.8 * soft + 0.05 * rng.standard_normal((height, width, 3)), 0, 1)
    if dtype == np.float32:
        return photo.astype(np.float32)
    return np.rint(photo * np.iinfo(dtype).max).astype(dtype)


def shrink(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """The network's copy of a photo: (height, width, 3) float32 in [0, 1]."""
    white = 1 if photo.dtype == np.float32 else np.iinfo(photo.dtype).max
    return cv2.resize(
        np.float32(photo) / np.float32(white), (width, height), interpolation=cv2.INTER_AREA
    )


def brighten(photo: np.ndarray) -> np.ndarray:
    """A correction that differs over the photo, as the network's do."""
    gamma = np.linspace(0.4, 0.9, photo.shape[1], dtype=np.float32)[:, None]
    return np.clip(1.05 * photo**gamma - 0.02, 0, 1)


def blur_slowly(values: np.ndarray, radius: int) -> np.ndarray:
    """Mean over windows of the two leading axes, reflected without repeating the border."""
    edge = [(radius, radius)] * 2 + [(0, 0)] * (values.ndim - 2)
    padded = np.pad(values, edge, mode="reflect")
    side = range(2 * radius + 1)
    height, width = values.shape[:2]
    return sum(padded[y : y + height, x : x + width] for y in side for x in side) / len(side) ** 2


def fit_slowly(
    abnormal: np.ndarray, corrected: np.ndarray, radius: int, epsilon: float
) -> np.ndarray:
    """(h, w, 2, 3) gains and offsets in float64, by a regression over every window."""
    abnormal, corrected = abnormal.astype(np.float64), corrected.astype(np.float64)

    def slope(values: np.ndarray, changes: np.ndarray) -> float:
        centred = values - values.mean()
        return (centred * (changes - changes.mean())).sum() / (
            (centred**2).sum() + epsilon * values.size
        )

    height, width = abnormal.shape[:2]
    border = ((radius, radius), (radius, radius), (0, 0))
    gain = np.empty((height, width, 3))
    for channel in range(3):
        before, after = abnormal[..., channel], corrected[..., channel]
        whole = 1 + slope(before, after - before)
        unexplained = after - whole * before
        guide, target = (np.pad(v, border[:2], mode="reflect") for v in (before, unexplained))
        for y, x in np.ndindex(height, width):
            window = np.s_[y : y + 2 * radius + 1, x : x + 2 * radius + 1]
            gain[y, x, channel] = slope(guide[window], target[window])
        gain[..., channel] = whole + blur_slowly(gain[..., channel], radius)
    return np.stack([gain, corrected - gain * abnormal], axis=2)


def interpolate_slowly(gains: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation between pixel centres, by the definition."""
    for axis, length in enumerate((height, width)):
        last = gains.shape[axis] - 1
        position = ((np.arange(length) + 0.5) * (last + 1) / length - 0.5).clip(0, last)
        floor = np.floor(position).astype(int)
        share = (position - floor).reshape([-1 if i == axis else 1 for i in range(4)])
        first = gains.take(floor, axis)
        second = gains.take(np.minimum(floor + 1, last), axis)
        gains = (1 - share) * first + share * second
    return gains


def correct_slowly(photo: np.ndarray, gains: np.ndarray, white: int) -> np.ndarray:
    """The corrected photo before rounding, on the photo's own scale."""
    wide = interpolate_slowly(gains, *photo.shape[:2])
    corrected = photo / white * wide[:, :, 0] + wide[:, :, 1]
    return (corrected * white).clip(0, white)


def test_fit_equals_a_slow_one():
    abnormal = shrink(make_photo(120, 160), 18, 24)
    corrected = brighten(abnormal)
    fitted = fit_gains(abnormal, corrected, 2, 1e-4).transpose(1, 2, 0, 3)
    assert np.abs(fitted - fit_slowly(abnormal, corrected, 2, 1e-4)).max() < 2e-3


def test_fit_stays_accurate_where_strong_edges_are_grey():
    # The covariance of a grey window is singular but for epsilon: the worst case for float32.
    grey = np.float32(np.indices((20, 30)).sum(0) % 7 < 3)[..., None].repeat(3, axis=2)
    corrected = np.float32([0.2, 0.3, 0.4]) + 0.5 * grey
    fitted = fit_gains(grey, corrected).transpose(1, 2, 0, 3)
    slow = fit_slowly(grey, corrected, 2, 1e-5)
    assert np.abs(fitted.sum(2) - slow.sum(2)).max() < 1e-3
    assert np.abs(fitted).max() < 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_apply_equals_a_slow_one(dtype):
    photo = make_photo(101, 143, dtype)
    abnormal = shrink(photo, 17, 24)
    gains = fit_gains(abnormal, brighten(abnormal))
    corrected = apply_gains(photo, gains)
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    slow = correct_slowly(photo, gains.transpose(1, 2, 0, 3), white)
    error = np.abs(corrected - slow).max()
    assert error < (1e-5 if dtype == np.float32 else 0.55)  # rounding is 0.5 of it
    assert corrected.shape == photo.shape
    assert corrected.dtype == dtype


def test_pixel_centres_are_aligned():
    # Offsets that rise by one eighth a fit rise by a 64th a pixel in a photo 8 times the size,
    # with the first fit's centre between pixels 3 and 4, and are held beyond the outer centres.
    gains = np.zeros((2, 1, 8, 3), np.float32)
    gains[1] = (np.arange(8, dtype=np.float32) / 8)[:, None]
    expected = ((np.arange(64) - 3.5) / 64).clip(0, 7 / 8)
    black = np.zeros((2, 64, 3), np.float32)
    np.testing.assert_allclose(apply_gains(black, gains)[1, :, 0], expected, atol=1e-6)
    upright = apply_gains(black.transpose(1, 0, 2), gains.transpose(0, 2, 1, 3))
    np.testing.assert_allclose(upright[:, 1, 2], expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_identity_correction_returns_the_photo(dtype):
    photo = make_photo(97, 131, dtype)
    abnormal = shrink(photo, 24, 32)
    corrected = upsample_correction(photo, abnormal, abnormal)
    np.testing.assert_allclose(corrected, photo, rtol=0, atol=1e-6 if dtype == np.float32 else 0)


def test_one_gain_and_offset_is_reproduced_at_full_size_and_up_to_the_borders():
    photo = make_photo(211, 307)
    gain = np.float32([0.7, 0.6, 0.8])
    abnormal = shrink(photo, 36, 52)
    corrected = upsample_correction(photo, abnormal, gain * abnormal + np.float32(0.05))
    expected = gain * photo + 0.05 * 255
    assert np.abs(corrected - expected).max() < 1


def test_local_correction_comes_close_to_correcting_the_full_size_photo():
    photo = make_photo(480, 640)
    abnormal = shrink(photo, 96, 128)
    truth = brighten(np.float32(photo / 255))
    small_corrected = brighten(abnormal)
    error = upsample_correction(photo, abnormal, small_corrected) / 255 - truth
    enlarged = cv2.resize(small_corrected, (640, 480)) - truth
    assert np.mean(error**2) < 1e-3
    assert np.mean(error**2) < np.mean(enlarged**2) / 4


def test_strips_of_any_height_give_identical_results():
    photo = make_photo(203, 301)
    abnormal = shrink(photo, 34, 50)
    gains = fit_gains(abnormal, brighten(abnormal))
    whole = apply_gains(photo, gains, strip_height=1000)
    for strip_height in (1, 7, 32):
        assert np.array_equal(apply_gains(photo, gains, strip_height), whole)


def test_one_thread_gives_the_result_of_several():
    photo = make_photo(203, 301)
    abnormal = shrink(photo, 34, 50)
    gains = fit_gains(abnormal, brighten(abnormal))
    several = apply_gains(photo, gains)
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        assert np.array_equal(apply_gains(photo, gains), several)
    finally:
        cv2.setNumThreads(num_threads)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (1, 40000), (3, 2), (90, 5)])
@pytest.mark.parametrize("small_size", [(1, 1), (1, 6), (6, 1), (8, 12)])
def test_thin_and_small_photos_work(size, small_size):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    abnormal = shrink(photo, *small_size)
    assert np.array_equal(upsample_correction(photo, abnormal, abnormal), photo)
    darker = upsample_correction(photo, abnormal, abnormal / 2 + 0.1)
    assert darker.shape == photo.shape


def test_views_are_read_as_their_copies():
    photo = make_photo(90, 120)
    abnormal = shrink(photo, 15, 20)
    corrected = upsample_correction(photo, abnormal, brighten(abnormal))
    fortran = np.asfortranarray(photo)
    flipped = np.ascontiguousarray(photo[::-1, :, ::-1])[::-1, :, ::-1]
    for view in (fortran, flipped):
        assert np.array_equal(upsample_correction(view, abnormal, brighten(abnormal)), corrected)
    small_view = np.asfortranarray(abnormal)
    again = upsample_correction(photo, small_view, brighten(small_view))
    assert np.array_equal(again, corrected)


def test_inputs_are_left_as_they_are():
    photo = make_photo(60, 80, np.float32)
    abnormal = shrink(photo, 60, 80)
    small_corrected = 1.5 * abnormal
    arrays = (photo, abnormal, small_corrected)
    copies = [array.copy() for array in arrays]
    upsample_correction(*arrays)
    upsample_correction(np.tile(photo, (2, 2, 1)), abnormal, small_corrected)
    assert all(np.array_equal(*pair) for pair in zip(arrays, copies, strict=True))


def test_16_bit_gradient_stays_monotone_and_fine():
    ramp = np.linspace(2000, 30000, 4000).astype(np.uint16)
    photo = np.tile(ramp[None, :, None], (40, 1, 3))
    abnormal = shrink(photo, 5, 500)
    corrected = upsample_correction(photo, abnormal, abnormal ** np.float32(0.6))[20, :, 1]
    assert corrected.dtype == np.uint16
    assert (np.diff(corrected.astype(int)) >= 0).all()
    assert len(np.unique(corrected)) > 3000


@pytest.mark.parametrize("level", [0, 255])
def test_clipped_regions_stay_neutral_and_flat(level):
    photo = make_photo(240, 320)
    photo[60:180, 80:240] = level
    abnormal = shrink(photo, 48, 64)
    small_corrected = brighten(abnormal)
    small_corrected[abnormal.min(-1) == 1] = 1
    small_corrected[abnormal.max(-1) == 0] = 0
    corrected = upsample_correction(photo, abnormal, small_corrected)
    inside = corrected[80:160, 100:220].astype(int)  # further in than the windows reach
    assert np.abs(inside - level).max() <= 1


def test_flat_photo_takes_the_corrected_colour():
    photo = np.full((50, 70, 3), 255, np.uint8)
    abnormal = shrink(photo, 10, 14)
    corrected = upsample_correction(photo, abnormal, abnormal * np.float32([0.8, 0.6, 0.4]))
    assert (corrected == np.uint8([204, 153, 102])).all()


def test_results_beyond_the_range_are_clipped():
    photo = make_photo(60, 80)
    abnormal = shrink(photo, 15, 20)
    assert (upsample_correction(photo, abnormal, abnormal + 2) == 255).all()
    assert (upsample_correction(photo, abnormal, abnormal - 2) == 0).all()


PHOTO = np.zeros((8, 8, 3), np.uint8)
SMALL = np.zeros((4, 4, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PHOTO[..., 0], SMALL, SMALL), r"photo has shape \(8, 8\); .* \(height, width, 3\)"),
        ((PHOTO[:0], SMALL, SMALL), r"photo has shape \(0, 8, 3\)"),
        ((PHOTO.astype(int), SMALL, SMALL), "photo is int64; .* uint8 or uint16 or float32"),
        ((PHOTO, np.uint8(SMALL), SMALL), "small_abnormal is uint8; it must be float32"),
        ((PHOTO, SMALL, SMALL[..., :2]), r"small_corrected has shape \(4, 4, 2\)"),
        ((PHOTO, SMALL, SMALL[:3]), r"is \(4, 4, 3\), .* is \(3, 4, 3\); .* one size"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        upsample_correction(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0}, "radius is 0; it must be 1 or more"),
        ({"epsilon": 0.0}, "epsilon is 0.0; it must be 1e-6 or more"),
    ],
)
def test_wrong_settings_of_the_fit_are_named_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        fit_gains(SMALL, SMALL, **options)


@pytest.mark.parametrize(
    ("gains", "message"),
    [
        (np.zeros((4, 4, 5, 3), np.float32), r"\(4, 4, 5, 3\) float32; .* \(2, h, w, 3\)"),
        (np.zeros((2, 4, 4, 3)), "float64; they must be .* float32"),
    ],
)
def test_wrong_gains_are_named_with_what_is_allowed(gains, message):
    with pytest.raises(ValueError, match=message):
        apply_gains(PHOTO, gains)


def test_strip_height_below_one_is_refused():
    with pytest.raises(ValueError, match="strip_height is 0; it must be 1 or more"):
        apply_gains(PHOTO, np.zeros((2, 4, 4, 3), np.float32), strip_height=0)

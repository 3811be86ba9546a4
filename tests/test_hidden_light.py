import numpy as np
import pytest
import torch
from spoiling import NO_JITTER, is_equal, spoil

from dataset import make_generator
from synthesis import ExposureSynthesis, invent_hidden_light, shift_exposure


@pytest.fixture
def window(make_photo) -> np.ndarray:
    """A photo with a white area on the left."""
    normal = make_photo(24, 32) * 0.8
    normal[:, :10] = 255
    return normal.astype(np.uint8)


def test_hidden_light_is_where_the_photo_is_white_and_differs_from_sample_to_sample(window):
    lights = []
    for index in range(20):
        is_white, light = invent_hidden_light(window, make_generator(0, index))
        assert is_white[:, :10].all() and not is_white[:, 10:].any()
        assert light.shape == (is_white.sum(), 3) and light.min() >= 0
        lights.append(light)
    assert max(light.max() for light in lights) > 2
    assert len({light.sum().item() for light in lights}) == 20


def test_hidden_light_sets_in_softly_from_light_tones_to_white():
    photo = np.full((4, 4, 3), 255, np.uint8)
    photo[:, 1], photo[:, 2] = 230, 216
    is_white, light = invent_hidden_light(photo, make_generator(0))
    assert is_white.tolist() == [[True, True, False, True]] * 4
    assert 0 < light.reshape(4, 3, 3)[:, 1].max() < light.max() / 2


def test_hidden_light_is_added_to_the_light_that_the_photo_shows():
    shifted = shift_exposure(torch.tensor([1.0, 0.5]), -2, hidden_light=torch.tensor([1.0, 0.0]))
    expected = [(2 / 4) ** (1 / 2.2), (0.5**2.2 / 4) ** (1 / 2.2)]
    assert shifted.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("retone_strength", [0, 1])
def test_hidden_light_shows_where_the_photo_was_white(window, retone_strength):
    settings = {
        "exposure_shift_ev": (-3, -3),
        "exposure_shift_share": 1,
        "retone_strength": retone_strength,
    }
    for seed in range(5):
        flat = spoil(window, seed, **settings)
        assert (flat[:, :10] == flat[0, 0]).all()
        varied = spoil(window, seed, hidden_light_share=1, **settings)
        assert varied[:, :10].std() > 1


def test_elsewhere_one_curve_does_the_same_to_equal_values(window):
    settings = {"exposure_shift_ev": (-3, -3), "exposure_shift_share": 1, "hidden_light_share": 1}
    for seed in range(5):
        spoilt = spoil(window, seed, **settings)
        _, index = np.unique(window[:, 10:], return_index=True)
        assert (np.diff(spoilt[:, 10:].ravel()[index].astype(int)) >= 0).all()


def test_hidden_light_changes_neither_the_normal_photo_nor_longer_exposures(window):
    synthesis = ExposureSynthesis(
        **NO_JITTER, exposure_shift_ev=(1, 1), exposure_shift_share=1, hidden_light_share=1
    )
    (abnormal,), normal = synthesis(window, make_generator(0))
    assert is_equal(normal, window)
    assert (abnormal[:, :10] == 255).all()


def test_the_share_says_how_many_samples_hide_light(window):
    def is_flat(share: float, seed: int) -> bool:
        abnormal = spoil(
            window,
            seed,
            exposure_shift_ev=(-3, -3),
            exposure_shift_share=1,
            hidden_light_share=share,
        )
        return abnormal[:, :10].std() == 0

    assert all(is_flat(0, seed) for seed in range(20))
    assert sum(is_flat(1, seed) for seed in range(20)) < 3  # the area may be shown in itself
    assert 30 < sum(is_flat(0.5, seed) for seed in range(100)) < 70

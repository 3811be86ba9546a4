import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_batch
from networks import make_trained, make_untrained, note_runs

import adjust
import inference
from bilateral_grid import apply_grid, fit_grid
from correction import correct
from model import ExposureCorrectionNet
from pyramid import gaussian_pyramid, pad_for_pyramid


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0]),
        ({"finest_level": 3}, [0]),
        ({"finest_level": 2}, [0, 1]),
        ({"finest_level": 1}, [0, 1, 2]),
        ({"level_scales": [1, 1, 1]}, [0, 1, 2]),
    ],
)
def test_the_network_corrects_as_many_levels_as_asked_for(settings, expected, make_photo):
    network = make_trained(layer_counts=[1, 1, 1], first_channels=[8, 8, 8], has_gain=True)
    runs = note_runs(network)
    correct(make_photo(70, 90), network, (64, 64), self_ensemble=False, **settings)
    assert runs == expected


@pytest.mark.parametrize(("side", "expected"), [(7, [0, 1, 2]), (16, [0, 1]), (32, [0])])
def test_small_photos_take_finer_levels(side, expected, make_photo):
    network = make_trained(layer_counts=[1, 1, 1], first_channels=[8, 8, 8], has_gain=True)
    runs = note_runs(network)
    correct(make_photo(side, 90), network, self_ensemble=False)
    assert runs == expected


@pytest.mark.parametrize("self_ensemble", [True, False])
def test_all_levels_give_what_the_network_gives(make_photo, monkeypatch, self_ensemble):
    monkeypatch.setattr(inference, "TONED_FROM", 1e6)  # never reached
    network, photo = make_trained(has_gain=True), make_photo(33, 21)
    batch = torch.from_numpy(photo / np.float32(255)).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = network(batch, self_ensemble=self_ensemble)[-1][0].permute(1, 2, 0).clamp(0, 1)
    corrected = correct(photo, network, finest_level=1, self_ensemble=self_ensemble, restraint=0)
    np.testing.assert_allclose(corrected, expected * 255, atol=0.6)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (33, 65), (128, 96)])
def test_one_gain_found_at_the_coarsest_level_is_carried_to_every_pixel(size, make_photo):
    network = ExposureCorrectionNet([1] * 4, [4] * 4, has_gain=True)
    network.sub_networks[0].head.bias.data[:3] = 0.5
    photo = make_photo(*size) // 2
    corrected = correct(photo, network, self_ensemble=False, restraint=0)
    np.testing.assert_allclose(corrected, photo * 1.5, atol=1)


@pytest.mark.parametrize("shape", [(3, 64, 96), (3, 96, 64), (3, 50, 70)])
def test_the_coarsest_level_is_carried_on_by_the_grid_where_it_lies(shape):
    network = make_trained(layer_counts=[1] * 3, first_channels=[8] * 3, has_gain=True)
    photo = F.interpolate(make_batch(1, 3, 3, 2), shape[1:], mode="bilinear")
    padded = pad_for_pyramid(photo, 3)
    with torch.inference_mode():
        start = gaussian_pyramid(padded, 3)[0]
        corrected = network.correct_level(0, start)[0].clamp(0, 1)
    expected = apply_grid(padded, fit_grid(start, corrected))[0].permute(1, 2, 0).clamp(0, 1)
    array = photo[0].permute(1, 2, 0).contiguous().numpy()
    made = correct(array, network, self_ensemble=False, restraint=0)
    np.testing.assert_allclose(made, expected[: shape[1], : shape[2]], atol=1e-5)


@pytest.mark.parametrize("finest_level", [1, 2, 3])
@pytest.mark.parametrize(("toned_from", "share"), [(0, 1), (2, 0.5)])
def test_what_changes_by_much_is_drawn_to_the_mean_of_toned_versions(
    make_photo, monkeypatch, finest_level, toned_from, share
):
    network = make_trained(layer_counts=[1] * 3, first_channels=[8] * 3, has_gain=True)
    for finer in network.sub_networks[1:]:
        finer.head.weight.data.zero_()  # so that all levels want what the coarsest one does
        finer.head.bias.data.zero_()
    photo = make_photo(64, 96) / np.float32(255)

    def coarsest(picture):
        batch = torch.from_numpy(picture).permute(2, 0, 1)[None]
        return gaussian_pyramid(batch, 3)[0][0].permute(1, 2, 0).numpy()

    with torch.inference_mode():
        batch = torch.from_numpy(photo).permute(2, 0, 1)[None]
        toned = network.correct_toned(gaussian_pyramid(batch, 3)[0])
        plain = network(batch, self_ensemble=True)[0]
    toned, plain = (image[0].permute(1, 2, 0).clamp(0, 1).numpy() for image in (toned, plain))
    medians = (
        np.median(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in (plain, coarsest(photo))
    )
    change = abs(np.subtract(*medians))
    made = []
    for least in (toned_from * change, 1e6):  # the second is never reached
        monkeypatch.setattr(inference, "TONED_FROM", least)
        made.append(coarsest(correct(photo, network, finest_level=finest_level, restraint=0)))
    wanted = toned - plain
    drawn = np.sum((made[0] - made[1]) * wanted) / np.sum(wanted**2)
    assert drawn == pytest.approx(share, rel=0.1)


def test_finer_sub_networks_still_count_where_toned_versions_do(make_photo, monkeypatch):
    monkeypatch.setattr(inference, "TONED_FROM", 0)
    network, photo = make_trained(has_gain=True), make_photo(64, 96) / np.float32(255)
    with torch.inference_mode():
        batch = torch.from_numpy(photo).permute(2, 0, 1)[None]
        coarsest = gaussian_pyramid(batch, 2)[0]
        plain, finer = network(batch, self_ensemble=True)
        toned = network.correct_toned(coarsest)
    grid = fit_grid(plain.clamp(0, 1), toned.clamp(0, 1))
    expected = apply_grid(finer.clamp(0, 1), grid)[0].permute(1, 2, 0).clamp(0, 1)
    corrected = correct(photo, network, finest_level=1, restraint=0)
    np.testing.assert_allclose(corrected, expected, atol=1e-5)


def test_what_the_network_leaves_alone_is_not_toned_either(make_photo, monkeypatch):
    monkeypatch.setattr(inference, "TONED_FROM", 0)
    network, photo = make_untrained([1, 1], [8, 8], has_gain=True), make_photo(64, 96)
    monkeypatch.setattr(network, "correct_toned", torch.zeros_like)
    assert not correct(photo, network, restraint=0).any()
    assert np.array_equal(correct(photo, network, restraint=0.05), photo)


def test_restraint_looks_at_the_photo_without_its_padding(make_photo, monkeypatch):
    shapes, measure = [], adjust.restrained_strength
    monkeypatch.setattr(
        adjust,
        "restrained_strength",
        lambda *given: shapes.append(given[0].shape) or measure(*given),
    )
    network = make_trained(layer_counts=[1] * 3, first_channels=[8] * 3, has_gain=True)
    for finest_level in (1, 2, 3):
        correct(make_photo(3, 90), network, finest_level=finest_level, self_ensemble=False)
    assert shapes == [(3, 90, 3), (2, 45, 3), (1, 23, 3)]


@pytest.mark.parametrize("size", [(1, 1), (3, 90)])
@pytest.mark.parametrize("level_count", [1, 4])
def test_tiny_photos_are_toned_too(size, level_count, make_photo, monkeypatch):
    network = make_trained(layer_counts=[1] * level_count, first_channels=[8] * level_count)
    calls, correct_toned = [], network.correct_toned
    monkeypatch.setattr(
        network, "correct_toned", lambda level: calls.append(1) or correct_toned(level)
    )
    assert correct(make_photo(*size), network).shape == (*size, 3)
    assert calls == [1]


def test_toned_versions_are_of_the_self_ensemble_and_not_with_level_scales(make_photo, monkeypatch):
    network, photo = make_trained(), make_photo(64, 96)
    calls = []
    monkeypatch.setattr(network, "correct_toned", lambda level: calls.append(1) or level)
    correct(photo, network, self_ensemble=False)
    correct(photo, network, level_scales=[1, 1])
    assert calls == []
    correct(photo, network)
    assert calls == [1]


def test_an_untrained_network_changes_nothing_without_restraint_either(make_photo):
    network, photo = make_untrained([1, 1], [8, 8], has_gain=True), make_photo(64, 96)
    assert np.array_equal(correct(photo, network, restraint=0), photo)


@pytest.mark.parametrize("finest_level", [-1, 0, 3])
def test_a_level_that_the_weights_have_not_is_refused(make_photo, finest_level):
    with pytest.raises(ValueError, match=rf"finest_level is {finest_level}; allowed: 1 to 2"):
        correct(make_photo(8, 8), make_trained(), finest_level=finest_level)


def test_level_scales_want_all_levels(make_photo):
    with pytest.raises(ValueError, match="finest_level is 2; with level_scales it is 1 or None"):
        correct(make_photo(8, 8), make_trained(), finest_level=2, level_scales=[1, 1])

import pytest
import torch
import torch.nn.functional as F
from conftest import make_batch

import bilateral_grid
from bilateral_grid import PLACE_SPREAD, PLACES, RIDGE, TONE_SPREAD, TONES, apply_grid, fit_grid
from upsample import FLAT_VARIANCE


def carry(small_abnormal, small_corrected, photo):
    return apply_grid(photo, fit_grid(small_abnormal, small_corrected))


def shrink(photo, scale=8):
    return F.avg_pool2d(photo, scale)


def make_bar(height=128, width=192):
    """White, with a dark bar that is not aligned with the coarse pixels."""
    photo = torch.ones(1, 3, height, width)
    photo[..., 67:103] = 0.1
    return photo


@pytest.mark.parametrize("size", [(96, 160), (160, 96), (64, 8)])
def test_one_gain_and_offset_per_channel_is_carried_on(size):
    photo = make_batch(1, 3, *size) * 0.6
    gain, offset = (
        torch.tensor(values).view(3, 1, 1) for values in ([1.5, 1.2, 0.7], [0.05, 0, 0.1])
    )
    small = shrink(photo)
    carried = carry(small, gain * small + offset, photo)
    torch.testing.assert_close(carried, gain * photo + offset, atol=0.01, rtol=0)


def test_white_stays_even_up_to_the_edge_of_what_is_dark():
    photo = make_bar()
    small = shrink(photo)
    carried = carry(small, 0.8 * small**2, photo)
    assert carried[..., :67].std() < 0.002
    assert carried[..., 103:].std() < 0.002
    torch.testing.assert_close(carried[..., 0].mean(), torch.tensor(0.8), atol=0.01, rtol=0)
    assert carried[..., 67:103].max() < 0.05


def test_colours_between_those_that_were_seen_follow_the_tone_curve():
    ramp = torch.linspace(0.1, 1, 512).expand(1, 3, 64, 512)
    small = shrink(ramp)
    torch.testing.assert_close(carry(small, small**0.5, ramp), ramp**0.5, atol=0.02, rtol=0)


def test_places_of_one_colour_may_be_corrected_by_different_amounts():
    photo = make_batch(1, 3, 128, 256) * 0.4
    small = shrink(photo)
    gain = torch.linspace(1, 2, 32)  # from left to right
    carried = carry(small, gain * small, photo)
    shares = [
        (carried[..., part].mean() / photo[..., part].mean()).item()
        for part in (slice(0, 16), slice(-16, None))
    ]
    assert shares == pytest.approx([1.18, 1.82], abs=0.06)
    turned = carry(small.mT, (gain * small).mT, photo.mT)
    torch.testing.assert_close(turned.mT, carried, atol=1e-4, rtol=0)


def test_colours_of_one_brightness_may_be_corrected_by_different_amounts():
    photo = torch.full((1, 3, 64, 64), 0.4)
    photo[0, :, :, 32:] = torch.tensor([0.8, 0.3, 0.1]).view(3, 1, 1)
    small = shrink(photo)
    greyer = small.mean(1, keepdim=True) + 0.5 * (small - small.mean(1, keepdim=True))
    expected = photo.mean(1, keepdim=True) + 0.5 * (photo - photo.mean(1, keepdim=True))
    torch.testing.assert_close(carry(small, greyer, photo), expected, atol=0.01, rtol=0)


def test_detail_is_amplified_as_the_coarse_contrast_is():
    photo = 0.3 + 0.1 * make_batch(1, 3, 64, 64) + torch.linspace(0, 0.3, 64)
    small = shrink(photo)
    carried = carry(small, 2 * small - 0.4, photo)
    ratio = (carried - shrink(carried, 64)).std() / (photo - shrink(photo, 64)).std()
    assert ratio.item() == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (16, 16)])
def test_flat_photos_come_out_flat(value, size):
    small = torch.full((1, 3, *size), value)
    photo = F.interpolate(small, scale_factor=8)
    carried = carry(small, small * 0.5 + 0.2, photo)
    torch.testing.assert_close(carried, torch.full_like(photo, value * 0.5 + 0.2))


def test_brightness_that_no_coarse_pixel_has_is_mapped_as_the_nearest():
    small = make_batch(1, 3, 8, 8) * 0.1 + 0.4
    photo = F.interpolate(small, scale_factor=8)
    photo[..., 10, 10], photo[..., 20, 20] = 0, 1
    carried = carry(small, 1.5 * small, photo)
    assert carried.isfinite().all()
    assert carried[0, 0, 10, 10].item() == pytest.approx(0, abs=0.02)
    assert carried[0, 0, 20, 20].item() == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("size", [(40, 56), (1, 1), (56, 3)])
def test_the_grid_is_read_trilinearly(size):
    photo, grid = make_batch(1, 3, *size), make_batch(PLACES, 12, TONES, PLACES)
    y, x = torch.meshgrid(*((torch.arange(side) + 0.5) / side for side in size), indexing="ij")
    where = 2 * torch.stack([x, photo[0].mean(0), y], 2)[None, None] - 1  # innermost first
    solid = grid.permute(1, 0, 2, 3)[None]
    maps = F.grid_sample(solid, where, align_corners=True)[0, :, 0]
    expected = torch.einsum("oihw,ihw->ohw", maps[:9].view(3, 3, *size), photo[0]) + maps[9:]
    torch.testing.assert_close(apply_grid(photo, grid)[0], expected)


@pytest.mark.parametrize("chunk", [1, 100, 10**6])
def test_the_result_does_not_depend_on_how_many_pixels_are_mapped_at_once(monkeypatch, chunk):
    photo, grid = make_batch(1, 3, 17, 30), make_batch(PLACES, 12, TONES, PLACES)
    expected = apply_grid(photo, grid)
    monkeypatch.setattr(bilateral_grid, "CHUNK", chunk)
    torch.testing.assert_close(apply_grid(photo, grid), expected)


@pytest.mark.parametrize("size", [(12, 20), (1, 7), (70, 36)])
def test_every_node_is_a_weighted_ridge_regression(size):
    """The same by least squares on a design matrix, in doubles, node by node."""
    abnormal = make_batch(1, 1, *size) * 0.7 + make_batch(1, 3, *size, seed=1) * 0.3
    corrected = abnormal**1.5 * make_batch(1, 1, *size, seed=2)
    x, y = (image[0].double() for image in (abnormal, corrected))
    gain = [
        1 + ((a - a.mean()) * (b - a)).mean() / (a.var(correction=0) + FLAT_VARIANCE)
        for a, b in zip(x, y, strict=True)
    ]
    whole = torch.stack(gain).diag()
    step, long_side = -(-max(size) // 32), max(size)
    grid = fit_grid(abnormal, corrected)
    place = (torch.arange(PLACES) / (PLACES - 1)).double()
    across, down = place * size[1] / long_side, place * size[0] / long_side
    pixels = [(i, j) for i in range(0, size[0], step) for j in range(0, size[1], step)]
    values, targets = (torch.stack([image[:, i, j] for i, j in pixels]) for image in (x, y))
    where = (torch.tensor(pixels).double() + 0.5) / long_side
    for top, tone, left in [(0, 3, 4), (2, 10, 1), (4, 17, 0), (3, 20, 2)]:
        distance = (where[:, 0] - down[top]) ** 2 + (where[:, 1] - across[left]) ** 2
        unlike = (values.mean(1) - tone / (TONES - 1)) ** 2
        exponent = -distance / (2 * PLACE_SPREAD**2) - unlike / (2 * TONE_SPREAD**2)
        weights = (exponent - exponent.max()).exp()
        weights = (weights / weights.sum())[:, None]
        design = torch.cat([values, torch.ones(len(values), 1)], 1)
        penalty = torch.tensor([RIDGE, RIDGE, RIDGE, 0]).double().diag()
        left_side = design.T @ (weights * design) + penalty
        fit = torch.linalg.solve(left_side, design.T @ (weights * (targets - values @ whole)))
        expected = torch.cat([(fit[:3].T + whole).flatten(), fit[3]])
        torch.testing.assert_close(grid[top, :, tone, left].double(), expected, atol=0.01, rtol=0)


def test_large_levels_are_told_by_few_of_their_pixels():
    small = F.interpolate(make_batch(1, 1, 12, 16), size=(480, 640)).expand(-1, 3, -1, -1)
    expected = small**1.5
    assert (carry(small, expected, small) - expected).abs().mean() < 0.01

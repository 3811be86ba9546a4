import struct

import cv2
import numpy as np
import pytest
from photo_files import (
    ADOBE,
    P3,
    P3_PRIMARIES,
    SCENE,
    assert_close,
    by_lcms,
    encode,
    icc_chunk,
    make_png_16,
    make_profile,
    srgb_encoded,
)
from PIL import Image

from colour import to_8_bit
from photo import load_photo, save_photo


def test_a_correction_reaches_a_wide_gamut_file_as_the_network_saw_it(tmp_path):
    (tmp_path / "in.png").write_bytes(encode(SCENE, "PNG", icc_profile=P3))
    photo = load_photo(tmp_path / "in.png")
    corrected = np.rint(photo.pixels * 0.8).astype(np.uint16)
    save_photo(photo, corrected, tmp_path / "out.png")
    result = by_lcms(Image.open(tmp_path / "out.png"), P3)
    is_inside = photo.pixels.min(axis=-1) > 0  # beyond sRGB the result keeps more colour
    assert is_inside.mean() > 0.8
    assert np.abs(result - corrected / 257)[is_inside].max() <= 3


def test_a_16_bit_gradient_keeps_every_level_through_a_correction(tmp_path):
    ramp = np.repeat(np.arange(0, 65536, 16, dtype=np.uint16)[None, :, None], 3, axis=2)
    (tmp_path / "in.png").write_bytes(make_png_16(ramp, icc_chunk(ADOBE)))
    photo = load_photo(tmp_path / "in.png")
    assert len(np.unique(photo.pixels[..., 1])) > 4000
    save_photo(photo, photo.pixels // 2, tmp_path / "out.tif")
    written = cv2.imread(str(tmp_path / "out.tif"), cv2.IMREAD_UNCHANGED)
    assert len(np.unique(written[..., 1])) > 4000
    steps = np.diff(written[0, 64:, 1].astype(int))  # the deepest blacks are steps in sRGB itself
    assert steps.min() >= -4


def test_an_8_bit_gradient_of_another_profile_shows_no_bands_when_it_is_brightened(tmp_path):
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 3, axis=2)
    (tmp_path / "in.png").write_bytes(encode(ramp, "PNG", icc_profile=ADOBE))
    photo = load_photo(tmp_path / "in.png")
    corrected = np.minimum(photo.pixels * 4.0, 65535).astype(np.uint16)
    save_photo(photo, corrected, tmp_path / "out.png")
    written = np.asarray(Image.open(tmp_path / "out.png"))[0, :, 1]
    assert written.dtype == np.uint8
    gamma = 563 / 256
    srgb = np.minimum(4 * srgb_encoded((np.arange(64) / 255) ** gamma), 1)
    light = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    expected = np.diff(255 * light ** (1 / gamma))
    assert np.abs(np.diff(written.astype(int)) - expected).max() <= 1.5


@pytest.mark.parametrize("kind", range(5))
def test_parametric_curves_are_what_littlecms_makes_of_them(kind, tmp_path):
    parameters = [(1.8,), (2.0, 0.9, 0.1), (2.2, 0.8, 0.1, 0.05), (2.4, 0.95, 0.05, 0.08, 0.04)]
    parameters.append((2.4, 0.9, 0.05, 0.08, 0.04, 0.02, 0.01))
    fixed = [round(value * 65536) for value in parameters[kind]]
    curve = b"para\0\0\0\0" + struct.pack(f">Hxx{len(fixed)}i", kind, *fixed)
    profile = make_profile(curve=curve, primaries=P3_PRIMARIES)
    (tmp_path / "in.png").write_bytes(encode(SCENE, "PNG", icc_profile=profile))
    seen = load_photo(tmp_path / "in.png").pixels
    assert_close(to_8_bit(seen), by_lcms(Image.fromarray(SCENE), profile), 2)


def test_16_bits_are_rounded_to_the_nearest_8():
    levels = np.arange(65536, dtype=np.uint16)[None]
    assert np.array_equal(to_8_bit(levels), np.rint(levels / 257))

"""Every kind of file that people have, through load_photo and save_photo."""

import os

import cv2
import numpy as np
import pytest
from photo_cases import CASES
from photo_files import (
    HEIGHT,
    MAKER_NOTE,
    SCENE,
    SCENE_16,
    WIDTH,
    assert_close,
    assert_exif_is_kept,
    encode,
    make_exif,
    make_jpeg,
    read_plainly,
    turned_away,
)
from PIL import Image, JpegImagePlugin

from colour import to_8_bit
from photo import Photo, PhotoError, load_photo, load_rgb, output_suffix, save_photo

FORMAT_WRITTEN = {
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".avif": "AVIF",
}


def test_the_table_has_at_least_40_kinds_of_files():
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_photo_saved_unchanged_keeps_pixels_and_metadata(case, tmp_path):
    source, result = tmp_path / f"in{case.suffix}", tmp_path / f"out/result{case.suffix}"
    source.write_bytes(case.data)
    photo = load_photo(source)
    is_deep = case.seen.max() > 255
    assert (photo.pixels.dtype == np.uint16) == (is_deep or photo.native is not None)
    assert_close(photo.pixels if is_deep else to_8_bit(photo.pixels), case.seen, case.tolerance)
    assert photo.pixels.flags.c_contiguous and photo.pixels.flags.writeable
    assert photo.is_grey == (case.mode in ("L", "LA", "I;16") or "grey" in case.name)
    assert (photo.alpha is None) == (case.alpha is None)
    if case.alpha is not None:
        assert photo.alpha.dtype == case.seen.dtype
        assert np.array_equal(photo.alpha, case.alpha)

    save_photo(photo, photo.pixels, result)
    colour, alpha = read_plainly(result, is_deep)
    is_lossless = case.stored is not None and case.suffix in (".png", ".tif")
    stored = case.seen if case.stored is None else case.stored
    assert_close(colour, stored, 0 if is_lossless else 2 * case.tolerance)
    assert (alpha is None) == (case.alpha is None)
    assert alpha is None or np.array_equal(alpha, case.alpha)

    with Image.open(result) as image:
        assert image.format.replace("MPO", "JPEG") == FORMAT_WRITTEN[case.suffix]
        assert image.mode == case.mode and image.size == (WIDTH, HEIGHT)
        icc = image.info.get("icc_profile")
        assert icc == case.icc or (case.icc == b"sRGB" and b"sRGB" in icc.replace(b"\0", b""))
        if MAKER_NOTE in case.data if case.exif is None else case.exif:
            assert_exif_is_kept(image.getexif())
        assert image.getexif().get(274, 1) == 1
        found = {**image.info, **image.getexif(), "sampling": sampling_of(image)}
        for key, expected in (case.checks or {}).items():
            assert found[key] == (pytest.approx(expected, rel=1e-3) if key == "dpi" else expected)


def sampling_of(image: Image.Image) -> int | None:
    is_colour_jpeg = hasattr(image, "layer") and image.layers == 3
    return JpegImagePlugin.get_sampling(image) if is_colour_jpeg else None


def test_load_rgb_decodes_a_jpeg_at_the_smallest_scale_that_suffices(tmp_path):
    large = cv2.resize(SCENE, (640, 480))
    (tmp_path / "in.jpg").write_bytes(make_jpeg(turned_away(large, 6), exif=make_exif(6)))
    sides = {50: 60, 120: 120, 121: 240, 300: 480, 900: 480}  # asked for, and given
    for min_size, side in sides.items():
        assert load_rgb(tmp_path / "in.jpg", min_size).shape == (side, side * 4 // 3, 3)
    small = cv2.resize(large, (160, 120), interpolation=cv2.INTER_AREA)
    assert_close(load_rgb(tmp_path / "in.jpg", 120), small, 6)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_load_rgb_agrees_with_load_photo_in_8_bits(case, tmp_path):
    (tmp_path / f"in{case.suffix}").write_bytes(case.data)
    pixels = load_photo(tmp_path / f"in{case.suffix}").pixels
    rgb = load_rgb(tmp_path / f"in{case.suffix}", min_size=HEIGHT)
    assert rgb.dtype == np.uint8
    assert_close(rgb, pixels / (257 if pixels.dtype == np.uint16 else 1), 0.5)


def test_results_keep_their_suffix_unless_the_format_changes():
    assert output_suffix("a/b.JPG") == ".JPG"
    assert output_suffix("b.jpeg", "jpeg") == ".jpeg"
    assert output_suffix("b.png", "jpeg") == ".jpg"
    assert output_suffix("b.NEF") == ".tif" and output_suffix("b.nef", "png") == ".png"
    assert output_suffix("b.xyz") == ".xyz" and output_suffix("b", "webp") == ".webp"


def test_a_name_without_known_suffix_gets_the_format_of_the_content(tmp_path):
    (tmp_path / "photo").write_bytes(encode(SCENE, "WEBP", lossless=True))
    photo = load_photo(tmp_path / "photo")
    save_photo(photo, photo.pixels, tmp_path / "result")
    assert Image.open(tmp_path / "result").format == "WEBP"


def test_what_is_no_readable_file_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    reasons = {"": "is not a file", "pipe.jpg": "is not a file", "no.jpg": "No such file"}
    for name, message in reasons.items():
        with pytest.raises(PhotoError, match=message):
            load_photo(tmp_path / name)
    (tmp_path / "secret.jpg").write_bytes(make_jpeg(SCENE))

    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", deny)
    with pytest.raises(PhotoError, match=r"secret.jpg: cannot be read: Permission denied"):
        load_photo(tmp_path / "secret.jpg")


def test_a_large_file_that_is_no_photo_is_refused_by_its_first_bytes(tmp_path):
    with open(tmp_path / "film.jpg", "wb") as file:
        file.truncate(2**42)  # more than fits into any memory
    with pytest.raises(PhotoError, match=r"film\.jpg: is no JPEG"):
        load_photo(tmp_path / "film.jpg")


def test_a_full_disk_leaves_the_old_file_and_no_half_one(tmp_path, monkeypatch):
    (tmp_path / "out.jpg").write_bytes(b"old")

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PhotoError, match=r"out.jpg: cannot be written: No space left on device"):
        save_photo(Photo(SCENE), SCENE, tmp_path / "out.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["out.jpg"]
    assert (tmp_path / "out.jpg").read_bytes() == b"old"


def test_want_of_memory_and_a_failing_disk_are_no_damage(tmp_path, monkeypatch):
    (tmp_path / "in.jpg").write_bytes(make_jpeg(SCENE))
    reasons = {
        "too little memory is free": MemoryError(),
        "Input/output error": OSError(5, "Input/output error"),
    }
    for reason, error in reasons.items():

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr("photo.decode", fail)
        with pytest.raises(PhotoError, match=f"in.jpg: cannot be read: {reason}"):
            load_photo(tmp_path / "in.jpg")
        monkeypatch.setattr("photo.encode", fail)
        with pytest.raises(PhotoError, match=f"out.jpg: cannot be written: {reason}"):
            save_photo(Photo(SCENE), SCENE, tmp_path / "out.jpg")


def test_wrong_arguments_are_named_with_what_is_allowed(tmp_path):
    photo = Photo(SCENE)
    shapes = r"corrected is \(16, 48, 3\) uint8, the photo \(32, 48, 3\)"
    with pytest.raises(ValueError, match=shapes):
        save_photo(photo, SCENE[::2], tmp_path / "out.jpg")
    with pytest.raises(ValueError, match=r"uint16, the photo .* uint8"):
        save_photo(photo, SCENE_16, tmp_path / "out.jpg")
    floats = np.float32(SCENE / 255)
    with pytest.raises(ValueError, match="corrected is float32; allowed: uint8 and uint16"):
        save_photo(Photo(floats), floats, tmp_path / "out.jpg")
    with pytest.raises(ValueError, match="quality is 0, allowed are 1 to 100"):
        save_photo(photo, SCENE, tmp_path / "out.jpg", quality=0)
    formats = "output_format is 'gif', allowed are jpeg, png, tiff, webp"
    with pytest.raises(ValueError, match=formats):
        save_photo(photo, SCENE, tmp_path / "out.jpg", output_format="gif")

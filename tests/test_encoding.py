import struct

import numpy as np
import pytest
import tifffile
from photo_files import (
    ALPHA,
    ALPHA_16,
    GREY,
    GREY_16,
    GREY_18,
    P3,
    SCENE,
    SCENE_16,
    SRGB,
    XMP,
    as_rgb,
    assert_close,
    assert_exif_is_kept,
    by_lcms,
    encode,
    exif_chunk,
    icc_chunk,
    make_exif,
    make_jpeg,
    make_png_16,
    make_tiff,
    read_plainly,
)
from PIL import Image

from photo import Photo, PhotoError, load_photo, output_suffix, save_photo


@pytest.mark.parametrize("output_format", ["jpeg", "png", "tiff", "webp"])
def test_every_photo_can_be_written_in_every_format(output_format, tmp_path):
    deep = make_png_16(np.dstack([SCENE_16, ALPHA_16]), exif_chunk(), icc_chunk(SRGB))
    (tmp_path / "in.png").write_bytes(deep)
    photo = load_photo(tmp_path / "in.png")
    result = tmp_path / f"out{output_suffix('in.png', output_format)}"
    save_photo(photo, photo.pixels, result, output_format, quality=97)
    colour, alpha = read_plainly(result, output_format in ("png", "tiff"))
    with Image.open(result) as image:
        assert image.format == output_format.upper() and image.info["icc_profile"] == SRGB
        assert_exif_is_kept(image.getexif())
    if output_format == "jpeg":
        cover = ALPHA_16[..., None] / 65535
        assert_close(colour, 255 * (1 - cover) + SCENE_16 / 257 * cover, 6)
    elif output_format == "webp":
        assert_close(colour, SCENE_16 / 257, 10)
        assert_close(alpha, ALPHA_16 / 257, 0.5)
    else:
        assert np.array_equal(colour, SCENE_16) and np.array_equal(alpha, ALPHA_16)


@pytest.mark.parametrize(("depth", "output_format"), [(8, "webp"), (16, "webp"), (16, "tiff")])
def test_grey_that_becomes_rgb_is_srgb_and_has_no_grey_profile(depth, output_format, tmp_path):
    samples = np.dstack([GREY_16, ALPHA_16])
    data = make_png_16(samples, icc_chunk(GREY_18))
    if depth == 8:
        data = encode(Image.fromarray(GREY), "PNG", icc_profile=GREY_18)
    (tmp_path / "in.png").write_bytes(data)
    photo = load_photo(tmp_path / "in.png")
    assert photo.native is not None
    result = tmp_path / f"out{output_suffix('in.png', output_format)}"
    save_photo(photo, photo.pixels, result, output_format, quality=100)
    with Image.open(result) as image:
        assert "icc_profile" not in image.info
    again = load_photo(result)
    tolerance = 1 if output_format == "tiff" else 6 * 257
    assert_close(again.pixels * (65535 / np.iinfo(again.pixels.dtype).max), photo.pixels, tolerance)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("is_grey", [False, True])
def test_the_bands_in_which_a_photo_is_written_do_not_show(suffix, is_grey, tmp_path, monkeypatch):
    samples = np.dstack([GREY_16 if is_grey else SCENE_16, ALPHA_16])
    (tmp_path / "in.png").write_bytes(make_png_16(samples, icc_chunk(GREY_18 if is_grey else P3)))
    photo = load_photo(tmp_path / "in.png")
    save_photo(photo, photo.pixels // 2, tmp_path / f"whole{suffix}")
    monkeypatch.setattr("encoding.BAND_PIXELS", 1)
    save_photo(photo, photo.pixels // 2, tmp_path / f"bands{suffix}")
    whole, bands = (tmp_path / f"{name}{suffix}" for name in ("whole", "bands"))
    assert bands.read_bytes() == whole.read_bytes()


def test_a_format_without_profiles_holds_srgb(tmp_path):
    clear = np.dstack([SCENE, ALPHA])
    (tmp_path / "in.png").write_bytes(encode(clear, "PNG", icc_profile=P3))
    photo = load_photo(tmp_path / "in.png")
    save_photo(photo, photo.pixels, tmp_path / "out.bmp")
    written = np.asarray(Image.open(tmp_path / "out.bmp"))
    assert_close(written[..., :3], by_lcms(Image.fromarray(SCENE), P3), 1)
    assert np.array_equal(written[..., 3], ALPHA)


def test_a_grey_photo_stays_grey_when_the_correction_is_tinted(tmp_path):
    (tmp_path / "in.jpg").write_bytes(make_jpeg(GREY))
    photo = load_photo(tmp_path / "in.jpg")
    tinted = photo.pixels // np.array([1, 2, 4], np.uint8)
    save_photo(photo, tinted, tmp_path / "out.png")
    written = Image.open(tmp_path / "out.png")
    luma = tinted @ np.array([0.299, 0.587, 0.114])
    assert written.mode == "L"
    assert_close(np.asarray(written), luma, 1)


def test_deep_grey_with_alpha_survives_tiff(tmp_path):
    photo = Photo(as_rgb(GREY_16), ALPHA_16, is_grey=True)
    save_photo(photo, photo.pixels, tmp_path / "out.tif")
    again = load_photo(tmp_path / "out.tif")
    assert np.array_equal(again.pixels, photo.pixels) and np.array_equal(again.alpha, ALPHA_16)


@pytest.mark.parametrize("scene, mask", [(SCENE, ALPHA), (SCENE_16, ALPHA_16)])
def test_a_mask_in_a_tiff_stays_one_and_becomes_no_transparency(scene, mask, tmp_path):
    data = make_tiff(np.dstack([scene, mask]), extrasamples=["unspecified"])
    (tmp_path / "in.tif").write_bytes(data)
    photo = load_photo(tmp_path / "in.tif")
    assert np.array_equal(photo.pixels, scene)
    save_photo(photo, scene // 2, tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as written:
        assert written.pages[0].extrasamples == (0,)
        assert np.array_equal(written.asarray(), np.dstack([scene // 2, mask]))
    for name in ("out.png", "out.jpg"):
        save_photo(photo, photo.pixels, tmp_path / name)
        colour, alpha = read_plainly(tmp_path / name, is_deep=False)
        assert alpha is None
        assert_close(colour, SCENE, 5)


def test_quality_changes_the_size_of_a_jpeg(tmp_path):
    photo = Photo(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    sizes = []
    for quality in (40, None, 100):
        save_photo(photo, photo.pixels, tmp_path / "out.jpg", quality=quality)
        sizes.append((tmp_path / "out.jpg").stat().st_size)
    save_photo(photo, photo.pixels, tmp_path / "out.jpg", quality=95)
    assert sizes[0] < sizes[1] == (tmp_path / "out.jpg").stat().st_size < sizes[2]


@pytest.mark.parametrize(("dropped", "kept"), [("exif", "xmp"), ("xmp", "exif")])
def test_metadata_too_long_for_a_jpeg_is_dropped_and_the_rest_kept(dropped, kept, tmp_path):
    notes = {"exif": make_exif().removeprefix(b"Exif\0\0"), "xmp": XMP}
    notes[dropped] += bytes(80000)
    save_photo(Photo(SCENE, **notes), SCENE, tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as image:
        assert dropped not in image.info and image.info[kept].endswith(notes[kept])
        assert_close(np.asarray(image), SCENE, 6)


def test_exif_too_odd_for_a_tiff_is_dropped_there(tmp_path):
    odd = struct.pack("<4sIHHHIfI", b"II*\0", 8, 1, 271, 11, 1, 1.5, 0)  # a camera's name of 1.5
    photo = Photo(SCENE, exif=odd)
    save_photo(photo, SCENE, tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image:
        assert np.array_equal(np.asarray(image), SCENE) and 271 not in image.getexif()


@pytest.mark.parametrize(("dpi", "expected"), [(0.3, None), (65535.7, None), (300, (300, 300))])
def test_a_resolution_that_a_jpeg_cannot_hold_is_dropped(dpi, expected, tmp_path):
    (tmp_path / "in.tif").write_bytes(encode(SCENE, "TIFF", dpi=(dpi, dpi)))
    photo = load_photo(tmp_path / "in.tif")
    save_photo(photo, photo.pixels, tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.info.get("dpi") == expected


def test_what_a_format_cannot_hold_is_refused_with_the_reason(tmp_path):
    wide = np.zeros((1, 16384, 3), np.uint8)
    reason = r"cannot be written as WEBP: .*; choose another output_format"
    with pytest.raises(PhotoError, match=reason):
        save_photo(Photo(wide), wide, tmp_path / "wide.webp")
    wide = np.zeros((1, 65501, 3), np.uint8)
    reason = r"cannot be written as JPEG: .* at most 65500 px a side; "
    with pytest.raises(PhotoError, match=reason):
        save_photo(Photo(wide), wide, tmp_path / "wide.jpg")
    save_photo(Photo(wide[:, 1:]), wide[:, 1:], tmp_path / "wide.jpg")
    (tmp_path / "wide.jpg").unlink()
    (tmp_path / "file").touch()
    with pytest.raises(PhotoError, match="cannot be written: "):
        save_photo(Photo(SCENE), SCENE, tmp_path / "file/out.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

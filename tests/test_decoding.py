import io
import re
import struct
import sys
import types
import zlib

import numpy as np
import pytest
import tifffile
from photo_files import (
    ALPHA_16,
    GREY,
    GREY_16,
    HEIGHT,
    LUT_RGB,
    SCENE,
    SCENE_16,
    SRGB,
    WIDTH,
    XMP,
    XMP_UPRIGHT,
    assert_close,
    assert_exif_is_kept,
    encode,
    make_exif,
    make_jpeg,
    make_png_16,
    make_tiff,
    png_chunk,
    read_plainly,
    turned_away,
)
from PIL import Image, PngImagePlugin

from photo import PhotoError, load_photo, load_rgb, output_suffix, save_photo


def animated(format: str) -> bytes:
    frames = [Image.fromarray(SCENE), Image.fromarray(SCENE[::-1])]
    return encode(frames[0], format, save_all=True, append_images=frames[1:])


def preview_first(is_in_sub_ifd: bool) -> bytes:
    stream = io.BytesIO()
    options = {"subifds": 1} if is_in_sub_ifd else {}
    with tifffile.TiffWriter(stream) as writer:
        writer.write(SCENE[::2, ::2], photometric="rgb", metadata=None, subfiletype=1, **options)
        writer.write(SCENE, photometric="rgb", metadata=None, subfiletype=0)
    return stream.getvalue()


JPEG, PNG, DEEP_TIFF = make_jpeg(SCENE), encode(SCENE, "PNG"), make_tiff(SCENE_16)
HUGE = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
BOMB = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", HUGE) + PNG[33:]
MANY = make_tiff(np.dstack([SCENE, SCENE[..., :2]]), extrasamples=["unassalpha", "unspecified"])
PLANES = make_tiff(np.moveaxis(SCENE_16, 2, 0).copy(), planarconfig="separate")
FLOATS = make_tiff(GREY / np.float32(255))
SIGNED = make_tiff(GREY.astype(np.int16))
LAB = make_tiff(SCENE_16, photometric="cielab")
CLEAR_GREY = make_tiff(
    np.dstack([GREY_16, ALPHA_16]),
    photometric="minisblack",
    planarconfig="contig",
    extrasamples=["unassalpha"],
)
HEIC_HEAD = b"\0\0\0\x18ftypheic" + bytes(100)
HOSTILE = [
    ("empty.jpg", b"", "is empty"),
    ("text.jpg", b"hello, I am no photo", "is no JPEG, PNG, .* convert it"),
    ("drawing.png", encode(SCENE, "GIF"), "is no JPEG, PNG"),
    ("half.jpg", JPEG[:-100], "damaged or unsupported JPEG: .*truncated"),
    ("head.jpg", JPEG[:30], "damaged or unsupported JPEG"),
    ("half.png", PNG[: len(PNG) // 2], "damaged or unsupported PNG"),
    ("head.png", PNG[:20], "damaged or unsupported PNG"),
    ("half deep.png", make_png_16(SCENE_16)[:3000], "damaged or unsupported PNG of 16 bits"),
    ("half deep.tif", DEEP_TIFF[: len(DEEP_TIFF) // 2], "damaged or unsupported TIFF of 16 bits"),
    ("half.tif", make_tiff(SCENE)[:3000], "damaged or unsupported TIFF"),
    ("half.webp", encode(SCENE, "WEBP")[:-40], "damaged or unsupported WEBP"),
    ("half.bmp", encode(SCENE, "BMP")[:2000], "damaged or unsupported BMP"),
    ("bomb.png", BOMB, "60000 x 60000 px are 3600 megapixels, allowed are 300; make it smaller"),
    ("animated.webp", animated("WEBP"), "holds 2 pictures; save the one you mean"),
    ("animated.png", animated("PNG"), "holds 2 pictures"),
    ("pages.tif", animated("TIFF"), "holds 2 pictures"),
    ("preview.tif", preview_first(False), "starts with a preview; save the photo itself"),
    ("preview of a sub ifd.tif", preview_first(True), "starts with a preview"),
    ("float.tif", FLOATS, "colour mode F is not supported; save it as RGB"),
    ("float colours.tif", make_tiff(SCENE / np.float32(255)), "floats, signed .* save it as RGB"),
    ("signed.tif", SIGNED, "floats, signed .* are not supported; save it as RGB of 8 or 16 bits"),
    ("lab.tif", LAB, "floats, signed numbers, 16-bit Lab"),
    ("clear grey.tif", CLEAR_GREY, "16-bit grey with alpha are not supported"),
    ("five channels.tif", MANY, "holds channels beyond colour and alpha; flatten it"),
    ("planes.tif", PLANES, "separate colour planes; save it with"),
    ("photo.heic", HEIC_HEAD, "HEIC needs pillow-heif; pip install pillow-heif"),
    ("photo.nef", make_tiff(SCENE), "RAW needs rawpy; pip install rawpy"),
]


@pytest.mark.parametrize("name, data, message", HOSTILE, ids=[name for name, _, _ in HOSTILE])
def test_a_hostile_file_is_refused_in_one_line_that_names_it(
    name, data, message, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    (tmp_path / name).write_bytes(data)
    for load in (load_photo, load_rgb):
        with pytest.raises(PhotoError, match=message) as caught:
            load(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value) and "BytesIO" not in str(caught.value)


def test_a_tiff_that_tells_no_resolution_gets_none(tmp_path):
    (tmp_path / "a.tif").write_bytes(encode(SCENE, "TIFF"))
    with Image.open(tmp_path / "a.tif") as image:
        assert 282 not in image.tag_v2
    photo = load_photo(tmp_path / "a.tif")
    assert photo.dpi is None
    save_photo(photo, photo.pixels, tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        assert 282 not in image.tag_v2


def test_a_large_photo_passes_when_it_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "in.tif").write_bytes(make_tiff(SCENE))
    with pytest.raises(PhotoError, match="or raise max_megapixels"):
        load_photo(tmp_path / "in.tif", max_pixels=WIDTH * HEIGHT - 1)
    assert load_photo(tmp_path / "in.tif", max_pixels=WIDTH * HEIGHT).pixels.shape == SCENE.shape


def test_a_png_with_a_profile_of_more_than_a_megabyte_is_read(tmp_path):
    noise = np.random.default_rng(0).bytes(2**20 + 99)
    profile = LUT_RGB + noise
    (tmp_path / "in.png").write_bytes(encode(SCENE, "PNG", icc_profile=profile))
    photo = load_photo(tmp_path / "in.png")
    save_photo(photo, photo.pixels, tmp_path / "out.png")
    assert load_photo(tmp_path / "out.png").icc_profile == profile


@pytest.mark.parametrize("is_packed", [False, True])
def test_exif_that_a_png_holds_as_text_turns_it(is_packed, tmp_path):
    exif = make_exif(6)
    notes = PngImagePlugin.PngInfo()
    text = f"\nexif\n{len(exif):8}\n" + "\n".join(re.findall(".{1,72}", exif.hex()))
    notes.add_text("Raw profile type exif", text, zip=is_packed)
    (tmp_path / "in.png").write_bytes(encode(turned_away(SCENE, 6), "PNG", pnginfo=notes))
    photo = load_photo(tmp_path / "in.png")
    assert np.array_equal(photo.pixels, SCENE)
    save_photo(photo, photo.pixels, tmp_path / "out.png")
    written = Image.open(tmp_path / "out.png")
    assert_exif_is_kept(written.getexif())
    assert not written.text


@pytest.mark.parametrize("name", ["dpi", "transparency", "icc_profile", "exif", "xmp", "gamma"])
def test_a_caption_of_a_png_may_have_any_name(name, tmp_path):
    notes = PngImagePlugin.PngInfo()
    notes.add_text(name, "72 x 72")
    (tmp_path / "in.png").write_bytes(encode(SCENE, "PNG", pnginfo=notes))
    photo = load_photo(tmp_path / "in.png")
    assert np.array_equal(photo.pixels, SCENE) and photo.alpha is None and photo.dpi is None
    for suffix in (".jpg", ".png"):
        save_photo(photo, photo.pixels, tmp_path / f"out{suffix}")
    assert Image.open(tmp_path / "out.png").text[name] == "72 x 72"


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_clear_grey_of_a_png_of_few_bits_is_transparent(depth, tmp_path):
    greys = np.arange(2**depth, dtype=np.uint8)[None].repeat(8, 0)
    bits = np.unpackbits(greys[..., None], axis=-1)[..., 8 - depth :]
    rows = np.packbits(bits.reshape(8, -1), axis=1)
    header = struct.pack(">IIBBBBB", 2**depth, 8, depth, 0, 0, 0, 0)
    clear = 2**depth - 1
    chunks = {
        b"IHDR": header,
        b"tRNS": struct.pack(">H", clear),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    data = b"".join(png_chunk(*chunk) for chunk in chunks.items())
    (tmp_path / "in.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    photo = load_photo(tmp_path / "in.png")
    assert np.array_equal(photo.pixels[..., 0], greys * (255 // clear))
    assert np.array_equal(photo.alpha, np.where(greys == clear, 0, 255))


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("kind", ["as bytes", "as text"])
def test_xmp_of_a_turned_tiff_is_upright_however_it_is_written(kind, quote, tmp_path):
    xmp = XMP.replace(b'"', quote.encode())
    tag = (700, 2, 0, xmp.decode(), True) if kind == "as text" else (700, 1, len(xmp), xmp, True)
    stream = io.BytesIO()
    turn = (274, 3, 1, 6, True)
    turned = turned_away(SCENE, 6)
    tifffile.imwrite(stream, turned, photometric="rgb", metadata=None, extratags=[turn, tag])
    (tmp_path / "in.tif").write_bytes(stream.getvalue())
    photo = load_photo(tmp_path / "in.tif")
    assert np.array_equal(photo.pixels, SCENE)
    assert photo.xmp == XMP_UPRIGHT.replace(b'"', quote.encode())


def test_exif_as_text_that_cannot_be_read_stays_as_it_is(tmp_path):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Raw profile type exif", "\nexif\n    4\nno hexadecimal")
    (tmp_path / "in.png").write_bytes(encode(SCENE, "PNG", pnginfo=notes))
    photo = load_photo(tmp_path / "in.png")
    save_photo(photo, photo.pixels, tmp_path / "out.png")
    assert "no hexadecimal" in Image.open(tmp_path / "out.png").text["Raw profile type exif"]


def test_other_code_keeps_pillows_guard_against_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    (tmp_path / "in.png").write_bytes(PNG)
    load_photo(tmp_path / "in.png")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(BOMB))


class FakeLibRawError(Exception):
    pass


class FakeRaw:
    sizes = types.SimpleNamespace(width=WIDTH, height=HEIGHT)

    def __init__(self, stream: io.BytesIO):
        if stream.read(4) == b"FUJI":
            raise FakeLibRawError(b"Unsupported file format or not RAW file")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def postprocess(self, output_bps, **_):
        assert output_bps == 16
        return SCENE_16


@pytest.fixture
def fake_rawpy(monkeypatch):
    rawpy = types.SimpleNamespace(imread=FakeRaw, LibRawError=FakeLibRawError)
    monkeypatch.setitem(sys.modules, "rawpy", rawpy)


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".dng", b"II*\0"), (".orf", b"IIRO"), (".rw2", b"IIU\0")]
)
def test_raw_is_developed_to_16_bits_and_written_as_tiff(suffix, magic, tmp_path, fake_rawpy):
    exif = Image.Exif()
    exif.load(make_exif(8))
    exif[50706], exif[33422] = b"\1\4\0\0", b"\0\1\1\2"
    path = tmp_path / f"in{suffix}"
    path.write_bytes(magic + encode(SCENE, "TIFF", exif=exif)[4:])
    photo = load_photo(path)
    save_photo(photo, photo.pixels, tmp_path / f"out{output_suffix(path)}")
    colour, _ = read_plainly(tmp_path / "out.tif", is_deep=True)
    assert np.array_equal(colour, SCENE_16)
    written = Image.open(tmp_path / "out.tif").getexif()
    assert_exif_is_kept(written)
    assert 50706 not in written and 33422 not in written  # or it would count as a DNG
    with pytest.raises(PhotoError, match="megapixels"):
        load_photo(path, max_pixels=100)


def test_a_raw_with_the_header_of_a_bigtiff_has_no_exif(tmp_path, fake_rawpy):
    (tmp_path / "in.dng").write_bytes(b"II+\0\x08\0\0\0" + make_exif()[14:])
    assert load_photo(tmp_path / "in.dng").exif is None


def test_what_libraw_says_of_a_damaged_raw_is_told_as_text(tmp_path, fake_rawpy):
    (tmp_path / "in.raf").write_bytes(b"FUJIFILM")
    with pytest.raises(PhotoError, match=r"in\.raf: damaged or unsupported RAW: Unsupported file"):
        load_photo(tmp_path / "in.raf")


@pytest.mark.parametrize("turn", [1, 6])
def test_heic_stays_heic(turn, tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    notes = {"exif": make_exif(turn), "icc_profile": SRGB}
    data = encode(turned_away(SCENE, turn), "HEIF", quality=98, **notes)
    (tmp_path / "in.heic").write_bytes(data)
    photo = load_photo(tmp_path / "in.heic")
    assert_close(photo.pixels, SCENE, 12)
    save_photo(photo, photo.pixels, tmp_path / "out.heic")
    with Image.open(tmp_path / "out.heic") as image:
        assert image.format == "HEIF" and image.info["icc_profile"] == SRGB
        assert_exif_is_kept(image.getexif())
        assert_close(np.asarray(image), SCENE, 15)


def test_heic_with_alpha_needs_no_exif(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    alpha = ALPHA_16.astype(np.uint8)
    (tmp_path / "in.heic").write_bytes(encode(np.dstack([SCENE, alpha]), "HEIF", quality=98))
    photo = load_photo(tmp_path / "in.heic")
    assert_close(photo.pixels, SCENE, 12)
    assert photo.exif is None
    save_photo(photo, photo.pixels, tmp_path / "out.heic")
    assert_close(np.asarray(Image.open(tmp_path / "out.heic")), np.dstack([SCENE, photo.alpha]), 15)

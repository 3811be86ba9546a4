"""Files of every kind, made by Pillow, tifffile and by hand, and plain readers as their judges.

The pixels are those of SCENE; LittleCMS and the standards' formulas say what colour they have.
"""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

HEIGHT, WIDTH = 32, 48
MAKER_NOTE = b"Apple iOS\0\0\1MM" + bytes(range(60))
PHOTOSHOP = b"Photoshop 3.0\0"
CAPTION = b"8BIM\x04\x04\0\0\0\0\0\x0c\x1c\x02\x78\0\x07caption"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" dc:title="Sea"/></x:xmpmeta>'
XMP_UPRIGHT = XMP.replace(b'"6"', b'"1"')
DPI = (300, 300)


def make_scene(dtype=np.uint8) -> np.ndarray:
    """(32, 48, 3): smooth, so that JPEG hardly changes it, and different in every corner."""
    y, x = np.mgrid[0:1:32j, 0:1:48j]
    scene = np.stack([0.1 + 0.8 * x, 0.15 + 0.7 * y, 0.75 - 0.5 * x * y], axis=-1)
    return np.rint(scene * np.iinfo(dtype).max).astype(dtype)


SCENE, SCENE_16 = make_scene(), make_scene(np.uint16)
GREY, GREY_16 = SCENE[..., 0], SCENE_16[..., 0]
ALPHA, ALPHA_16 = (scene[..., 1] - scene[..., 1].min() for scene in (SCENE, SCENE_16))
BINARY = ((np.indices((HEIGHT, WIDTH)).sum(axis=0) // 8 % 2) * 255).astype(np.uint8)


def as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=-1)


def turned_away(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How the sensor sees an upright scene that the tag then turns back (EXIF 2.32, 4.6.4)."""
    turn_back = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(turn_back[orientation](upright))


def make_exif(orientation: int = 1, endian: str = "<") -> bytes:
    exif = Image.Exif()
    exif.endian = endian
    exif[271], exif[274], exif[315] = "Camera & Co", orientation, "Ada"
    exif[34665] = {33434: 0.005, 37500: MAKER_NOTE, 40962: WIDTH, 40963: HEIGHT}
    exif[34853] = {1: "N", 2: (48.0, 51.0, 29.5)}
    return exif.tobytes()


def make_profile(space=b"RGB ", curve=None, primaries=None, extra=()) -> bytes:
    """An ICC display profile (ICC.1:2022, section 7) of one curve for all its channels."""
    curve = curve or b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(2.2 * 256))
    tags = [(b"desc", b"desc" + bytes(8)), (b"wtpt", make_xyz(0.9642, 1, 0.8249)), *extra]
    if primaries:
        matrix = [make_xyz(*primary) for primary in primaries]
        curves = curve if isinstance(curve, tuple) else (curve,) * 3
        tags += zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix, strict=True)
        tags += zip((b"rTRC", b"gTRC", b"bTRC"), curves, strict=True)
    elif space == b"GRAY":
        tags.append((b"kTRC", curve))
    table, body = b"", b""
    for name, tag in tags:
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    size = 132 + len(table) + len(body)
    kind, pcs = (b"prtr", b"Lab ") if space == b"CMYK" else (b"mntr", b"XYZ ")
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, kind, space, pcs, b"acsp")
    head = head.ljust(68, b"\0") + make_xyz(0.9642, 1, 0.8249)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def make_xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def make_ink_table() -> bytes:
    """A lut8 from CMYK to Lab: yellowish paper, ink that darkens."""
    corners = np.indices((2, 2, 2, 2)).reshape(4, -1).T
    lightness = 245 * np.prod(1 - corners * (0.4, 0.5, 0.2, 1), axis=1)
    lab = np.stack([lightness, 128 + 40 * (corners[:, 1] - corners[:, 0]), 140 + 0 * lightness])
    ramp = bytes(range(256))
    identity = np.eye(3, dtype=int).ravel() * 65536
    head = b"mft1\0\0\0\0" + struct.pack(">BBBx9i", 4, 3, 2, *identity)
    return head + ramp * 4 + lab.T.astype(np.uint8).tobytes() + ramp * 3


def srgb_curve() -> bytes:
    values = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para\0\0\0\0\0\3\0\0" + struct.pack(">5i", *(round(v * 65536) for v in values))


def table_curve(gamma: float, count: int = 1024) -> bytes:
    points = np.rint(np.linspace(0, 1, count) ** gamma * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", count) + points.tobytes()


P3_PRIMARIES = ((0.5151, 0.2412, -0.0011), (0.292, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_PRIMARIES = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3 = make_profile(curve=srgb_curve(), primaries=P3_PRIMARIES)
ADOBE = make_profile(primaries=ADOBE_PRIMARIES)
UNEVEN_CURVES = (srgb_curve(), table_curve(1.8), srgb_curve())
UNEVEN = make_profile(curve=UNEVEN_CURVES, primaries=ADOBE_PRIMARIES)
TABLE_RGB = make_profile(curve=table_curve(1.8), primaries=ADOBE_PRIMARIES)
GREY_18 = make_profile(b"GRAY", curve=table_curve(1.8))
LUT_RGB = make_profile(extra=[(b"A2B0", b"mft2" + bytes(60))])
INK = make_profile(b"CMYK", extra=[(b"A2B0", make_ink_table())])


def by_lcms(image: Image.Image, profile: bytes) -> np.ndarray:
    """sRGB as LittleCMS has it, the second opinion on colour."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    # Inks are converted perceptually; elsewhere that would move the black of our odd profiles.
    intents = ImageCms.Intent
    intent = intents.PERCEPTUAL if image.mode == "CMYK" else intents.RELATIVE_COLORIMETRIC
    return np.asarray(ImageCms.profileToProfile(image, source, target, intent, outputMode="RGB"))


def by_formula(scene_16: np.ndarray) -> np.ndarray:
    """16-bit Adobe RGB to 16-bit sRGB, as both standards write it."""
    primaries = np.transpose(ADOBE_PRIMARIES)
    srgb = np.array(
        [[0.43607, 0.38506, 0.14308], [0.2225, 0.71688, 0.06062], [0.01393, 0.0971, 0.71417]]
    )
    linear = (scene_16 / 65535) ** (563 / 256) @ (np.linalg.inv(srgb) @ primaries).T
    return np.clip(srgb_encoded(np.clip(linear, 0, 1)), 0, 1) * 65535


def srgb_encoded(linear: np.ndarray) -> np.ndarray:
    return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def encode(array, format: str, mode: str | None = None, **options) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image = image.convert(mode) if mode else image
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def make_jpeg(array, mode=None, subsampling=0, **options) -> bytes:
    if "exif" not in options:
        options["exif"] = make_exif()
    return encode(array, "JPEG", mode, quality=98, subsampling=subsampling, **options)


def make_tiff(array, orientation: int = 1, **options) -> bytes:
    stream = io.BytesIO()
    options.setdefault("photometric", "minisblack" if array.ndim == 2 else "rgb")
    tags = [(271, 2, 0, "Camera & Co", True), (274, 3, 1, orientation, True)]
    tifffile.imwrite(stream, array, extratags=tags, metadata=None, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    body = kind + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))


def make_bmp_with_alpha(rgba: np.ndarray) -> bytes:
    """Of 300 dpi, from the top down, with a BITMAPV3INFOHEADER."""
    height, width = rgba.shape[:2]
    size = (56, width, -height, 1, 32, 3, rgba.size, 11811, 11811, 0, 0)
    masks = (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII4I", *size, *masks)
    return struct.pack("<2sI4xI", b"BM", 70 + rgba.size, 70) + header + rgba.tobytes()


def put_behind_pixels(png: bytes, *chunks: bytes) -> bytes:
    return png[:-12] + b"".join(chunks) + png[-12:]


def make_png_16(array: np.ndarray, *chunks: bytes) -> bytes:
    height, width, channels = np.atleast_3d(array).shape
    rows = array.astype(">u2").reshape(height, -1)
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    ends = png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join([png_chunk(b"IHDR", header), *chunks, *ends])


def icc_chunk(profile: bytes) -> bytes:
    return png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))


def exif_chunk(orientation: int = 1) -> bytes:
    return png_chunk(b"eXIf", make_exif(orientation).removeprefix(b"Exif\0\0"))


def read_plainly(path, is_deep: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour (H, W, 3) and alpha of a file, by plain Pillow or, with 16 bits, plain OpenCV."""
    if is_deep:
        samples = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if samples.ndim == 2:
            samples = as_rgb(samples)
        samples = samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    else:
        image = ImageOps.exif_transpose(Image.open(path))
        samples = np.asarray(image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB"))
    return samples[..., :3], samples[..., 3] if samples.shape[2] == 4 else None


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert actual.shape == expected.shape, f"{actual.shape}, not {expected.shape}"
    distance = np.abs(actual.astype(np.float64) - expected).max()
    assert distance <= tolerance, f"{distance} levels apart, more than {tolerance}"


def assert_exif_is_kept(exif: Image.Exif) -> None:
    assert exif[271] == "Camera & Co" and exif[315] == "Ada"
    assert exif.get(274, 1) == 1
    assert exif.get_ifd(34853)[1] == "N" and exif.get_ifd(34853)[2] == (48.0, 51.0, 29.5)
    assert float(exif.get_ifd(34665)[33434]) == pytest.approx(0.005)
    assert exif.get_ifd(34665)[37500] == MAKER_NOTE

"""Colour encodings: what an ICC profile describes, to sRGB and back, and from 16 to 8 bits."""

import functools
import io
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

# Linear sRGB to XYZ under D50, where profiles meet (IEC 61966-2-1, adapted by Bradford).
SRGB_TO_XYZ = (
    (0.4360747, 0.3850649, 0.1430804),
    (0.2225045, 0.7168786, 0.0606169),
    (0.0139322, 0.0971045, 0.7141733),
)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
STRIP_ROWS = 16


class ColourSpace(NamedTuple):
    """An RGB encoding: one curve or three to linear light, and linear light to linear sRGB."""

    to_linear: np.ndarray  # (65536, 1 or 3) float32 in [0, 1], by 16-bit level
    from_linear: np.ndarray  # (65536, 1 or 3) float32 in [0, 1], by the square root of light
    to_srgb: np.ndarray  # (3, 3)


@functools.lru_cache(maxsize=8)
def colour_space(profile: bytes, is_grey: bool) -> ColourSpace | None:
    """Read the encoding that an ICC profile describes (ICC.1:2022, sections 8 to 10).

    Args:
        profile: of the photo; any bytes.
        is_grey: the pixels are grey, not RGB.

    Returns:
        None where there is nothing to convert: the profile is sRGB within one 8-bit level, or it
        is damaged, of another kind than the pixels, or made of tables.
    """
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        table = [struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(min(count, 100))]
        tags = {name: profile[offset : offset + size] for name, offset, size in table}
        if profile[16:20] != (b"GRAY" if is_grey else b"RGB "):
            return None
        if is_grey:
            curves, to_srgb = [_curve(tags[b"kTRC"])], np.eye(3)
        else:
            curve_tags = [tags[name] for name in (b"rTRC", b"gTRC", b"bTRC")]
            curves = [_curve(tag) for tag in curve_tags[: 1 if len(set(curve_tags)) == 1 else 3]]
            columns = [struct.unpack_from(">3i", tags[n], 8) for n in (b"rXYZ", b"gXYZ", b"bXYZ")]
            to_srgb = np.linalg.inv(SRGB_TO_XYZ) @ (np.transpose(columns) / 65536)
        np.linalg.inv(to_srgb)
        if not all(np.isfinite(curve).all() and curve[0] < curve[-1] for curve in curves):
            return None
    except (LookupError, ValueError, struct.error, np.linalg.LinAlgError):
        return None
    space = _make_space(curves, to_srgb)
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, len(steps), 3)
    is_srgb = np.abs(255 * _recode(cube, space, _srgb_space()) - cube).max() < 1
    return None if is_srgb else space


def native_to_srgb(native: np.ndarray, space: ColourSpace) -> np.ndarray:
    """Convert (H, W, 3) uint8 or uint16 pixels to sRGB in uint16.

    In uint8, corrections would amplify a second rounding to steps that show.
    """
    return _by_strips(lambda rows: _recode(native[rows], space, _srgb_space()), native, np.uint16)


def correct_native(
    native: np.ndarray, before: np.ndarray, after: np.ndarray, space: ColourSpace
) -> np.ndarray:
    """Add a correction, seen in the photo's own encoding, to the photo's own pixels.

    So colours that sRGB cannot hold survive, and a photo without correction comes back exactly.

    Args:
        native: (H, W, 3) uint8 or uint16, encoded as `space`.
        before: what `native_to_srgb` made of them.
        after: the same, corrected.
        space: of the photo's profile.

    Returns:
        The corrected pixels, of the shape, type and encoding of `native`.
    """

    white = np.float32(np.iinfo(native.dtype).max)

    def strip(rows: slice) -> np.ndarray:
        uncorrected = _recode(before[rows], _srgb_space(), space)
        correction = _recode(after[rows], _srgb_space(), space) - uncorrected
        return native[rows] / white + correction

    return _by_strips(strip, native, native.dtype)


def cmyk_to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes]:
    """Convert a CMYK image for good; a profile of no use is ignored.

    Returns:
        The RGB image, and the ICC profile of sRGB.
    """
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        ink = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        image = ImageCms.profileToProfile(image, ink, srgb, outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):  # no profile, or one that is no CMYK profile
        image = image.convert("RGB")
    return image, srgb.tobytes()


def to_8_bit(samples: np.ndarray) -> np.ndarray:
    """Round 16-bit levels to the nearest 8-bit ones; 8 bits pass."""
    if samples.dtype == np.uint8:
        return samples
    return cv2.convertScaleAbs(samples, alpha=1 / 257).reshape(samples.shape)


def _make_space(curves: list[np.ndarray], to_srgb: np.ndarray) -> ColourSpace:
    # Steps in the square root of light are nearly even to the eye, so 65536 lose next to nothing.
    levels = np.linspace(0, 1, 65536)
    rising = [np.maximum.accumulate(np.clip(curve, 0, 1)) for curve in curves]
    inverse = [np.interp(levels**2, curve, levels) for curve in rising]
    to_linear, from_linear = (np.stack(c, axis=1).astype(np.float32) for c in (rising, inverse))
    return ColourSpace(to_linear, from_linear, to_srgb)


@functools.cache
def _srgb_space() -> ColourSpace:
    return _make_space([_parametric_curve(3, SRGB_CURVE)], np.eye(3))


def _curve(tag: bytes) -> np.ndarray:
    """Linear light at the 65536 levels of 16 bits, from a curv or para tag."""
    levels = np.linspace(0, 1, 65536)
    if tag[:4] == b"para":
        (kind,) = struct.unpack_from(">H", tag, 8)
        count = (1, 3, 4, 5, 7)[kind]
        return _parametric_curve(kind, np.array(struct.unpack_from(f">{count}i", tag, 12)) / 65536)
    if tag[:4] != b"curv":
        raise ValueError("no curve")
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return levels
    if count == 1:
        return levels ** (struct.unpack_from(">H", tag, 12)[0] / 256)
    points = np.frombuffer(tag, ">u2", count, 12) / 65535
    return np.interp(levels, np.linspace(0, 1, count), points)


def _parametric_curve(kind: int, parameters: Sequence[float]) -> np.ndarray:
    """(a x + b) ** g + e from d on, c x + f below; kinds 0 to 4 give ever more of g a b c d e f."""
    g, a, b, c, d, e, f = np.pad(parameters, (0, 7 - len(parameters)))
    if kind == 0:
        a = 1
    elif kind in (1, 2):
        c, d, e, f = 0, -b / a if a else 0, c, c
    levels = np.linspace(0, 1, 65536)
    with np.errstate(all="ignore"):
        return np.where(levels >= d, np.maximum(a * levels + b, 0) ** g + e, c * levels + f)


def _recode(pixels: np.ndarray, source: ColourSpace, target: ColourSpace) -> np.ndarray:
    """Carry (H, W, 3) integer levels from one encoding to another, as float32 in [0, 1]."""
    if pixels.dtype == np.uint8:
        linear = cv2.LUT(pixels, np.ascontiguousarray(source.to_linear[::257])[None])
    else:
        linear = _look_up(source.to_linear, pixels.astype(np.intp))
    linear = cv2.transform(linear, np.linalg.inv(target.to_srgb) @ source.to_srgb)
    root = cv2.sqrt(np.clip(linear, 0, 1, out=linear), linear)
    index = np.rint(np.multiply(root, 65535, out=root), out=root).astype(np.intp)
    return _look_up(target.from_linear, index)


def _look_up(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    return table.take(index if table.shape[1] == 1 else index * 3 + np.arange(3))


def _by_strips(
    make_strip: Callable[[slice], np.ndarray], like: np.ndarray, dtype: npt.DTypeLike
) -> np.ndarray:
    """Fill an array by strips in [0, 1], on OpenCV's threads: bounded memory, warm caches.

    Args:
        make_strip: given some rows, their values.
        like: an array of the result's shape.
        dtype: of the result, integer levels over its full range.
    """
    result = np.empty(like.shape, dtype)
    white = np.iinfo(dtype).max

    def fill(start: int) -> None:
        rows = slice(start, start + STRIP_ROWS)
        result[rows] = np.rint(np.clip(make_strip(rows), 0, 1) * white)

    with ThreadPoolExecutor(cv2.getNumThreads()) as pool:
        list(pool.map(fill, range(0, len(like), STRIP_ROWS)))
    return result

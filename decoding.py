"""Decode photos: pixels upright in sRGB, and everything that they are written back with.

Pillow reads the headers and the rarer kinds. OpenCV decodes 8-bit JPEG (a third faster into numpy
arrays, from the same libjpeg-turbo) and 16-bit colour, which Pillow cannot hold.
"""

import contextlib
import io
import re
import struct
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin

from colour import cmyk_to_srgb, colour_space, native_to_srgb
from metadata import (
    MAX_TEXT,
    jpeg_extra,
    png_extra,
    png_info,
    tiff_exif,
    upright_exif,
)
from photo_formats import Photo, PhotoError, register_heif

ODD_PIXELS = (
    "floats, signed numbers, 16-bit Lab and 16-bit grey with alpha are not supported; "
    "save it as RGB of 8 or 16 bits"
)


def decode(name: str, data: bytes, max_pixels: int, min_size: int | None = None) -> Photo:
    """Decode a photo; `photo.load_photo` says what comes of it.

    Args:
        name: the format, as `content_format` tells it.
        data: the whole file.
        max_pixels: width times height above which it is refused.
        min_size: where the format allows, decode at the smallest scale that leaves the shorter
            side at least so many px; None: at full size.

    Raises:
        PhotoError: the photo is damaged, unsupported or too large (the message lacks its name).
        Exception: whatever else the libraries raise for a damaged one.
    """
    if name == "RAW":
        return _decode_raw(data, max_pixels)
    image = _open(name, data, max_pixels)
    if name == "PNG":
        image.info = _sound_info(image.info, data)
    exif, orientation = upright_exif(image.info.get("exif") or b"")
    is_turned = orientation != 1
    if name == "TIFF":  # whose pixels both decoders turn by themselves
        exif, is_turned = tiff_exif(_read_header(name, data).getexif()), True
    xmp = image.info.get("xmp")
    if isinstance(xmp, str):  # of a TIFF that calls it text
        xmp = xmp.encode("latin-1")
    if xmp and is_turned:
        xmp = re.sub(rb"""(tiff:Orientation(?:>|=["']))[2-8]""", rb"\g<1>1", xmp)
    dpi = tuple(float(value) for value in image.info.get("dpi", ()))
    if name == "TIFF" and 282 not in image.tag_v2:  # Pillow makes one up
        dpi = ()
    icc_profile = image.info.get("icc_profile")
    details = _details(name, image, data)

    if name == "JPEG" and min_size:
        image.draft(None, (min_size, min_size))
    samples = _samples_by_opencv(name, image, data)
    if samples is None and image.mode == "CMYK":
        image, icc_profile = cmyk_to_srgb(image, icc_profile)
    if samples is None:
        samples = _samples_by_pillow(image)
    samples = _turn(samples, orientation)
    num_channels = samples.shape[2] if samples.ndim == 3 else 1
    is_grey = num_channels < 3
    pixels = samples
    if num_channels != 3:
        pixels = samples.reshape(*samples.shape[:2], -1)[..., : 1 if is_grey else 3]
        pixels = np.repeat(pixels, 3, axis=2) if is_grey else np.ascontiguousarray(pixels)
    alpha = samples[..., -1].copy() if num_channels in (2, 4) else None
    del samples  # before the conversion takes as much again
    space = colour_space(icc_profile, is_grey) if icc_profile else None
    return Photo(
        pixels=native_to_srgb(pixels, space) if space else pixels,
        alpha=alpha,
        format=name,
        is_grey=is_grey,
        native=pixels if space else None,
        icc_profile=icc_profile,
        exif=exif or None,
        xmp=xmp,
        dpi=dpi if len(dpi) == 2 and all(0.5 <= value <= 65535 for value in dpi) else None,
        **details,
    )


def _decode_raw(data: bytes, max_pixels: int) -> Photo:
    try:
        import rawpy
    except ImportError as error:
        raise PhotoError("RAW needs rawpy; pip install rawpy") from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            _check_size(raw.sizes.width, raw.sizes.height, max_pixels)
            pixels = raw.postprocess(
                output_bps=16, use_camera_wb=True, no_auto_bright=True, gamma=(2.4, 12.92)
            )
    except rawpy.LibRawError as error:  # whose text is bytes
        raise PhotoError(f"damaged or unsupported RAW: {error.args[0].decode()}") from error
    tags = Image.Exif()
    magic = {b"II": b"II*\0", b"MM": b"MM\0*"}.get(data[:2])
    if magic and data[2:4] not in (b"+\0", b"\0+"):  # ORF and RW2 have other ones, but are TIFFs
        with contextlib.suppress(Exception):  # odd tags cost the tags, not the photo
            tags.load(magic + data[4:])
    return Photo(pixels, format="RAW", exif=tiff_exif(tags) or None)


# Headers


def _open(name: str, data: bytes, max_pixels: int) -> Image.Image:
    """Read the header and refuse what is too large or more than one picture."""
    if name == "HEIF":
        register_heif()
    # Pillow's limits are the process's, and should not be below ours. Profiles and comments of
    # more than its 1 MB are rare, but no attack.
    PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, MAX_TEXT)
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        image = _read_header(name, data)
    except (SyntaxError, LookupError, TypeError, struct.error) as error:
        is_sound = "unknown pixel mode" in str(error)
        reason = ODD_PIXELS if is_sound else f"damaged or unsupported {name} header"
        raise PhotoError(reason) from error
    _check_size(*image.size, max_pixels)
    # Counting moves from page to page, so it takes a reader of its own.
    pages = _read_header(name, data) if name == "TIFF" else None
    if pages and pages.tag_v2.get(254, 0) & 1 and (pages.n_frames > 1 or 330 in pages.tag_v2):
        raise PhotoError("starts with a preview; save the photo itself as a file of its own")
    count = _count_pages(pages) if pages else getattr(image, "n_frames", 1)
    if count > 1 and name != "HEIF":  # HEIC marks one of its pictures as the photo
        raise PhotoError(f"holds {count} pictures; save the one you mean as a file of its own")
    extra = image.tag_v2.get(338, ()) if name == "TIFF" else ()
    if len(extra) > 1 or (extra == (0,) and image.mode != "RGB"):
        raise PhotoError("holds channels beyond colour and alpha; flatten it")
    return image


def _read_header(name: str, data: bytes) -> ImageFile.ImageFile:
    """Open a photo as Image.open does, but leave it to the caller how large it may be."""
    if name == "JPEG":  # whose usual reader goes for the further pictures in a phone's JPEG
        return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    Image.init()
    return Image.OPEN[name][0](io.BytesIO(data))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        size, limit = width * height / 1e6, max_pixels / 1e6
        raise PhotoError(
            f"{width} x {height} px are {size:.4g} megapixels, allowed are {limit:.4g}; "
            "make it smaller, or raise max_megapixels of predict.py's config if you trust it"
        )


def _count_pages(tiff: Image.Image) -> int:
    """Count the pages that are not marked as smaller versions of another."""
    count = 0
    for page in range(tiff.n_frames):
        tiff.seek(page)
        count += not tiff.tag_v2.get(254, 0) & 1
    return count


def _sound_info(info: dict[str, Any], data: bytes) -> dict[str, Any]:
    """What Pillow knows of a PNG, without its captions, which may have the names of the rest."""
    info = {key: value for key, value in info.items() if not isinstance(value, str)}
    depth, colour_type = data[24:26]
    if "transparency" in info and colour_type == 0 and depth in (2, 4):
        info["transparency"] *= 255 // (2**depth - 1)  # Pillow scales the pixels alone
    return info | png_info(data)  # it knows nothing yet of what stands behind the pixels


def _details(name: str, image: Image.Image, data: bytes) -> dict[str, Any]:
    """The fields of Photo that only one format has."""
    if name == "JPEG":
        luma, chroma = image.layer[0], image.layer[-1]
        return {
            "jpeg_sampling": luma[1] // chroma[1] << 20 | luma[2] // chroma[2] << 16 | 0x1111,
            "is_progressive": "progressive" in image.info,
            "extra": jpeg_extra(image.applist),
        }
    if name == "PNG":
        return {"extra": png_extra(data)}
    if name == "WEBP":
        return {"is_lossless": _is_lossless_webp(data)}
    if name == "TIFF":
        return {"is_mask": image.tag_v2.get(338) == (0,)}
    return {}


def _is_lossless_webp(data: bytes) -> bool:
    position = 12
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, position)
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8L"
        position += 8 + size + size % 2
    return False


# Pixels


def _samples_by_opencv(name: str, image: Image.Image, data: bytes) -> np.ndarray | None:
    """Decode what Pillow cannot, or slower: (H, W) or (H, W, 2 to 4), alpha last; else None."""
    buffer = np.frombuffer(data, np.uint8)
    if name == "JPEG":
        # Without its end marker it is for Pillow, which tells damage where OpenCV may paint grey.
        is_whole = data.find(b"\xff\xd9", image.fp.tell()) > 0
        is_scaled = image.decoderconfig not in ((), (1, 0))
        if image.mode not in ("L", "RGB") or is_scaled or not is_whole:
            return None
        flag = cv2.IMREAD_GRAYSCALE if image.mode == "L" else cv2.IMREAD_COLOR_RGB
        return cv2.imdecode(buffer, flag | cv2.IMREAD_IGNORE_ORIENTATION)

    is_deep, extra = name == "PNG" and data[24] == 16, ()
    if name == "TIFF":
        is_deep = 16 in image.tag_v2.get(258, ()) and image.mode != "CMYK"
        extra = image.tag_v2.get(338, ())
    if not is_deep and extra != (0,):  # a mask, which Pillow drops
        return None
    if name == "TIFF" and image.tag_v2.get(284) == 2:  # both libraries would scramble them
        raise PhotoError("separate colour planes; save it with interleaved channels")
    samples = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    if samples is not None and samples.dtype == np.int16:
        raise PhotoError(ODD_PIXELS)
    if samples is None or samples.dtype != (np.uint16 if is_deep else np.uint8):
        raise PhotoError(f"damaged or unsupported {name} of {16 if is_deep else 8} bits")
    if name == "TIFF" and image.tag_v2.get(262) == 0:  # white is zero
        return 65535 - samples
    if name == "PNG" and data[25] == 4:  # grey with alpha, which OpenCV repeats thrice
        return samples[..., [0, 3]]
    clear = image.info.get("transparency")
    if samples.ndim == 2 and clear is not None:  # of a PNG, which OpenCV ignores
        return np.dstack([samples, np.where(samples == clear, 0, 65535).astype(np.uint16)])
    order = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
    samples = samples if samples.ndim == 2 else cv2.cvtColor(samples, order[samples.shape[2]])
    if extra == (1,):  # colours are multiplied by alpha
        for row in samples:  # at once, the floats would take many times the samples' memory
            cover = np.maximum(row[:, 3:], 1) / np.float32(65535)
            row[:, :3] = np.minimum(np.rint(row[:, :3] / cover), 65535)
    return samples


def _samples_by_pillow(image: Image.Image) -> np.ndarray:
    """Decode 8 bits: (H, W) grey or (H, W, 2 to 4), alpha last."""
    is_grey = image.mode in ("1", "L", "LA", "La")
    has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        raise PhotoError(f"colour mode {image.mode} is not supported; save it as RGB")
    mode = ("L" if is_grey else "RGB") + "A" * has_alpha
    return np.array(image if image.mode == mode else image.convert(mode))


def _turn(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (H, W) or (H, W, C) samples upright from one of the eight EXIF orientations."""
    axis = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    if orientation < 5:
        return samples if axis is None else cv2.flip(samples, axis)
    samples = cv2.transpose(samples)
    return samples if axis is None else cv2.flip(samples, axis, samples)  # in place

"""Encode photos: corrected pixels with everything else of the photo.

OpenCV encodes JPEG, Pillow the rarer kinds. PNG and TIFF are written by hand: neither library
writes 16 bits together with the metadata. So is BMP with alpha.
"""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from colour import colour_space, correct_native, to_8_bit
from metadata import SEGMENT_BYTES, XMP_TEXT, jpeg_segment, keep_descriptive, png_chunk
from photo_formats import Photo, register_heif

JPEG_SIDE = 65500  # px, of libjpeg


def encode(photo: Photo, corrected: np.ndarray, name: str, quality: int | None = None) -> bytes:
    """Encode corrected pixels; `photo.save_photo` says with what else of the photo.

    Args:
        photo: what the pixels were before, and everything else of the file.
        corrected: (H, W, 3), shape and dtype of `photo.pixels`, sRGB.
        name: the format, a key of `photo_formats.SUFFIXES` but RAW.
        quality: 1..100, for the formats that have one; None: the usual.

    Returns:
        The whole file.

    Raises:
        Exception: whatever the libraries raise where the format can't hold the photo.
    """
    samples = _samples_to_write(photo, corrected, name)
    if name == "JPEG":
        return _encode_jpeg(photo, samples, quality)
    if name == "PNG":
        return _encode_png(photo, samples)
    if name == "TIFF":
        return _encode_tiff(photo, samples)
    if name == "BMP" and samples.shape[2] in (2, 4):
        return _encode_bmp_with_alpha(photo, samples)
    return _encode_by_pillow(name, photo, samples, quality)


def _samples_to_write(photo: Photo, corrected: np.ndarray, name: str) -> np.ndarray:
    """(H, W, 1 to 4), alpha last, in the encoding, channels and depth of the file."""
    samples = corrected
    if photo.is_grey:
        samples = np.repeat(cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if photo.native is not None and name != "BMP":
        space = colour_space(photo.icc_profile, photo.is_grey)
        samples = correct_native(photo.native, photo.pixels, samples, space)
    if photo.is_grey:
        samples = samples[..., :1]
    if name not in ("PNG", "TIFF"):
        samples = to_8_bit(samples)
    if photo.alpha is None or (photo.is_mask and name != "TIFF"):
        return samples
    alpha = photo.alpha if name in ("PNG", "TIFF") else to_8_bit(photo.alpha)
    return np.dstack([samples, alpha])


def _encode_jpeg(photo: Photo, samples: np.ndarray, quality: int | None) -> bytes:
    if max(samples.shape[:2]) > JPEG_SIDE:
        raise ValueError(f"JPEG holds at most {JPEG_SIDE} px a side")
    if samples.shape[2] in (2, 4):
        cover = samples[..., -1:] / np.float32(255)
        flat = 255 + (samples[..., :-1] - np.float32(255)) * cover
        samples = np.rint(flat).astype(np.uint8)
    if samples.shape[2] == 3:
        samples = cv2.cvtColor(samples, cv2.COLOR_RGB2BGR)
    options = {
        cv2.IMWRITE_JPEG_QUALITY: quality or 95,
        cv2.IMWRITE_JPEG_PROGRESSIVE: int(photo.is_progressive),
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR: photo.jpeg_sampling,
    }
    flags = [number for option in options.items() for number in option]
    is_encoded, encoded = cv2.imencode(".jpg", samples, flags)
    if not is_encoded:
        raise ValueError("OpenCV cannot encode it")
    density = (1, *map(round, photo.dpi)) if photo.dpi else (0, 1, 1)
    jfif = struct.pack(">5s2sBHH2s", b"JFIF", b"\1\1", *density, b"")
    parts = [b"\xff\xd8", jpeg_segment(0xE0, jfif)]
    exif = photo.exif and b"Exif\0\0" + photo.exif
    xmp = photo.xmp and b"http://ns.adobe.com/xap/1.0/\0" + photo.xmp
    notes = (note for note in (exif, xmp) if note and len(note) <= SEGMENT_BYTES)
    parts += [jpeg_segment(0xE1, note) for note in notes]
    profile = photo.icc_profile or b""
    pieces = [profile[start : start + 65519] for start in range(0, len(profile), 65519)]
    for number, piece in enumerate(pieces, 1):
        head = struct.pack(">12sBB", b"ICC_PROFILE", number, len(pieces))
        parts.append(jpeg_segment(0xE2, head + piece))
    if photo.format == "JPEG":
        parts.append(photo.extra)
    return b"".join([*parts, encoded[20:].data])  # 20 bytes: OpenCV's own start and JFIF segment


def _encode_png(photo: Photo, samples: np.ndarray) -> bytes:
    height, width, channels = samples.shape
    rows = samples.astype(samples.dtype.newbyteorder(">"), copy=False)
    rows = rows.reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 2  # "up": every row less the one above it
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = (width, height, 8 * samples.itemsize, colour_type, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header))]
    if photo.icc_profile:
        packed = b"icc\0\0" + zlib.compress(photo.icc_profile)
        parts.append(png_chunk(b"iCCP", packed))
    if photo.format == "PNG":
        parts.append(photo.extra)
    if photo.dpi:
        x, y = (round(dpi / 0.0254) for dpi in photo.dpi)
        parts.append(png_chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if photo.exif:
        parts.append(png_chunk(b"eXIf", photo.exif))
    if photo.xmp:
        parts.append(png_chunk(b"iTXt", XMP_TEXT + photo.xmp))
    parts += [png_chunk(b"IDAT", _deflate(filtered)), png_chunk(b"IEND", b"")]
    return b"".join(parts)


def _encode_tiff(photo: Photo, samples: np.ndarray) -> bytes:
    if samples.shape[2] == 2 and samples.itemsize == 2:  # few readers know deep grey with alpha
        samples = samples[..., [0, 0, 0, 1]]
    height, width, channels = samples.shape
    differences = samples.astype(samples.dtype.newbyteorder("<"))
    np.subtract(samples[:, 1:], samples[:, :-1], out=differences[:, 1:])
    strip = _deflate(differences)
    # An EXIF block is a TIFF without a picture: give it one.
    tags = Image.Exif()
    tags.load(photo.exif or b"")
    keep_descriptive(tags)
    tags.endian = "<"
    tags[256], tags[257] = width, height
    tags[258] = (8 * samples.itemsize,) * channels
    tags[259], tags[317] = 8, 2  # deflated horizontal differences
    tags[262] = 2 if channels > 2 else 1
    tags[273], tags[278], tags[279] = 0, height, len(strip)  # Pillow counts 273 from the tags' end
    tags[274], tags[277] = 1, channels
    if photo.alpha is not None:
        tags[338] = 0 if photo.is_mask else 2
    if photo.dpi:
        (tags[282], tags[283]), tags[296] = photo.dpi, 2
    if photo.icc_profile:
        tags[34675] = photo.icc_profile
    if photo.xmp:
        tags[700] = photo.xmp
    return tags.tobytes().removeprefix(b"Exif\0\0") + strip


def _encode_by_pillow(name: str, photo: Photo, samples: np.ndarray, quality: int | None) -> bytes:
    if name == "HEIF":
        register_heif()
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    if image.mode == "LA":
        image = image.convert("RGBA")
    options = {"quality": quality or 95}
    if name == "WEBP":
        options["lossless"] = photo.is_lossless and quality is None
        options["exact"] = True  # keep the colours under transparent alpha
    if name == "BMP":
        options = {"dpi": photo.dpi} if photo.dpi else {}
    else:
        exif = photo.exif and b"Exif\0\0" + photo.exif
        metadata = {"icc_profile": photo.icc_profile, "exif": exif, "xmp": photo.xmp}
        options |= {key: value for key, value in metadata.items() if value}
    stream = io.BytesIO()
    image.save(stream, format=name, **options)
    return stream.getvalue()


def _encode_bmp_with_alpha(photo: Photo, samples: np.ndarray) -> bytes:
    """Tell by masks (in a BITMAPV4HEADER) that there is alpha, which Pillow leaves to guessing."""
    rows = samples[::-1, :, [0, 0, 0, 1] if samples.shape[2] == 2 else [2, 1, 0, 3]]
    height, width = rows.shape[:2]
    density = [round(dpi / 0.0254) for dpi in photo.dpi or (0, 0)]
    size = (108, width, height, 1, 32, 3, rows.size, *density, 0, 0)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)  # of red, green, blue, alpha
    header = struct.pack("<IiiHHIIiiII4I4s48x", *size, *masks, b"BGRs")  # sRGB
    start = struct.pack("<2sI4xI", b"BM", 14 + len(header) + rows.size, 14 + len(header))
    return start + header + rows.tobytes()


def _deflate(samples: np.ndarray) -> bytes:
    # Run lengths and Huffman codes: seven times faster than a search for matches, hardly larger.
    compressor = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return compressor.compress(np.ascontiguousarray(samples)) + compressor.flush()

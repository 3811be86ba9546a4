"""Encode photos: corrected pixels with everything else of the photo.

OpenCV encodes JPEG, Pillow the rarer kinds. PNG and TIFF are written by hand: neither library
writes 16 bits together with the metadata. So is BMP with alpha.
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from colour import STRIP_ROWS, colour_space, correct_native, to_8_bit
from metadata import SEGMENT_BYTES, XMP_TEXT, jpeg_segment, png_chunk, tiff_exif
from photo_formats import Photo, register_heif

JPEG_SIDE = 65500  # px, of libjpeg
BAND_PIXELS = 2**21  # fewer save little memory, and cost time where there are many cores


def encode(
    photo: Photo, corrected: np.ndarray, name: str, file: BinaryIO, quality: int | None = None
) -> None:
    """Encode corrected pixels; `photo.save_photo` says with what else of the photo.

    Args:
        photo: what the pixels were before, and everything else of the file.
        corrected: (H, W, 3), shape and dtype of `photo.pixels`, sRGB.
        name: the format, a key of `photo_formats.SUFFIXES` but RAW.
        file: where to write it; empty, and can be sought in.
        quality: 1..100, for the formats that have one; None: the usual.

    Raises:
        OSError: the file can't be written; these have an errno, those of Pillow have none.
        Exception: whatever the libraries raise where the format can't hold the photo.
    """
    if name == "JPEG":
        _encode_jpeg(photo, corrected, file, quality)
    elif name == "PNG":
        _encode_png(photo, corrected, file)
    elif name == "TIFF":
        _encode_tiff(photo, corrected, file)
    else:
        samples = _samples_to_write(photo, corrected, name)
        if name == "BMP" and samples.shape[2] in (2, 4):
            _encode_bmp_with_alpha(photo, samples, file)
        else:
            _encode_by_pillow(name, photo, samples, file, quality)


def _samples_to_write(
    photo: Photo, corrected: np.ndarray, name: str, rows: slice = slice(None)
) -> np.ndarray:
    """(H, W, 1 to 4), alpha last, in the encoding, channels and depth of the file."""
    samples = corrected[rows]
    if photo.is_grey:
        samples = np.repeat(cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if photo.native is not None and _profile_to_write(photo, name):
        space = colour_space(photo.icc_profile, photo.is_grey)
        samples = correct_native(photo.native[rows], photo.pixels[rows], samples, space)
    if photo.is_grey:
        samples = samples[..., :1]
    if name not in ("PNG", "TIFF"):
        samples = to_8_bit(samples)
    if photo.alpha is None or (photo.is_mask and name != "TIFF"):
        return samples
    alpha = photo.alpha[rows]
    samples = np.dstack([samples, alpha if name in ("PNG", "TIFF") else to_8_bit(alpha)])
    if name == "TIFF" and samples.shape[2] == samples.itemsize == 2:
        return samples[..., [0, 0, 0, 1]]  # few readers know deep grey with alpha
    return samples


def _profile_to_write(photo: Photo, name: str) -> bytes | None:
    """The photo's profile; None, for sRGB, where the format has none or makes RGB of grey."""
    own_pixels = photo.pixels if photo.native is None else photo.native
    is_deep_with_alpha = photo.alpha is not None and own_pixels.itemsize == 2
    becomes_rgb = name in ("WEBP", "AVIF", "HEIF") or (name == "TIFF" and is_deep_with_alpha)
    return None if name == "BMP" or (photo.is_grey and becomes_rgb) else photo.icc_profile


def _bands(pixels: np.ndarray) -> Iterator[slice]:
    """Whole strips of rows, as all samples to write would take the photo's memory once more."""
    height, width = pixels.shape[:2]
    count = STRIP_ROWS * max(1, BAND_PIXELS // (STRIP_ROWS * width))
    for start in range(0, height, count):
        yield slice(start, start + count)


def _encode_jpeg(photo: Photo, corrected: np.ndarray, file: BinaryIO, quality: int | None) -> None:
    height, width = corrected.shape[:2]
    if max(height, width) > JPEG_SIDE:
        raise ValueError(f"JPEG holds at most {JPEG_SIDE} px a side")
    samples = np.empty((height, width, 1 if photo.is_grey else 3), np.uint8)
    for rows in _bands(corrected):
        band = _samples_to_write(photo, corrected, "JPEG", rows)
        if band.shape[2] in (2, 4):
            cover = band[..., -1:] / np.float32(255)
            flat = 255 + (band[..., :-1] - np.float32(255)) * cover
            band = np.rint(flat).astype(np.uint8)
        if photo.is_grey:
            samples[rows] = band
        else:
            cv2.cvtColor(band, cv2.COLOR_RGB2BGR, samples[rows])
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
    file.writelines([*parts, encoded[20:].data])  # 20 bytes: OpenCV's own start and JFIF segment


def _encode_png(photo: Photo, corrected: np.ndarray, file: BinaryIO) -> None:
    row = _samples_to_write(photo, corrected, "PNG", slice(1))  # tells channels and depth
    height, width, channels = len(corrected), *row.shape[1:]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = (width, height, 8 * row.itemsize, colour_type, 0, 0, 0)
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
    file.writelines(parts)
    for packed in _deflate(_filtered_rows(photo, corrected)):
        file.write(png_chunk(b"IDAT", packed))
    file.write(png_chunk(b"IEND", b""))


def _filtered_rows(photo: Photo, corrected: np.ndarray) -> Iterator[np.ndarray]:
    above = 0
    for rows in _bands(corrected):
        band = _samples_to_write(photo, corrected, "PNG", rows)
        band = band.astype(band.dtype.newbyteorder(">"), copy=False)
        band = band.reshape(len(band), -1).view(np.uint8)
        filtered = np.empty((len(band), 1 + band.shape[1]), np.uint8)
        filtered[:, 0] = 2  # "up": every row less the one above it
        filtered[0, 1:] = band[0] - above
        np.subtract(band[1:], band[:-1], out=filtered[1:, 1:])
        above = band[-1].copy()  # a view would keep the band
        yield filtered


def _encode_tiff(photo: Photo, corrected: np.ndarray, file: BinaryIO) -> None:
    row = _samples_to_write(photo, corrected, "TIFF", slice(1))  # tells channels and depth
    height, width, channels = len(corrected), *row.shape[1:]
    # An EXIF block is a TIFF without a picture: give it one.
    tags = Image.Exif()
    tags.load(photo.exif or b"")
    if not tiff_exif(tags):  # none, or too odd to write
        tags = Image.Exif()
    tags.endian = "<"
    tags[256], tags[257] = width, height
    tags[258] = (8 * row.itemsize,) * channels
    tags[259], tags[317] = 8, 2  # deflated horizontal differences
    tags[262] = 2 if channels > 2 else 1
    tags[273], tags[278] = 0, height  # Pillow counts 273 from the tags' end
    tags[279] = 0  # the size is known at the end
    tags[274], tags[277] = 1, channels
    if photo.alpha is not None:
        tags[338] = 0 if photo.is_mask else 2
    if photo.dpi:
        (tags[282], tags[283]), tags[296] = photo.dpi, 2
    if profile := _profile_to_write(photo, "TIFF"):
        tags[34675] = profile
    if photo.xmp:
        tags[700] = photo.xmp
    file.write(tags.tobytes().removeprefix(b"Exif\0\0"))
    tags[279] = sum(map(file.write, _deflate(_differences(photo, corrected))))
    file.seek(0)
    file.write(tags.tobytes().removeprefix(b"Exif\0\0"))


def _differences(photo: Photo, corrected: np.ndarray) -> Iterator[np.ndarray]:
    for rows in _bands(corrected):
        band = _samples_to_write(photo, corrected, "TIFF", rows)
        differences = band.astype(band.dtype.newbyteorder("<"), order="C")
        np.subtract(band[:, 1:], band[:, :-1], out=differences[:, 1:])
        yield differences


def _encode_by_pillow(
    name: str, photo: Photo, samples: np.ndarray, file: BinaryIO, quality: int | None
) -> None:
    if name == "HEIF":
        register_heif()
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    if image.mode == "LA":
        image = image.convert("RGBA")
    options = {"quality": quality or 95}
    if name == "WEBP":
        options["lossless"] = photo.is_lossless and quality is None
        options["exact"] = True  # keep the colours under transparent alpha
    if name == "AVIF":
        options["subsampling"] = "4:4:4"
    if name == "BMP":
        options = {"dpi": photo.dpi} if photo.dpi else {}
    else:
        exif = photo.exif and b"Exif\0\0" + photo.exif
        metadata = {"icc_profile": _profile_to_write(photo, name), "exif": exif, "xmp": photo.xmp}
        options |= {key: value for key, value in metadata.items() if value}
    stream = io.BytesIO()
    image.save(stream, format=name, **options)
    file.write(stream.getbuffer())


def _encode_bmp_with_alpha(photo: Photo, samples: np.ndarray, file: BinaryIO) -> None:
    """Tell by masks (in a BITMAPV4HEADER) that there is alpha, which Pillow leaves to guessing."""
    rows = samples[::-1, :, [0, 0, 0, 1] if samples.shape[2] == 2 else [2, 1, 0, 3]]
    height, width = rows.shape[:2]
    density = [round(dpi / 0.0254) for dpi in photo.dpi or (0, 0)]
    size = (108, width, height, 1, 32, 3, rows.size, *density, 0, 0)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)  # of red, green, blue, alpha
    header = struct.pack("<IiiHHIIiiII4I4s48x", *size, *masks, b"BGRs")  # sRGB
    start = struct.pack("<2sI4xI", b"BM", 14 + len(header) + rows.size, 14 + len(header))
    file.writelines([start, header, rows.tobytes()])


def _deflate(pieces: Iterable[np.ndarray]) -> Iterator[bytes]:
    # Run lengths and Huffman codes: seven times faster than a search for matches, hardly larger.
    compressor = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    for piece in pieces:
        if packed := compressor.compress(piece):
            yield packed
    yield compressor.flush()

"""Read and write what cameras and editors make: upright, colour-managed, nothing lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from colour import to_8_bit
from decoding import decode
from encoding import encode
from photo_formats import (
    FORMAT_OF_SUFFIX,
    SUFFIXES,
    Photo,
    PhotoError,
    content_format,
    written_format,
)
from utils import atomic_write

# What one photo of several may fail by, while the others go on.
PHOTO_FAULTS = (ValueError, OSError, MemoryError, RuntimeError, cv2.error)

MAX_PIXELS = 300_000_000
HEAD_LENGTH = 4096  # bytes that tell the format
SHORT_OF_MEMORY = "too little memory is free; close other programs, or make the photo smaller"


def load_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo at full size and depth; its content, not its suffix, says what it is.

    Pixels come out upright, in three channels, in sRGB:

    - An RGB or grey profile of curves (and a matrix) other than sRGB is converted to 16 bits, and
      `save_photo` converts back, to the file's depth. Profiles made of tables stay as they are,
      pixels and profile.
    - CMYK is converted to sRGB for good.
    - A palette becomes RGB, 1 bit becomes 8, HEIC, AVIF and CMYK deeper than 8 bits become 8, and
      RAW is developed to 16 bits with the camera's white balance and no brightening.
    - Colours that a TIFF multiplies by alpha are divided by it. Its fourth channel may mean nothing
      that is known: such a mask stays in a TIFF, and other formats lose it.
    - TIFF previews and the second pictures of phone JPEGs are dropped; animations, TIFFs of
      several pages and those that begin with a preview are refused, as one frame would not be the
      file.
    - EXIF, XMP, IPTC, captions and dpi are kept; EXIF too damaged to parse is dropped.

    Args:
        path: the file. HEIC needs pillow-heif, RAW needs rawpy.
        max_pixels: width times height above which the file counts as a decompression bomb.

    Raises:
        PhotoError: the file is unreadable, damaged, unsupported or too large.
    """
    return _load(Path(path), max_pixels)


def load_rgb(
    path: str | Path, min_size: int | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read a photo for training: as `load_photo`, but 8 bits, alpha dropped, and small if possible.

    Args:
        path: the file.
        min_size: where the format allows (JPEG: 1/2, 1/4, 1/8) decode at the smallest scale that
            leaves the shorter side at least so many px; None decodes at full size.
        max_pixels: as for `load_photo`, of the full size.

    Returns:
        (H, W, 3) uint8, upright sRGB.

    Raises:
        PhotoError: as `load_photo`.
    """
    return to_8_bit(_load(Path(path), max_pixels, min_size).pixels)


def save_photo(
    photo: Photo,
    corrected: np.ndarray,
    path: str | Path,
    output_format: str | None = None,
    quality: int | None = None,
) -> None:
    """Write corrected pixels with everything else of the photo: depth, profile, alpha, metadata.

    The format is `output_format`, or else what the suffix of `path` says (so a PNG that is called
    .jpg comes out as a true JPEG under its name), or else the photo's own; RAW becomes TIFF.
    Formats without 16 bits get 8, formats without alpha are flattened on white, grey stays grey,
    BMP keeps no metadata and therefore holds sRGB, as does grey that a format makes RGB. EXIF or
    XMP of more than 64 kB, which JPEG can't hold, is dropped there. The EXIF thumbnail is unlinked
    and Photoshop's dropped: they show the photo before. The file appears whole or not at all;
    missing folders are made.

    Args:
        photo: what `load_photo` returned.
        corrected: (H, W, 3), shape and dtype of `photo.pixels`, sRGB.
        path: the file to write or replace.
        output_format: one of photo_formats.OUTPUT_FORMATS.
        quality: 1..100, for JPEG, WebP, AVIF and HEIC; None is 95, and lossless for a WebP that
            was. JPEG keeps its chroma subsampling; photos of other formats get 4:4:4.

    Raises:
        ValueError: corrected, output_format or quality is not what it should be.
        PhotoError: the photo cannot be encoded in the format, or the file not written.
    """
    expected, given = (photo.pixels.shape, photo.pixels.dtype), (corrected.shape, corrected.dtype)
    if expected != given:
        raise ValueError(
            f"corrected is {given[0]} {given[1]}, the photo {expected[0]} {expected[1]}"
        )
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}, allowed are 1 to 100")
    if corrected.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"corrected is {corrected.dtype}; allowed: uint8 and uint16, rounded")
    path = Path(path)
    name = written_format(path, output_format) or photo.format.replace("RAW", "TIFF")
    with as_photo_error(path), atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            encode(photo, corrected, name, file, quality)
        except Exception as error:  # encoders raise whatever they like
            is_of_the_disk = isinstance(error, OSError) and error.errno  # not of the encoder
            if is_of_the_disk or isinstance(error, MemoryError):
                raise
            reason = f"cannot be written as {name}: {one_line(error)}"
            raise PhotoError(f"{path}: {reason}; choose another output_format") from error


@contextmanager
def as_photo_error(path: Path) -> Iterator[None]:
    """Turn what keeps a file from being written into a PhotoError with its name."""
    try:
        yield
    except OSError as error:
        raise PhotoError(f"{path}: cannot be written: {error.strerror or error}") from error
    except MemoryError as error:
        raise PhotoError(f"{path}: cannot be written: {SHORT_OF_MEMORY}") from error


def one_line(error: Exception) -> str:
    """What an error says, or its kind, for a line of a report."""
    return " ".join(str(error).split()) or type(error).__name__


def output_suffix(path: str | Path, output_format: str | None = None) -> str:
    """The suffix under which a photo's result is written, known without opening the file.

    Returns:
        The photo's own suffix where it suits the format written, or where neither it nor an
        output_format says which that is; else the format's usual one (.tif for RAW).

    Raises:
        ValueError: unknown output_format.
    """
    suffix = Path(path).suffix
    name = written_format(path, output_format)
    if name is None or FORMAT_OF_SUFFIX.get(suffix.lower()) == name:
        return suffix
    return SUFFIXES[name][0]


def _load(path: Path, max_pixels: int, min_size: int | None = None) -> Photo:
    name = None
    try:
        if path.exists() and not path.is_file():  # a pipe would block for ever
            raise PhotoError("is not a file")
        with path.open("rb") as file:  # a film that poses as a photo need not be read whole
            name = content_format(file.peek(HEAD_LENGTH), path)
            data = file.read()
        return decode(name, data, max_pixels, min_size)
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from error.__cause__
    except MemoryError as error:
        raise PhotoError(f"{path}: cannot be read: {SHORT_OF_MEMORY}") from error
    except Exception as error:  # decoders raise whatever a hostile file provokes
        if name is None or getattr(error, "errno", None):  # the disk's, not the decoder's
            reason = f"cannot be read: {getattr(error, 'strerror', None) or one_line(error)}"
        else:
            reason = f"damaged or unsupported {name}: {one_line(error)}"
        raise PhotoError(f"{path}: {reason}") from error

"""What a photo is in memory, and the kinds of files that hold one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

OUTPUT_FORMATS = ("jpeg", "png", "tiff", "webp")
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "HEIF": (".heic", ".heif", ".hif"),
    "AVIF": (".avif",),
    "RAW": (
        *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mrw"),
        *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".srw", ".x3f"),
    ),
}
FORMAT_OF_SUFFIX = {suffix: name for name, suffixes in SUFFIXES.items() for suffix in suffixes}


class PhotoError(ValueError):
    """A file that cannot be read or written; one line: the file, the reason, the fix."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as the network sees it, and what is needed to write it back.

    `Photo(pixels)` makes one from an array.
    """

    pixels: np.ndarray  # (H, W, 3), uint8 or uint16 over their full range, upright sRGB
    alpha: np.ndarray | None = None  # (H, W), of the file's depth, 0 is transparent
    is_mask: bool = False  # alpha is a TIFF's fourth channel of unspecified meaning
    format: str = "PNG"  # of the file's content: a key of SUFFIXES
    is_grey: bool = False
    # where the profile is not sRGB, pixels in its encoding and the file's depth; `pixels` is uint16
    native: np.ndarray | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None  # a TIFF block without the "Exif" prefix, orientation 1
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    extra: bytes = b""  # JPEG segments or PNG chunks that go into the same format verbatim
    jpeg_sampling: int = 0x111111  # as OpenCV counts it: 0x221111 is 4:2:0
    is_progressive: bool = False
    is_lossless: bool = False  # WebP


def content_format(data: bytes, path: Path) -> str:
    """Tell the format by the first bytes; only RAW, which mostly poses as TIFF, by suffix.

    Args:
        data: the file, or its beginning.
        path: its name, for the suffix.

    Returns:
        A key of SUFFIXES.

    Raises:
        PhotoError: the file is empty or of none of these formats (the message lacks its name).
    """
    if not data:
        raise PhotoError("is empty")
    is_raw = FORMAT_OF_SUFFIX.get(path.suffix.lower()) == "RAW"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "RAW" if is_raw else "TIFF"
    for magic, name in ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"BM", "BMP")):
        if data.startswith(magic):
            return name
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:11] in (b"avi", b"hei", b"hev", b"mif", b"msf"):
        size = int.from_bytes(data[:4], "big")
        brands = {data[start : start + 3] for start in (8, *range(16, min(size, len(data)), 4))}
        return "AVIF" if b"avi" in brands else "HEIF"  # both may begin with "mif1"
    if is_raw:
        return "RAW"
    raise PhotoError("is no JPEG, PNG, TIFF, WebP, BMP, HEIC, AVIF or RAW photo; convert it to one")


def written_format(path: str | Path, output_format: str | None = None) -> str | None:
    """The format asked for, or else the one of the suffix; None for an unknown suffix.

    Raises:
        ValueError: output_format is none of OUTPUT_FORMATS.
    """
    if output_format is None:
        name = FORMAT_OF_SUFFIX.get(Path(path).suffix.lower())
        return "TIFF" if name == "RAW" else name
    if output_format not in OUTPUT_FORMATS:
        allowed = ", ".join(OUTPUT_FORMATS)
        raise ValueError(f"output_format is {output_format!r}, allowed are {allowed} and null")
    return output_format.upper()


def register_heif() -> None:
    """Teach Pillow HEIC.

    Raises:
        PhotoError: pillow-heif is not installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise PhotoError("HEIC needs pillow-heif; pip install pillow-heif") from error
    pillow_heif.register_heif_opener()

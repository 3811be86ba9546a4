"""Metadata that travels with a photo: EXIF, and what only JPEG or only PNG can hold."""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
SEGMENT_BYTES = 65533  # in a segment of a JPEG
PHOTOSHOP = b"Photoshop 3.0\0"
XMP_TEXT = b"XML:com.adobe.xmp\0\0\0\0\0"  # keyword, uncompressed, no language
RAW_PROFILE = b"Raw profile type exif\0"  # keyword under which ImageMagick writes EXIF
MAX_TEXT = 2**24  # bytes of a PNG's compressed text; more is taken for an attack
PNG_CHUNKS = (b"cHRM", b"cICP", b"gAMA", b"sRGB", b"tEXt", b"zTXt", b"iTXt", b"tIME")


def upright_exif(exif: bytes) -> tuple[bytes, int]:
    """Read the orientation and reset it in place: MakerNotes hold offsets, so no byte may move.

    The thumbnail is unlinked, and width and height in px change places where the photo is turned.

    Args:
        exif: a block with or without the "Exif" prefix; any bytes.

    Returns:
        The block without the prefix, b"" where it can't be parsed; and the orientation, 1 to 8.
    """
    block = bytearray(exif.removeprefix(b"Exif\0\0"))
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None or len(block) < 14 or struct.unpack_from(f"{order}H", block, 2) != (42,):
        return b"", 1

    def entries(start: int) -> tuple[dict[int, int], int]:
        """Where each tag's entry lies in the directory, and where the directory ends."""
        if start + 2 > len(block):
            return {}, len(block)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        end = start + 2 + 12 * min(count, (len(block) - start - 2) // 12)
        places = range(start + 2, end, 12)
        return {struct.unpack_from(f"{order}H", block, at)[0]: at for at in places}, end

    main, end = entries(*struct.unpack_from(f"{order}I", block, 4))
    if end + 4 <= len(block):  # unlink the thumbnail
        struct.pack_into(f"{order}I", block, end, 0)
    if 0x0112 not in main:
        return bytes(block), 1
    (kind,) = struct.unpack_from(f"{order}H", block, main[0x0112] + 2)
    number = order + {1: "B", 4: "I"}.get(kind, "H")  # a SHORT, but some write BYTE or LONG
    (orientation,) = struct.unpack_from(number, block, main[0x0112] + 8)
    struct.pack_into(number, block, main[0x0112] + 8, 1)
    if 5 <= orientation <= 8 and 0x8769 in main:  # width and height in px change places
        camera, _ = entries(*struct.unpack_from(f"{order}I", block, main[0x8769] + 8))
        if 0xA002 in camera and 0xA003 in camera:
            x, y = (slice(camera[tag] + 2, camera[tag] + 12) for tag in (0xA002, 0xA003))
            block[x], block[y] = block[y], block[x]
    return bytes(block), orientation if 1 <= orientation <= 8 else 1


def tiff_exif(tags: Image.Exif) -> bytes:
    """The descriptive tags of a TIFF, or of a RAW that is one, as an EXIF block; or b"".

    All others are dropped from `tags`.
    """
    try:
        keep_descriptive(tags)
        tags.bigtiff = False
        return tags.tobytes().removeprefix(b"Exif\0\0") if len(tags) else b""
    except Exception:  # odd tags cost the tags, not the photo
        return b""


def keep_descriptive(tags: Image.Exif) -> None:
    """Drop the tags that say how the pixels of a TIFF lie.

    Photoshop's layers and thumbnail (34377, 37724) show the photo before, and DNG's tags (33421,
    33422, from 50706) would make a RAW of it; profile (34675) and XMP (700) travel apart.
    """
    descriptive = (269, 270, 271, 272, 285, 305, 306, 315, 316)  # name, camera, time, artist, ...
    apart = (700, 33421, 33422, 34377, 34675, 37724)
    for tag in list(tags):
        if tag not in descriptive and (tag <= 532 or tag >= 50706 or tag in apart):
            del tags[tag]


def jpeg_segment(marker: int, payload: bytes) -> bytes:
    """Pack a segment of a JPEG; it holds at most SEGMENT_BYTES."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def jpeg_extra(segments: list[tuple[str, bytes]]) -> bytes:
    """IPTC captions, comments, and the overflow of long XMP, as they are.

    Args:
        segments: "APP0" to "APP15" and "COM", each with its payload, as Pillow lists them.
    """
    app13 = [payload for name, payload in segments if name == "APP13"]
    kept = [(0xED, payload) for payload in app13 if not payload.startswith(PHOTOSHOP)]
    # Photoshop's resources run on from segment to segment.
    resources = without_thumbnails(
        b"".join(part[len(PHOTOSHOP) :] for part in app13 if part.startswith(PHOTOSHOP))
    )
    starts = range(0, len(resources), 65500)
    kept += [(0xED, PHOTOSHOP + resources[start : start + 65500]) for start in starts]
    kept += [(0xFE, payload) for name, payload in segments if name == "COM"]
    kept += [(0xE1, payload) for _, payload in segments if payload.startswith(XMP_EXTENSION)]
    return b"".join(jpeg_segment(*segment) for segment in kept)


def without_thumbnails(resources: bytes) -> bytes:
    """Drop the thumbnails, which show the photo before, from Photoshop's image resources.

    The others stay as they are, and so does what follows a damaged one.
    """
    kept, position = b"", 0
    while position + 12 <= len(resources) and resources.startswith(b"8BIM", position):
        (number,) = struct.unpack_from(">H", resources, position + 4)
        size_at = position + 6 + (resources[position + 6] + 2) // 2 * 2  # behind a padded name
        if size_at + 4 > len(resources):
            break
        end = size_at + 4 + (struct.unpack_from(">I", resources, size_at)[0] + 1) // 2 * 2
        if number not in (1033, 1036):
            kept += resources[position:end]
        position = end
    return kept + resources[position:]


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    """Pack a chunk of a PNG."""
    checksum = zlib.crc32(payload, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(payload)), kind, payload, struct.pack(">I", checksum)))


def png_extra(data: bytes) -> bytes:
    """Captions, date and colour hints of a PNG file, as they are."""
    return b"".join(
        png_chunk(kind, payload)
        for kind, payload in png_chunks(data)
        if kind in PNG_CHUNKS
        and not payload.startswith(XMP_TEXT[:18])
        and not raw_profile_exif(kind, payload)
    )


def png_info(data: bytes) -> dict[str, bytes]:
    """EXIF and XMP of a PNG file, by Pillow's names for them, also from behind the pixels."""
    info = {}
    for kind, payload in png_chunks(data):
        if kind == b"eXIf":
            info["exif"] = payload
        elif kind == b"iTXt" and payload.startswith(XMP_TEXT):
            info["xmp"] = payload.removeprefix(XMP_TEXT)
        elif exif := raw_profile_exif(kind, payload):
            info.setdefault("exif", exif)
    return info


def raw_profile_exif(kind: bytes, payload: bytes) -> bytes:
    """EXIF that a PNG's chunk holds as ImageMagick writes it, as hexadecimal text; or b""."""
    if kind not in (b"tEXt", b"zTXt") or not payload.startswith(RAW_PROFILE):
        return b""
    text = payload.removeprefix(RAW_PROFILE)
    try:
        if kind == b"zTXt":  # behind a byte for the method
            text = zlib.decompressobj().decompress(text[1:], MAX_TEXT)
        return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
    except (ValueError, zlib.error):
        return b""


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind and the payload of every chunk of a PNG file but its pixels."""
    position = 8
    while position + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if kind != b"IDAT":
            yield kind, data[position + 8 : position + 8 + size]
        position += size + 12

import struct

import pytest
from photo_files import HEIGHT, MAKER_NOTE, SCENE, WIDTH, make_exif, make_jpeg, turned_away
from PIL import Image

from metadata import upright_exif
from photo import load_photo


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("kind", "number"), [(1, "B3x"), (3, "H2x"), (4, "I")])
def test_the_orientation_is_read_and_reset_as_a_number_of_any_size(order, kind, number):
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]

    def block(orientation: int) -> bytes:
        entry = struct.pack(f"{order}IHHHI{number}I", 8, 1, 0x0112, kind, 1, orientation, 0)
        return start + entry

    assert upright_exif(block(6)) == (block(1), 6)


def test_a_block_that_is_no_tiff_is_no_exif():
    block = make_exif(6).removeprefix(b"Exif\0\0")
    assert upright_exif(block)[1] == 6
    assert upright_exif(block[:2] + bytes(2) + block[4:]) == (b"", 1)


def test_exif_stays_where_it_is_but_for_orientation_thumbnail_and_size(tmp_path):
    block = make_exif(6).removeprefix(b"Exif\0\0")
    (first,) = struct.unpack_from("<I", block, 4)
    (count,) = struct.unpack_from("<H", block, first)
    link = first + 2 + 12 * count
    thumbnail = struct.pack("<HHHIII", 1, 0x0201, 4, 1, 0, 0)
    linked = block[:link] + struct.pack("<I", len(block)) + block[link + 4 :] + thumbnail
    data = make_jpeg(turned_away(SCENE, 6), exif=b"Exif\0\0" + linked)
    (tmp_path / "in.jpg").write_bytes(data)
    kept = load_photo(tmp_path / "in.jpg").exif
    assert len(kept) == len(linked) and kept.index(MAKER_NOTE) == linked.index(MAKER_NOTE)
    assert kept[link : link + 4] == bytes(4)
    changed = [i for i, (a, b) in enumerate(zip(kept, linked, strict=True)) if a != b]
    assert len(changed) <= 1 + 4 + 2
    exif = Image.Exif()
    exif.load(kept)
    camera = exif.get_ifd(34665)
    assert exif[274] == 1 and (camera[40962], camera[40963]) == (HEIGHT, WIDTH)

from pathlib import Path

import pytest

from photo_formats import FORMAT_OF_SUFFIX, SUFFIXES, PhotoError, content_format, written_format


def test_every_suffix_is_in_small_letters_and_belongs_to_one_format():
    assert all(suffix == suffix.lower() for suffix in FORMAT_OF_SUFFIX)
    assert len(FORMAT_OF_SUFFIX) == sum(map(len, SUFFIXES.values()))


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (b"\xff\xd8\xff\xe0", "a.png", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "a.jpg", "PNG"),
        (b"RIFF\0\0\0\0WEBP", "a", "WEBP"),
        (b"\0\0\0\x18ftypmif1", "a.heic", "HEIF"),
        (b"\0\0\0\x18ftypavif", "a.heic", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0avifmiaf", "a.avif", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heicmiafavif", "a.heic", "HEIF"),
        (b"\0\0\0\0ftypavif", "a.avif", "AVIF"),
        (b"II*\0", "a.tif", "TIFF"),
        (b"II*\0", "a.NEF", "RAW"),
        (b"FUJIFILM", "a.raf", "RAW"),
        (b"\xff\xd8\xff\xe0", "a.nef", "JPEG"),
    ],
)
def test_the_content_tells_the_format_and_the_suffix_only_raw(head, name, expected):
    assert content_format(head, Path(name)) == expected


def test_content_of_no_known_format_is_refused():
    with pytest.raises(PhotoError, match=r"is no JPEG, PNG, .* convert it to one"):
        content_format(b"RIFF\0\0\0\0WAVE", Path("a.webp"))


def test_an_output_format_comes_before_the_suffix():
    assert written_format("a.png", "jpeg") == "JPEG"
    assert written_format("a.PNG") == "PNG"
    assert written_format("a.nef") == "TIFF"
    assert written_format("a.xyz") is None

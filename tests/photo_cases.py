"""The table of the files that people have, and of what must come of each."""

import io
import struct
from typing import Any, NamedTuple

import numpy as np
import tifffile
from photo_files import (
    ADOBE,
    ALPHA,
    ALPHA_16,
    BINARY,
    CAPTION,
    DPI,
    GREY,
    GREY_16,
    GREY_18,
    INK,
    LUT_RGB,
    P3,
    P3_PRIMARIES,
    PHOTOSHOP,
    SCENE,
    SCENE_16,
    SRGB,
    TABLE_RGB,
    UNEVEN,
    XMP,
    XMP_UPRIGHT,
    as_rgb,
    by_formula,
    by_lcms,
    decoded,
    encode,
    exif_chunk,
    icc_chunk,
    make_bmp_with_alpha,
    make_exif,
    make_jpeg,
    make_png_16,
    make_profile,
    make_tiff,
    png_chunk,
    put_behind_pixels,
    srgb_curve,
    srgb_encoded,
    turned_away,
)
from PIL import Image, features

# Red and blue columns in turn, which less chroma than 4:4:4 would blur.
COLOUR_LINES = np.zeros_like(SCENE)
COLOUR_LINES[:, ::2, 0], COLOUR_LINES[:, 1::2, 2] = 255, 255


class Case(NamedTuple):
    """One kind of file, and what must come of it."""

    name: str
    suffix: str
    data: bytes
    seen: np.ndarray  # (H, W, 3) that load_photo returns
    mode: str  # of the file written, as Pillow calls it
    alpha: np.ndarray | None = None
    stored: np.ndarray | None = None  # colour in the file written, where it is not `seen`
    icc: bytes | None = None  # in the file written
    exif: bool | None = None  # the file written holds what make_exif made; None: as the given one
    tolerance: float = 0  # levels, of lossy codecs and of colour conversion
    checks: dict[Any, Any] | None = None  # further keys of the written file's info or tags


def jpeg_cases() -> list[Case]:
    lossy = {"suffix": ".jpg", "tolerance": 6, "seen": SCENE, "mode": "RGB"}
    cases = [
        Case(f"jpeg turned by orientation {turn}", data=data, **lossy)
        for turn in range(1, 9)
        for data in [make_jpeg(turned_away(SCENE, turn), exif=make_exif(turn, "<>"[turn % 2]))]
    ]
    for name, subsampling in (("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)):
        data = make_jpeg(SCENE, subsampling=subsampling)
        cases.append(Case(f"jpeg {name}", data=data, **lossy, checks={"sampling": subsampling}))
    notes = {"comment": b"a comment", "dpi": DPI, "xmp": XMP, "exif": make_exif(6)}
    captions = {"photoshop": {1028: CAPTION[-12:]}}
    data = make_jpeg(turned_away(SCENE, 6), **notes, extra=photoshop_segment(CAPTION))
    checks = {"comment": b"a comment", "dpi": DPI, "xmp": XMP_UPRIGHT} | captions
    cases.append(Case("jpeg with xmp, iptc, comment and dpi", data=data, **lossy, checks=checks))
    thumbnail = struct.pack(">4sHxxI", b"8BIM", 1036, 65001) + bytes(65002)  # named "", padded
    resources = thumbnail + CAPTION
    extra = photoshop_segment(resources[:40000]) + photoshop_segment(resources[40000:])
    data = make_jpeg(SCENE, extra=extra)
    cases.append(Case("jpeg with a photoshop thumbnail", data=data, **lossy, checks=captions))
    checks = {"progressive": 1, "sampling": 2}
    data = make_jpeg(SCENE, subsampling=2, progressive=True)
    cases.append(Case("jpeg progressive", data=data, **lossy, checks=checks))
    data = make_jpeg(SCENE, keep_rgb=True)
    cases.append(Case("jpeg that stores rgb", data=data, **lossy))
    data = make_jpeg(SCENE, icc_profile=SRGB)
    cases.append(Case("jpeg with an srgb profile", data=data, **lossy, icc=SRGB))
    profiles = {"p3": P3, "adobe rgb": ADOBE, "table curve": TABLE_RGB, "uneven": UNEVEN}
    for name, profile in profiles.items():
        data = make_jpeg(SCENE, icc_profile=profile)
        seen = {"seen": by_lcms(decoded(data), profile), "stored": SCENE, "icc": profile}
        cases.append(Case(f"jpeg with a {name} profile", data=data, **(lossy | seen)))
    junk = (b"junk", b"x" * 70000)
    long_profile = make_profile(curve=srgb_curve(), primaries=P3_PRIMARIES, extra=[junk])
    data = make_jpeg(SCENE, icc_profile=long_profile)
    seen = {"seen": by_lcms(decoded(data), P3), "stored": SCENE, "icc": long_profile}
    cases.append(Case("jpeg with a profile of two segments", data=data, **(lossy | seen)))
    for name, profile in (("tables", LUT_RGB), ("garbage", b"no profile at all")):
        data = make_jpeg(SCENE, icc_profile=profile)
        cases.append(Case(f"jpeg with a profile of {name}", data=data, **lossy, icc=profile))
    data = make_jpeg(SCENE, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\0\0\0\0\0")
    cases.append(Case("jpeg with broken exif", data=data, **lossy, exif=False))
    second = {"save_all": True, "append_images": [Image.fromarray(SCENE[::-1])]}
    data = encode(SCENE, "MPO", **second, exif=make_exif(), quality=98, subsampling=0)
    cases.append(Case("jpeg of a phone with a second picture", data=data, **lossy))
    grey = lossy | {"seen": as_rgb(GREY), "mode": "L"}
    cases.append(Case("jpeg grey", data=make_jpeg(GREY), **grey))
    data = make_jpeg(turned_away(GREY, 6), exif=make_exif(6), progressive=True)
    cases.append(Case("jpeg grey, progressive, turned", data=data, **grey))
    encoded = srgb_encoded(np.linspace(0, 1, 256) ** 1.8) * 255
    grey |= {"seen": as_rgb(np.rint(encoded[GREY])), "stored": as_rgb(GREY), "icc": GREY_18}
    data = make_jpeg(GREY, icc_profile=GREY_18)
    cases.append(Case("jpeg grey with a grey profile", data=data, **grey))
    ink = Image.fromarray(SCENE).convert("CMYK")
    cases.append(Case("jpeg cmyk", data=make_jpeg(ink), **lossy, icc=b"sRGB"))
    data = make_jpeg(ink, icc_profile=INK)
    seen = {"seen": by_lcms(decoded(data), INK), "icc": b"sRGB"}
    cases.append(Case("jpeg cmyk with a profile", data=data, **(lossy | seen)))
    return cases


def photoshop_segment(resources: bytes) -> bytes:
    payload = PHOTOSHOP + resources
    return struct.pack(">BBH", 0xFF, 0xED, len(payload) + 2) + payload


def png_cases() -> list[Case]:
    def case(name: str, data: bytes, seen: np.ndarray, mode: str, exif=False, **expected) -> Case:
        return Case(f"png {name}", ".png", data, seen, mode, exif=exif, **expected)

    rgba, grey_alpha = np.dstack([SCENE, ALPHA]), np.dstack([GREY, ALPHA])
    rgba_16, grey_alpha_16 = np.dstack([SCENE_16, ALPHA_16]), np.dstack([GREY_16, ALPHA_16])
    palette = Image.fromarray(SCENE).quantize(64)
    coloured = np.asarray(palette.convert("RGB"))
    is_first = np.asarray(palette) == 3
    but_first = np.where(is_first, 0, 255).astype(np.uint8)
    is_key = (SCENE[0, 0] == SCENE).all(axis=-1)
    but_key = np.where(is_key, 0, 255).astype(np.uint8)
    text = png_chunk(b"tEXt", b"Title\0Sea") + png_chunk(b"gAMA", struct.pack(">I", 45455))
    text_checks = {"Title": "Sea", "gamma": 0.45455}
    adobe_seen = by_lcms(Image.fromarray(SCENE), ADOBE)
    wide = np.dstack([SCENE[..., 0], 255 - SCENE[..., 0], 0 * SCENE[..., 0]])
    wide_seen = by_lcms(Image.fromarray(wide), P3)
    in_adobe = {"stored": SCENE, "icc": ADOBE, "tolerance": 1}
    in_deep_adobe = {"stored": SCENE_16, "icc": ADOBE, "tolerance": 12}
    in_p3 = {"stored": wide, "icc": P3, "tolerance": 1}
    turned = encode(turned_away(rgba, 8), "PNG", exif=make_exif(8))
    turned_16 = make_png_16(turned_away(SCENE_16, 5), exif_chunk(5))
    with_srgb = encode(SCENE, "PNG", icc_profile=SRGB)
    with_adobe = encode(SCENE, "PNG", icc_profile=ADOBE)
    with_deep_adobe = make_png_16(SCENE_16, icc_chunk(ADOBE))
    with_p3 = encode(wide, "PNG", icc_profile=P3)
    with_text = make_png_16(SCENE_16, text)
    keyed_palette = encode(palette, "PNG", transparency=3)
    keyed = encode(SCENE, "PNG", transparency=tuple(map(int, SCENE[0, 0])))
    grey_alpha_16 = make_png_16(grey_alpha_16)
    keyed_16 = make_png_16(SCENE_16, png_chunk(b"tRNS", SCENE_16[0, 0].astype(">u2").tobytes()))
    but_key_16 = np.where((SCENE_16[0, 0] == SCENE_16).all(axis=-1), 0, 65535)
    keyed_grey = make_png_16(GREY_16, png_chunk(b"tRNS", GREY_16[0, :1].astype(">u2").tobytes()))
    keyed_grey_alpha = {"alpha": np.where(GREY_16[0, 0] == GREY_16, 0, 65535)}
    late = exif_chunk(6), png_chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP)
    late_8 = put_behind_pixels(encode(turned_away(SCENE, 6), "PNG"), *late)
    late_16 = put_behind_pixels(make_png_16(turned_away(SCENE_16, 6)), *late)
    upright = {"xmp": XMP_UPRIGHT}
    return [
        case("rgb", encode(SCENE, "PNG", exif=make_exif()), SCENE, "RGB", True),
        case("rgba", encode(rgba, "PNG"), SCENE, "RGBA", alpha=ALPHA),
        case("rgba, turned", turned, SCENE, "RGBA", True, alpha=ALPHA),
        case("grey", encode(GREY, "PNG", dpi=DPI), as_rgb(GREY), "L", checks={"dpi": DPI}),
        case("grey with alpha", encode(grey_alpha, "PNG"), as_rgb(GREY), "LA", alpha=ALPHA),
        case("1 bit", encode(BINARY, "PNG", "1"), as_rgb(BINARY), "L"),
        case("palette", encode(palette, "PNG"), coloured, "RGB"),
        case("palette with a transparent colour", keyed_palette, coloured, "RGBA", alpha=but_first),
        case("with a transparent colour", keyed, SCENE, "RGBA", alpha=but_key),
        case("16 bit", make_png_16(SCENE_16, exif_chunk()), SCENE_16, "RGB", True),
        case("16 bit, turned", turned_16, SCENE_16, "RGB", True),
        case("16 bit grey", make_png_16(GREY_16), as_rgb(GREY_16), "I;16"),
        case("16 bit with alpha", make_png_16(rgba_16), SCENE_16, "RGBA", alpha=ALPHA_16),
        case("16 bit grey with alpha", grey_alpha_16, as_rgb(GREY_16), "RGBA", alpha=ALPHA_16),
        case("16 bit with a transparent colour", keyed_16, SCENE_16, "RGBA", alpha=but_key_16),
        case("16 bit with a clear grey", keyed_grey, as_rgb(GREY_16), "RGBA", **keyed_grey_alpha),
        case("with an srgb profile", with_srgb, SCENE, "RGB", icc=SRGB),
        case("with an adobe rgb profile", with_adobe, adobe_seen, "RGB", **in_adobe),
        case("with p3 colours beyond srgb", with_p3, wide_seen, "RGB", **in_p3),
        case("16 bit adobe rgb", with_deep_adobe, by_formula(SCENE_16), "RGB", **in_deep_adobe),
        case("with late exif and xmp", late_8, SCENE, "RGB", True, checks=upright),
        case("16 bit with late exif and xmp", late_16, SCENE_16, "RGB", True, checks=upright),
        case("with text and gamma", with_text, SCENE_16, "RGB", checks=text_checks),
    ]


def tiff_cases() -> list[Case]:
    def case(name: str, data: bytes, seen: np.ndarray, mode: str, exif=False, **expected) -> Case:
        return Case(f"tiff {name}", ".tif", data, seen, mode, exif=exif, **expected)

    rgba, rgba_16 = np.dstack([SCENE, ALPHA]), np.dstack([SCENE_16, ALPHA_16])
    with_alpha = {"extrasamples": ["unassalpha"]}
    exif = Image.Exif()
    exif.load(make_exif())
    exif[700] = XMP
    tagged = encode(SCENE, "TIFF", exif=exif, dpi=DPI, icc_profile=SRGB)
    checks = {"dpi": DPI, "xmp": XMP_UPRIGHT}
    big = make_tiff(SCENE, bigtiff=True)
    fax = encode(BINARY, "TIFF", "1", compression="group4")
    deflated = make_tiff(SCENE_16, byteorder=">", compression="deflate")
    shallow_alpha = make_tiff(rgba, **with_alpha)
    deep_alpha = make_tiff(rgba_16, **with_alpha)
    covered = {"extrasamples": ["assocalpha"]}
    opaque, opaque_16 = ALPHA // 2 + 128, ALPHA_16 // 2 + 32768
    premultiplied = make_tiff(multiplied(SCENE, opaque), **covered)
    covered_16 = {"alpha": opaque_16, "tolerance": 1}
    premultiplied_16 = make_tiff(multiplied(SCENE_16, opaque_16), **covered)
    negative = make_tiff(65535 - GREY_16, photometric="miniswhite")
    in_adobe = make_tiff(SCENE_16, iccprofile=ADOBE)
    adobe = {"stored": SCENE_16, "icc": ADOBE, "tolerance": 12}
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages) as writer:
        writer.write(SCENE, photometric="rgb", metadata=None)
        writer.write(SCENE[::2, ::2], photometric="rgb", metadata=None, subfiletype=1)
    ink = Image.fromarray(SCENE).convert("CMYK")
    return [
        case("rgb", make_tiff(SCENE), SCENE, "RGB", checks={271: "Camera & Co"}),
        case("rgb, all metadata", tagged, SCENE, "RGB", exif=True, icc=SRGB, checks=checks),
        case("rgb, turned", make_tiff(turned_away(SCENE, 6), 6), SCENE, "RGB"),
        case("rgb, big tiff", big, SCENE, "RGB", checks={271: "Camera & Co"}),
        case("rgba", shallow_alpha, SCENE, "RGBA", alpha=ALPHA, checks={338: 2}),
        case("rgba, premultiplied", premultiplied, SCENE, "RGBA", alpha=opaque, tolerance=2),
        case("grey", make_tiff(GREY), as_rgb(GREY), "L"),
        case("1 bit, group 4", fax, as_rgb(BINARY), "L"),
        case("with a preview", pages.getvalue(), SCENE, "RGB"),
        case("cmyk", encode(ink, "TIFF"), SCENE, "RGB", icc=b"sRGB", tolerance=1),
        case("16 bit", make_tiff(SCENE_16), SCENE_16, "RGB", checks={271: "Camera & Co"}),
        case("16 bit, big endian, deflated", deflated, SCENE_16, "RGB"),
        case("16 bit, turned", make_tiff(turned_away(SCENE_16, 7), 7), SCENE_16, "RGB"),
        case("16 bit with alpha", deep_alpha, SCENE_16, "RGBA", alpha=ALPHA_16),
        case("16 bit, premultiplied", premultiplied_16, SCENE_16, "RGBA", **covered_16),
        case("16 bit grey", make_tiff(GREY_16), as_rgb(GREY_16), "I;16"),
        case("16 bit grey, white is zero", negative, as_rgb(GREY_16), "I;16"),
        case("16 bit adobe rgb", in_adobe, by_formula(SCENE_16), "RGB", **adobe),
    ]


def multiplied(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colour and alpha as TIFF's associated alpha has them."""
    cover = alpha[..., None] / np.iinfo(colour.dtype).max
    return np.dstack([np.rint(colour * cover).astype(colour.dtype), alpha])


def other_cases() -> list[Case]:
    rgba = np.dstack([SCENE, ALPHA])
    notes = {"exif": make_exif(3), "icc_profile": SRGB, "xmp": XMP}
    turned = encode(turned_away(SCENE, 3), "WEBP", quality=98, **notes)
    lossless = {"lossless": True, "exact": True, "exif": make_exif()}
    sharp, sharp_alpha = encode(SCENE, "WEBP", **lossless), encode(rgba, "WEBP", **lossless)
    soft_alpha = encode(rgba, "WEBP", quality=98, exact=True)
    palette = Image.fromarray(SCENE).quantize(64)
    coloured = np.asarray(palette.convert("RGB"))
    bmp_alpha = make_bmp_with_alpha(rgba)
    alpha, same = {"alpha": ALPHA}, {"tolerance": 0}
    kinds = [
        ("webp", encode(SCENE, "WEBP", quality=98), SCENE, "RGB", {}),
        ("webp, turned", turned, SCENE, "RGB", {"icc": SRGB, "checks": {"xmp": XMP_UPRIGHT}}),
        ("webp lossless", sharp, SCENE, "RGB", same),
        ("webp lossless with alpha", sharp_alpha, SCENE, "RGBA", same | alpha),
        ("webp with alpha", soft_alpha, SCENE, "RGBA", alpha),
        ("bmp", encode(SCENE, "BMP", dpi=DPI), SCENE, "RGB", same),
        ("bmp with alpha", bmp_alpha, SCENE, "RGBA", same | alpha | {"checks": {"dpi": DPI}}),
        ("bmp grey", encode(GREY, "BMP"), as_rgb(GREY), "L", same),
        ("bmp palette", encode(palette, "BMP"), coloured, "RGB", same),
    ]
    cases = [
        Case(name, f".{name[:4].strip()}", data, seen, mode, **{"tolerance": 10} | expected)
        for name, data, seen, mode, expected in kinds
    ]
    png = encode(SCENE, "PNG", exif=make_exif())
    cases.append(Case("png that is called jpg", ".jpg", png, SCENE, "RGB", tolerance=5))
    jpeg = make_jpeg(SCENE)
    cases.append(Case("jpeg that is called png", ".png", jpeg, SCENE, "RGB", tolerance=5))
    if features.check("avif"):
        avif = {"quality": 98, "subsampling": "4:4:4"}
        data = encode(turned_away(SCENE, 6), "AVIF", **avif, exif=make_exif(6), icc_profile=SRGB)
        cases.append(Case("avif, turned", ".avif", data, SCENE, "RGB", icc=SRGB, tolerance=10))
        data = encode(COLOUR_LINES, "AVIF", **avif)
        lines = Case("avif of fine colours", ".avif", data, COLOUR_LINES, "RGB", tolerance=10)
        cases.append(lines)
    return cases


CASES = [*jpeg_cases(), *png_cases(), *tiff_cases(), *other_cases()]

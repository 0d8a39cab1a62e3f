"""Formats are known by content; what a result loses is told, and nothing else is."""

import io
import logging
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from jaxdeblur.errors import InputError
from jaxdeblur.media import photo as photos
from jaxdeblur.media.formats import heif
from jaxdeblur.media.lost import LOST
from jaxdeblur.media.metadata import profiles

pillow_heif.register_heif_opener()

HEIGHT, WIDTH = 48, 64
NAMED = [".jpg", ".png", ".webp", ".tif", ".bmp", ".avif", ".heic"]
KINDS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".bmp": "BMP"}
KINDS |= {".avif": "AVIF", ".heic": "HEIF"}


def pixels(channels=3):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    array = np.stack([x * 3, y * 4, (x + y) * 2, 0 * x + 255][:channels], -1).astype(np.uint8)
    return array[..., 0] if channels == 1 else array


def saved(kind, mode="RGB", **options):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels()) if mode == "RGB" else Image.fromarray(pixels()).convert(mode)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def told(data, suffix, caplog):
    """The result and what is told in reading and writing."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "jaxdeblur"):
        photo = photos.read(data)
        encoded = photos.encode(photo, photo.rgb, suffix)
    names = {sentence: name for name, sentence in LOST.items()}
    return encoded, [names[record.message] for record in caplog.records]


@pytest.mark.parametrize("suffix", NAMED)
@pytest.mark.parametrize("kind", [*KINDS.values(), "GIF", "mif1-avif", "mif1-heic"])
def test_a_photo_of_any_name_is_known_by_its_content(kind, suffix, tmp_path, caplog):
    data = saved(kind.rpartition("-")[2].upper().replace("HEIC", "HEIF"))
    if kind.startswith("mif1"):  # the brand of the family, with the format's behind it
        data = data.replace(b"ftyp" + data[8:12], b"ftypmif1", 1)
        assert data[8:12] == b"mif1"
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(data)
    photo = photos.read(path)
    with Image.open(io.BytesIO(photos.encode(photo, photo.rgb, suffix))) as image:
        assert image.format == KINDS[suffix]
        assert image.size == (WIDTH, HEIGHT)
        assert np.abs(np.asarray(image.convert("RGB"), float) - photo.rgb).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "HEIF", "GIF"])
def test_transparency_under_the_name_of_jpeg_names_the_fix(kind):
    image = Image.fromarray(pixels(4))
    image.putpixel((5, 5), (1, 2, 3, 0))
    if kind == "GIF":
        image = image.convert("P")
        image.info["transparency"] = image.getpixel((5, 5))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    photo = photos.read(buffer.getvalue(), name="picture.jpg")
    with pytest.raises(InputError, match=r"^picture\.jpg: has transparency, .* choose \.png$"):
        photos.output_format(photo, ".jpg")
    opaque = photos.read(saved(kind))
    assert photos.output_format(opaque, ".jpg") == "JPEG"


OTHERS = {
    "jpeg-xl": (lambda: imagecodecs.jpegxl_encode(pixels()), "is JPEG XL"),
    "jpeg-2000": (lambda: imagecodecs.jpeg2k_encode(pixels()), "is JPEG 2000"),
    "jpeg-xr": (lambda: imagecodecs.jpegxr_encode(pixels()), "is JPEG XR"),
    "jpeg-ls": (lambda: imagecodecs.jpegls_encode(pixels()), "is a JPEG-LS file"),
    "12-bits": (
        lambda: imagecodecs.jpeg8_encode(pixels().astype(np.uint16) * 16, bitspersample=12),
        "is a JPEG file of 12 bits a sample",
    ),
    "16-bits": (
        lambda: imagecodecs.jpeg8_encode(
            pixels(1).astype(np.uint16) * 256, bitspersample=16, lossless=True
        ),
        "is a JPEG file of 16 bits a sample",
    ),
    "hierarchical": (
        lambda: saved("JPEG").replace(b"\xff\xc0", b"\xff\xc5"),
        "is a hierarchical JPEG file",
    ),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is SVG"),
    "pdf": (lambda: saved("PDF"), "is a PDF document"),
    "photoshop": (lambda: b"8BPS\0\1" + bytes(100), "is a Photoshop document"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_formats_that_are_not_read_are_named(case):
    make, message = OTHERS[case]
    with pytest.raises(InputError) as caught:
        photos.read(bytes(make()), name="a.jpg")
    assert str(caught.value) == f"a.jpg: {message}, which is not read; convert it to PNG"


def test_a_video_under_the_name_of_a_photo(shared_data):
    with pytest.raises(InputError, match=r"is a video, not a photograph; give it a name such as"):
        photos.read(shared_data / "cases" / "eq.mp4")


def test_lossless_jpeg_is_read(caplog):
    data = bytes(imagecodecs.jpeg8_encode(pixels(), lossless=True))
    np.testing.assert_array_equal(photos.read(data).rgb, imagecodecs.jpeg8_decode(data))
    assert told(data, None, caplog)[1] == ["lossless_jpeg"]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "AVIF", "PNG", "HEIF"])
@pytest.mark.parametrize("count", [2, 4])
def test_several_pictures_are_refused_with_their_number(kind, count):
    frames = [Image.fromarray(np.roll(pixels(), 9 * i, 1)) for i in range(count)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=rf"has {count} frames; give a file with a single picture"):
        photos.read(buffer.getvalue())


@pytest.mark.parametrize("transform", ["CMYK", "YCCK"])
def test_inks_keep_their_metadata_but_the_profile(transform, caplog):
    inks = np.dstack([pixels(), pixels(1) // 3])
    space = {"colorspace": "CMYK", "outcolorspace": transform}
    data = bytes(imagecodecs.jpeg8_encode(255 - inks, level=98, subsampling="444", **space))
    # Adobe's way to store inks is inverted, and OpenCV reads it so.
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    caption = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x05abcde\0"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    profile = b"ICC_PROFILE\0\1\1no profile of inks"
    extra = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body
        for marker, body in ((0xE1, exif), (0xED, caption), (0xFE, b"a comment"), (0xE2, profile))
    )
    encoded, names = told(data[:2] + extra + data[2:], None, caplog)
    assert names == ["inks"]
    for kept in (exif, caption, b"a comment"):
        assert kept in encoded
    assert b"ICC_PROFILE" not in encoded
    assert b"Adobe" not in encoded
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image, float) - expected).mean() < 4


def heic(**options):
    return saved("HEIF", **options)


def deep_heic():
    buffer = io.BytesIO()
    data = (pixels().astype(np.uint16) * 257).tobytes()
    pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), data).save(buffer)
    return buffer.getvalue()


def deep_avif():
    return imagecodecs.avif_encode(pixels().astype(np.uint16) * 4, bitspersample=10, level=90)


def png(*chunks, mode="RGB", **options):
    data = saved("PNG", mode, **options)
    bodies = [(kind, kind + body) for kind, body in chunks]
    written = b"".join(
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        for _, body in bodies
    )
    return data[:33] + written + data[33:]


def with_texts():
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a title")
    return saved("PNG", pnginfo=info)


def deep_png():
    return bytes(imagecodecs.png_encode(pixels().astype(np.uint16) * 257))


def long_exif():
    data = b"MM\0*\0\0\0\x08\0\1\x01\x0e\0\2" + struct.pack(">II", 70_000, 26) + bytes(4)
    return saved("PNG", exif=data + b"x" * 69_999 + b"\0")


def interlaced():
    """One pixel that says that it is interlaced: the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels()[:1, :1]).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


ADOBE_POINTS = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE = profiles.profile(ADOBE_POINTS, (2.2,), grey=False)


def bmp_of_version_5(profile):
    """A BMP file of 24 bits with a profile at its end, by Microsoft's BITMAPV5HEADER."""
    rows = pixels()[::-1, :, ::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, WIDTH, HEIGHT, 1, 24, 0, len(rows), 0, 0, 0, 0)
    header += (
        bytes(16) + b"DEBM" + bytes(48) + struct.pack("<III", 4, 124 + len(rows), len(profile))
    )
    header += bytes(4)
    size = 14 + 124 + len(rows) + len(profile)
    return struct.pack("<2sIII", b"BM", size, 0, 14 + 124) + header + rows + profile


C2PA_BOX = struct.pack(">I4s", 40, b"uuid") + bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
C2PA_BOX += bytes(16)
RIFF = b"C2PA" + struct.pack("<I", 4) + b"jumb"


def webp_with_credentials():
    data = saved("WEBP", lossless=True) + RIFF
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\1\0\0\0\0\0\0"
TOLD = {
    "jpeg": (lambda: saved("JPEG"), ".jpg", []),
    "progressive": (lambda: saved("JPEG", progressive=True), ".jpg", ["progressive"]),
    "comment": (lambda: saved("JPEG", comment=b"a"), ".png", ["segments"]),
    "comment-kept": (lambda: saved("JPEG", comment=b"a"), ".jpg", []),
    "common": (lambda: saved("JPEG", exif=EXIF, dpi=(300, 300)), ".png", []),
    "resolution": (lambda: saved("JPEG", dpi=(300, 300)), ".webp", ["resolution"]),
    "grey-webp": (lambda: saved("JPEG", "L"), ".webp", ["grey"]),
    "grey-png": (lambda: saved("JPEG", "L"), ".png", []),
    "bmp": (lambda: saved("JPEG", exif=EXIF), ".bmp", ["bmp"]),
    "bare-bmp": (lambda: saved("JPEG"), ".bmp", []),
    "colour-key": (lambda: saved("PNG", transparency=(3, 4, 5)), ".png", ["colour_key"]),
    "palette": (lambda: saved("PNG", "P", transparency=b"\1"), ".png", ["palette"]),
    "interlaced": (interlaced, ".png", ["interlaced_png"]),
    "grey-avif": (lambda: saved("PNG", "L"), ".avif", []),
    "grey-and-alpha-avif": (lambda: saved("PNG", "LA"), ".avif", ["grey"]),
    "bmp-profile": (lambda: bmp_of_version_5(ADOBE), ".bmp", ["colours"]),
    "bmp-profile-to-png": (lambda: bmp_of_version_5(ADOBE), ".png", []),
    "4-bits": (lambda: saved("PNG", "L", bits=4), ".png", ["grey_bits"]),
    "2-bits": (lambda: saved("PNG", "L", bits=2), ".png", ["grey_bits"]),
    "significant": (lambda: png((b"sBIT", b"\5\5\5")), ".png", ["chunks"]),
    "background": (lambda: png((b"bKGD", bytes(6))), ".png", ["chunks"]),
    "time": (lambda: png((b"tIME", bytes(7))), ".png", ["chunks"]),
    "private": (lambda: png((b"prIv", b"abc")), ".png", ["chunks"]),
    "apples-index": (lambda: png((b"iDOT", bytes(28))), ".png", []),
    "place": (lambda: png((b"oFFs", bytes(9))), ".png", []),
    "png-credentials": (lambda: png((b"caBX", b"jumb")), ".png", ["c2pa"]),
    "png-gain-map": (lambda: png((b"gmAP", b"a"), (b"gdAT", b"b")), ".png", ["gain_map"]),
    "texts": (with_texts, ".jpg", ["texts"]),
    "texts-kept": (with_texts, ".png", []),
    "deep-to-jpeg": (deep_png, ".jpg", ["deep"]),
    "deep-to-tiff": (deep_png, ".tif", []),
    "too-long": (long_exif, ".jpg", ["too_long"]),
    "long-to-webp": (long_exif, ".webp", []),
    "webp": (lambda: saved("WEBP"), ".webp", ["quality"]),
    "webp-lossless": (lambda: saved("WEBP", lossless=True), ".webp", []),
    "webp-credentials": (webp_with_credentials, ".webp", ["c2pa"]),
    "webp-to-png": (lambda: saved("WEBP"), ".png", []),
    "avif": (lambda: saved("AVIF"), ".avif", ["quality"]),
    "avif-credentials": (lambda: saved("AVIF") + C2PA_BOX, ".png", ["c2pa"]),
    "avif-video": (
        lambda: saved("AVIF") + struct.pack(">I4s", 8, b"mpvd"),
        ".png",
        ["motion_photo"],
    ),
    "deep-avif": (deep_avif, ".avif", ["deep", "quality"]),
    "heic": (heic, ".heic", ["quality"]),
    "heic-thumbnail": (lambda: heic(thumbnails=[48]), ".heic", ["previews", "quality"]),
    "heic-credentials": (lambda: heic() + C2PA_BOX, ".jpg", ["c2pa"]),
    "heic-video": (lambda: heic() + struct.pack(">I4s", 8, b"mpvd"), ".jpg", ["motion_photo"]),
    "deep-heic": (deep_heic, ".jpg", ["deep"]),
    "gif": (lambda: saved("GIF", "P"), None, ["palette", "gif"]),
    "gif-comment": (
        lambda: saved("GIF", "P", comment=b"a"),
        ".png",
        ["palette", "segments", "gif"],
    ),
    "gif-credentials": (
        lambda: saved("GIF", "P")[:-1] + b"!\xff\x0bC2PA_GIF\1\0\0\4jumb\0;",
        ".png",
        ["palette", "gif", "c2pa"],
    ),
    "gif-to-jpeg": (lambda: saved("GIF", "P"), ".jpg", ["palette"]),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_is_lost_is_told_and_nothing_else(case, caplog):
    make, suffix, names = TOLD[case]
    encoded, found = told(make(), suffix, caplog)
    assert sorted(found) == sorted(names)
    for mark in (b"caBX", b"C2PA", b"c2pa", b"mpvd", b"gmAP", b"gdAT", b"prIv"):
        assert mark not in encoded


def test_a_profile_in_bmp_goes_to_other_formats(caplog):
    data = bmp_of_version_5(ADOBE)
    np.testing.assert_array_equal(photos.read(data).rgb, pixels())
    encoded, _ = told(data, ".png", caplog)
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.info["icc_profile"] == ADOBE


def bmp_with_alpha(array):
    """A BMP file of 32 bits with a mask of alpha, by Microsoft's BITMAPV4HEADER."""
    rows = array[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, WIDTH, HEIGHT, 1, 32, 3, len(rows), 0, 0, 0, 0)
    header += struct.pack("<IIII4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs") + bytes(48)
    return struct.pack("<2sIII", b"BM", 122 + len(rows), 0, 122) + header + rows


def test_opaque_bmp_of_32_bits():
    array = pixels(4)
    np.testing.assert_array_equal(photos.read(bmp_with_alpha(array)).rgb, pixels())
    array[1, 1, 3] = 9
    with pytest.raises(InputError, match="is a BMP file with transparency; convert it to PNG"):
        photos.read(bmp_with_alpha(array))


def test_grey_stays_grey_where_it_can(caplog):
    for suffix, mode in ((".jpg", "L"), (".png", "L"), (".avif", "L"), (".webp", "RGB")):
        encoded, _ = told(saved("TIFF", "L"), suffix, caplog)
        with Image.open(io.BytesIO(encoded)) as image:
            assert image.mode == mode


def test_grey_with_a_profile_of_grey_looks_alike_as_rgb(caplog):
    grey = profiles.profile(ADOBE_POINTS, (1.3,), grey=True)
    encoded, _ = told(saved("PNG", "L", icc_profile=grey), ".webp", caplog)
    srgb = ImageCms.createProfile("sRGB")
    with Image.open(io.BytesIO(encoded)) as image:
        icc = image.info["icc_profile"]
        assert icc[16:20] == b"RGB "
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        shown = np.asarray(ImageCms.profileToProfile(image, profile, srgb), float)
    linear = (np.asarray(Image.fromarray(pixels()).convert("L")) / 255) ** 1.3
    expected = 255 * np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    assert np.abs(shown - expected[..., None]).mean() < 3
    for damaged in (grey[:140], grey[:100], grey[:128] + b"\xff" * 40):
        assert profiles.for_rgb(damaged) == b""


def test_a_name_without_an_end_keeps_the_format():
    for kind, written in (("JPEG", "JPEG"), ("WEBP", "WEBP"), ("GIF", "PNG")):
        photo = photos.read(saved(kind))
        with Image.open(io.BytesIO(photos.encode(photo, photo.rgb, ""))) as image:
            assert image.format == written


MOTION = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf="
    b"'http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description "
    b"xmlns:GCamera='http://ns.google.com/photos/1.0/camera/' GCamera:MotionPhoto='1' "
    b"xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmp:Rating='4'/></rdf:RDF></x:xmpmeta>"
)


def with_xmp(kind, *, packed=False):
    if kind != "PNG":
        return saved(kind, xmp=MOTION)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", MOTION.decode(), zip=packed)
    return saved(kind, pnginfo=info)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("suffix", [None, ".jpg"])
def test_xmp_of_motion_photos_in_every_format(kind, suffix, caplog):
    for packed in (False, True):
        data = with_xmp(kind, packed=packed)
        encoded, names = told(data, suffix, caplog)
        assert "motion_photo" in names
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            packet = image.info["xmp"]
        assert packet == MOTION.replace(b" GCamera:MotionPhoto='1'", b"")


def test_profiles_of_xmp_and_photoshop_that_imagemagick_writes_as_text(caplog):
    caption = b"8BIM\x04\x04\0\0\0\0\0\x05abcde\0"
    for name, payload, expected, loss in (
        ("xmp", MOTION, MOTION.replace(b" GCamera:MotionPhoto='1'", b""), "motion_photo"),
        ("8bim", caption + b"8BIM\x04\x0c\0\0\0\0\0\2ab", caption, "previews"),
        ("8bim", caption, caption, None),
    ):
        info = PngImagePlugin.PngInfo()
        text = f"\n{name}\n{len(payload):8}\n{payload.hex()}\n"
        info.add_text(f"Raw profile type {name}", text, zip=True)
        encoded, names = told(saved("PNG", pnginfo=info), None, caplog)
        assert names == ([loss] if loss else [])
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            _, size, digits = image.info[f"Raw profile type {name}"].split(None, 2)
        assert bytes.fromhex(digits) == expected
        assert int(size) == len(expected)


def test_exif_too_long_for_jpeg_leaves_the_rest(caplog):
    encoded, _ = told(long_exif(), ".jpg", caplog)
    with Image.open(io.BytesIO(encoded)) as image:
        assert not image.getexif()
    encoded, _ = told(long_exif(), ".webp", caplog)
    with Image.open(io.BytesIO(encoded)) as image:
        assert len(image.getexif()[270]) == 69_999


def test_xmp_too_long_for_jpeg_is_told(caplog):
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + b" " * 70_000 + b"</x:xmpmeta>"
    encoded, names = told(saved("WEBP", xmp=packet, exif=EXIF), ".jpg", caplog)
    assert names == ["too_long"]
    with Image.open(io.BytesIO(encoded)) as image:
        assert "xmp" not in image.info
        assert image.getexif()[274] == 1


def items(*parts):
    """The description of pictures in a HEIC or AVIF file, as far as marks are searched in it."""

    def box(kind, body):
        return struct.pack(">I4s", 8 + len(body), kind) + body

    meta = box(b"meta", bytes(4) + b"".join(box(kind, body) for kind, body in parts))
    return box(b"ftyp", b"heic" + bytes(4) + b"mif1heic") + meta


def test_pictures_beside_the_main_one_are_known():
    auxiliary = b"\0\0\0\x30auxC\0\0\0\0"
    assert heif.lost(items((b"iinf", b"infe\2\0\0\0\0\3\0\0tmap"))) == {"gain_map"}
    apple = auxiliary + b"urn:com:apple:photo:2020:aux:hdrgainmap\0"
    assert heif.lost(items((b"iprp", apple))) == {"gain_map"}
    for kind in (
        b"urn:mpeg:hevc:2015:auxid:2\0",
        b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth\0",
        b"urn:com:apple:photo:2018:aux:portraiteffectsmatte\0",
    ):
        assert heif.lost(items((b"iprp", auxiliary + kind))) == {"depth_map"}
    for kind in (b"urn:mpeg:hevc:2015:auxid:1\0", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"):
        assert heif.lost(items((b"iprp", auxiliary + kind))) == set()
    assert heif.lost(items((b"iref", b"\0\0\0\x0ethmb"))) == {"previews"}
    assert heif.lost(items((b"idat", b"tmap thmb hdrgainmap"))) == set()
    assert heif.lost(items()[:30]) == set()


def test_a_camera_s_heic_is_restored(shared_data, caplog):
    data = (shared_data / "cases" / "DSC0001.HIF").read_bytes()
    encoded, names = told(data, ".HIF", caplog)
    assert names == ["quality"]
    with Image.open(io.BytesIO(encoded)) as image, Image.open(io.BytesIO(data)) as before:
        assert image.size == before.size == (192, 256)
        assert image.getexif()[271] == before.getexif()[271] == "Sony"
        assert image.getexif()[274] == 1


def test_a_profile_is_what_imagecms_reads(caplog):
    """Of JPEG files in grey, too, whose profile has one curve."""
    data = imagecodecs.avif_encode(pixels(), primaries=12, transfer=13, matrix=6)
    encoded, _ = told(data, ".jpg", caplog)
    with Image.open(io.BytesIO(encoded)) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))

"""Photo files against the independent readers of OpenCV, tifffile, imagecodecs and Pillow."""

import errno
import io
import logging
import os
import struct
import subprocess
import sys
import warnings
import zlib

import cv2
import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin

from jaxdeblur.errors import InputError
from jaxdeblur.media import photo as photos

pillow_heif.register_heif_opener()

XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
    b'<?xpacket end="w"?>'
)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MAKE, DATE = "Camera & Co", "2024:02:29 12:34:56"
HEIGHT, WIDTH = 40, 52


def exif_block(orientation=6):
    exif = Image.Exif()
    exif[271], exif[274] = MAKE, orientation
    exif[34665] = {36867: DATE, 33434: TiffImagePlugin.IFDRational(1, 125)}
    exif[34853] = {1: "N", 2: (48.0, 51.0, 29.5), 3: "E", 4: (2.0, 17.0, 40.25)}
    return exif.tobytes()


def picture(channels, dtype=np.uint8, seed=0):
    """A gradient with noise; the top and bottom of the type's range occur."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / (HEIGHT + WIDTH)
    values = np.stack([0.8 * (x if i % 2 else y) + 0.1 + 0.1 * i for i in range(channels)], -1)
    values = values + rng.normal(0, 0.015, values.shape)
    values = np.clip((values - values.min()) / np.ptp(values), 0, 1)
    if dtype == np.float32:
        return values.astype(np.float32)
    return np.rint(values * np.iinfo(dtype).max).astype(dtype)


def squeezed(array):
    return array[..., 0] if array.shape[-1] == 1 else array


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_pillow(kind, array, **options):
    metadata = {} if kind == "BMP" else {"exif": exif_block(), "icc_profile": ICC, "xmp": XMP}
    if kind == "PNG":
        metadata.pop("xmp")
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add_text("Title", "a title")
        metadata["pnginfo"] = info
    if kind == "TIFF":
        exif = Image.Exif()
        exif.load(exif_block())
        exif[700], exif[270] = metadata.pop("xmp"), "a title"
        metadata["exif"] = exif
    if kind in ("PNG", "JPEG", "BMP", "TIFF"):
        metadata["dpi"] = (300, 300)
    return saved(Image.fromarray(squeezed(array)), kind, **{**metadata, **options})


def png_by_hand(array, chunks=b""):
    """An unfiltered PNG file of 8 or 16 bits, by the specification."""
    height, width, channels = array.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = array.astype(array.dtype.newbyteorder(">")).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + chunks
        + png_chunk(b"IDAT", zlib.compress(raw))
        + png_chunk(b"IEND", b"")
    )


def png_chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def metadata_chunks():
    """What Pillow writes between IHDR and IDAT."""
    data = with_pillow("PNG", picture(1))
    return data[33 : data.index(b"IDAT") - 4]


def with_tifffile(array, **options):
    buffer = io.BytesIO()
    colours = "rgb" if array.shape[-1] > 2 else "minisblack"
    tags = [
        (271, 2, 0, MAKE, True),
        (274, 3, 1, 6, True),
        (700, 1, len(XMP), XMP, True),
        (33432, 2, 5, "J\u00e9r".encode() + b"\0", True),
    ]
    options = {"photometric": colours, "iccprofile": ICC, "extratags": tags, **options}
    if array.shape[-1] in (2, 4):
        options.setdefault("extrasamples", ["unassalpha"])
    if options.get("planarconfig") == "separate":
        array = np.moveaxis(array, -1, 0)
    tifffile.imwrite(buffer, squeezed(array), resolution=(300, 300), metadata=None, **options)
    return buffer.getvalue()


def by_opencv(data):
    """`[H, W, C]` in the order R, G, B, alpha; not turned."""
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array.ndim == 2:
        return array[..., None]
    return array[..., [2, 1, 0, 3][: array.shape[-1]]]


def by_tifffile(data):
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        array = file.pages[0].asarray()
        if file.pages[0].planarconfig == 2 and array.ndim == 3:
            array = np.moveaxis(array, 0, -1)
    return array if array.ndim == 3 else array[..., None]


def by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def by_hand(data):
    """The pixels of `png_by_hand` and of libpng's output, by imagecodecs."""
    array = imagecodecs.png_decode(data)
    return array if array.ndim == 3 else array[..., None]


def of_photo(photo):
    """The pixels of a photo as a reader would give them."""
    array = photo.rgb[..., :1] if photo.grey else photo.rgb
    return array if photo.alpha is None else np.concatenate([array, photo.alpha[..., None]], -1)


def fields(data):
    """The metadata as Pillow reads it."""
    with Image.open(io.BytesIO(data)) as image:
        # Pillow turns TIFF files, and drops their orientation, when it loads them.
        if image.format != "TIFF":
            image.load()
        exif = image.getexif()
        xmp = image.info.get("xmp")
        return {
            "mode": image.mode,
            "size": image.size,
            "make": exif.get(271),
            "orientation": exif.get(274),
            "date": exif.get_ifd(34665).get(36867),
            "exposure": exif.get_ifd(34665).get(33434),
            "gps": dict(exif.get_ifd(34853).items()),
            "icc": image.info.get("icc_profile"),
            "xmp": xmp.rstrip(b"\0") if xmp else xmp,
            "dpi": [round(float(value), 1) for value in image.info.get("dpi", ())],
        }


LOSSLESS = {
    **{
        f"png-{c}": (
            ".png",
            lambda c=c: with_pillow("PNG", picture(c)),
            by_pillow if c == 2 else by_opencv,
        )
        for c in (1, 2, 3, 4)
    },
    **{
        f"png16-{c}": (
            ".png",
            lambda c=c: png_by_hand(picture(c, np.uint16), metadata_chunks()),
            by_hand if c == 2 else by_opencv,
        )
        for c in (1, 2, 3, 4)
    },
    **{
        f"tiff-{c}": (".tif", lambda c=c: with_pillow("TIFF", picture(c)), by_tifffile)
        for c in (1, 2, 3, 4)
    },
    "tiff16-1": (".tif", lambda: with_pillow("TIFF", picture(1, np.uint16)), by_tifffile),
    "tiff-float": (".tif", lambda: with_pillow("TIFF", picture(1, np.float32)), by_tifffile),
    "webp-3": (".webp", lambda: with_pillow("WEBP", picture(3), lossless=True), by_opencv),
    "webp-4": (
        ".webp",
        lambda: with_pillow("WEBP", picture(4), lossless=True, exact=True),
        by_opencv,
    ),
    "bmp-1": (".bmp", lambda: with_pillow("BMP", picture(1)), by_opencv),
    "bmp-3": (".bmp", lambda: with_pillow("BMP", picture(3)), by_opencv),
}


@pytest.mark.parametrize("case", LOSSLESS)
def test_lossless_formats_come_back_exactly(case, tmp_path):
    suffix, make, reader = LOSSLESS[case]
    data = make()
    (tmp_path / f"in{suffix}").write_bytes(data)
    photo = photos.read(tmp_path / f"in{suffix}")
    if case.startswith("bmp-1"):  # OpenCV expands the palette of grey levels
        reader = by_pillow
    expected = reader(data)
    assert photo.rgb.shape == (HEIGHT, WIDTH, 3)
    assert photo.rgb.dtype == photo.rgb[..., 0].dtype == expected.dtype
    np.testing.assert_array_equal(of_photo(photo).astype(np.float64), expected.astype(np.float64))
    assert photo.orientation == (1 if suffix == ".bmp" else 6)

    encoded = photos.encode(photo, photo.rgb)
    np.testing.assert_array_equal(reader(encoded), expected)
    assert reader(encoded).dtype == expected.dtype
    assert fields(encoded) == fields(data)

    # The given pixels are written, not the input's.
    top = 1 if expected.dtype == np.float32 else np.iinfo(expected.dtype).max
    colours = 1 if photo.grey else 3
    changed = reader(photos.encode(photo, top - photo.rgb))
    np.testing.assert_array_equal(changed[..., :colours], top - expected[..., :colours])
    np.testing.assert_array_equal(changed[..., colours:], expected[..., colours:])


def test_the_metadata_under_test_is_there():
    for case in ("png-3", "png16-3", "tiff-3", "tiff16-1", "webp-3"):
        found = fields(LOSSLESS[case][1]())
        assert (found["make"], found["orientation"], found["date"]) == (MAKE, 6, DATE), case
        assert found["gps"][2] == (48.0, 51.0, 29.5)
        assert found["icc"] == ICC
        assert found["xmp"] == XMP


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True, "byteorder": ">"},
        {"compression": "lzw", "predictor": True, "byteorder": ">", "tile": (16, 32)},
        {"byteorder": ">", "bigtiff": True, "rowsperstrip": 7},
        {"planarconfig": "separate", "compression": "zlib"},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "plain",
)
def test_tiff_of_every_depth(channels, dtype, options):
    array = picture(channels, dtype)
    if channels == 1:
        options = {k: v for k, v in options.items() if k != "planarconfig"}
    data = with_tifffile(array, **options)
    photo = photos.read(data)
    np.testing.assert_array_equal(of_photo(photo), array)
    encoded = photos.encode(photo, photo.rgb)
    np.testing.assert_array_equal(by_tifffile(encoded), array)
    if (channels, dtype) == (4, np.uint8):  # which OpenCV multiplies by alpha
        np.testing.assert_array_equal(by_pillow(encoded), np.rot90(array, -1))
    elif channels != 2:  # OpenCV and Pillow turn TIFF files, as their orientation, 6, says
        np.testing.assert_array_equal(by_opencv(encoded), np.rot90(array, -1))
    with (
        tifffile.TiffFile(io.BytesIO(data)) as before,
        tifffile.TiffFile(io.BytesIO(encoded)) as after,
    ):
        old, new = before.pages[0].tags, after.pages[0].tags
        for tag in (256, 257, 258, 262, 271, 274, 277, 282, 283, 296, 338, 700, 33432, 34675):
            assert (tag in old) == (tag in new), tag
            assert tag not in old or old[tag].value == new[tag].value, tag
        assert set(np.ravel(new.valueof(339, 1))) == {3 if dtype == np.float32 else 1}
        compression = {1: 1, 5: 5, 8: 8, 32946: 8}[int(before.pages[0].compression)]
        assert after.pages[0].compression == compression


def test_tiff_whose_zero_is_white():
    array = picture(1, np.uint16)
    photo = photos.read(with_tifffile(65535 - array, photometric="miniswhite"))
    np.testing.assert_array_equal(photo.rgb, np.repeat(array, 3, -1))
    with tifffile.TiffFile(io.BytesIO(photos.encode(photo, photo.rgb))) as file:
        assert file.pages[0].photometric == tifffile.PHOTOMETRIC.MINISBLACK
        np.testing.assert_array_equal(file.pages[0].asarray(), array[..., 0])


def test_tiff_with_other_compressions_is_deflated():
    array = picture(3)
    data = saved(Image.fromarray(array), "TIFF", compression="packbits")
    encoded = photos.encode(photos.read(data), array)
    np.testing.assert_array_equal(by_tifffile(encoded), array)
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
    data = saved(Image.fromarray(array), "TIFF", compression="jpeg", quality=90)
    photo = photos.read(data)
    np.testing.assert_array_equal(photo.rgb, imagecodecs.tiff_decode(data))
    assert np.abs(photo.rgb - array.astype(float)).mean() < 5


def test_large_tiff_has_strips():
    array = np.random.default_rng(0).integers(0, 65536, (700, 301, 3)).astype(np.uint16)
    for compression in (None, "lzw", "zlib"):
        photo = photos.read(with_tifffile(array, compression=compression))
        encoded = photos.encode(photo, photo.rgb)
        np.testing.assert_array_equal(by_opencv(encoded), np.rot90(array, -1))
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            assert len(file.pages[0].dataoffsets) > 1


LOSSY = {
    "jpeg-1": (lambda: with_pillow("JPEG", picture(1), quality=80), imagecodecs.jpeg8_decode),
    "jpeg-420": (
        lambda: with_pillow("JPEG", picture(3), quality=80, subsampling=2),
        imagecodecs.jpeg8_decode,
    ),
    "jpeg-422": (
        lambda: with_pillow("JPEG", picture(3), quality=80, subsampling=1, progressive=True),
        imagecodecs.jpeg8_decode,
    ),
    "jpeg-444": (
        lambda: with_pillow("JPEG", picture(3), quality=99, subsampling=0),
        imagecodecs.jpeg8_decode,
    ),
    "webp-3": (lambda: with_pillow("WEBP", picture(3), quality=80), imagecodecs.webp_decode),
    "webp-4": (lambda: with_pillow("WEBP", picture(4), quality=80), imagecodecs.webp_decode),
    "avif-1": (lambda: with_pillow("AVIF", picture(1), quality=80), imagecodecs.avif_decode),
    "avif-3": (lambda: with_pillow("AVIF", picture(3), quality=80), imagecodecs.avif_decode),
    "avif-444": (
        lambda: with_pillow("AVIF", picture(3), quality=80, subsampling="4:4:4"),
        imagecodecs.avif_decode,
    ),
    "avif-4": (lambda: with_pillow("AVIF", picture(4), quality=80), imagecodecs.avif_decode),
    "heif-1": (lambda: with_pillow("HEIF", picture(1), quality=80), by_pillow),
    "heif-3": (lambda: with_pillow("HEIF", picture(3), quality=80), by_pillow),
    "heif-4": (lambda: with_pillow("HEIF", picture(4), quality=80), by_pillow),
}


@pytest.mark.parametrize("case", LOSSY)
def test_lossy_formats_come_back_nearly(case):
    make, reader = LOSSY[case]
    data = make()
    photo = photos.read(data)
    expected = reader(data)
    expected = expected if expected.ndim == 3 else expected[..., None]
    np.testing.assert_array_equal(of_photo(photo).astype(np.float64), expected.astype(np.float64))

    for pixels in (photo.rgb, 255 - photo.rgb):
        encoded = photos.encode(photo, pixels)
        again = photos.read(encoded)
        assert again.rgb.shape == pixels.shape
        error = np.abs(again.rgb.astype(float) - pixels)
        assert error.mean() < (1.5 if "444" in case or case.endswith("1") else 3)
        if photo.alpha is not None:
            assert np.abs(again.alpha.astype(float) - photo.alpha).mean() < 1.5
        assert fields(encoded) == fields(data)
    if not case.startswith("heif"):
        assert fields(data)["orientation"] == 6
    assert fields(data)["make"] == MAKE
    assert fields(data)["date"] == DATE
    assert fields(data)["icc"] == ICC
    assert fields(data)["xmp"] == XMP


def test_jpeg_keeps_sampling_and_the_finer_tables():
    for quality, subsampling in [(80, 2), (80, 1), (99, 0), (99, 2)]:
        data = with_pillow("JPEG", picture(3), quality=quality, subsampling=subsampling)
        at_95 = with_pillow("JPEG", picture(3), quality=95, subsampling=subsampling)
        photo = photos.read(data)
        with (
            Image.open(io.BytesIO(photos.encode(photo, photo.rgb))) as image,
            Image.open(io.BytesIO(data if quality > 95 else at_95)) as wanted,
        ):
            assert image.quantization == wanted.quantization
            assert image.layer == wanted.layer


def test_noise_in_a_jpeg_of_the_finest_tables():
    """It needs more bytes than Pillow sets aside for progressive files."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 500, 3)).astype(np.uint8)
    soft = saved(Image.fromarray(noise // 32), "JPEG", quality=100, subsampling=0, progressive=True)
    photo = photos.read(soft)
    with Image.open(io.BytesIO(photos.encode(photo, noise))) as image:
        assert np.abs(np.asarray(image).astype(float) - noise).mean() < 2


def test_jpeg_keeps_the_bytes_of_every_metadata_segment():
    def segment(marker, body):
        return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body

    extra = (
        segment(0xED, b"Photoshop 3.0\x008BIM caption")
        + segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"x" * 300)
        + segment(0xFE, b"a comment")
    )
    stale = segment(0xE2, b"MPF\0II*\0") + segment(0xEE, b"Adobe\0d\0\0\0\0\1")
    plain = with_pillow("JPEG", picture(3))
    data = plain[:2] + stale + extra + plain[2:]
    photo = photos.read(data)
    encoded = photos.encode(photo, photo.rgb)
    assert extra in encoded
    assert exif_block() in encoded
    assert b"MPF\0" not in encoded
    assert b"Adobe\0d" not in encoded
    assert fields(encoded) == fields(plain)


def test_avif_and_heic_keep_the_resolution_of_colours():
    for subsampling, chroma in (("4:4:4", 444), ("4:2:2", 422), ("4:2:0", 420)):
        image = Image.fromarray(picture(3))
        data = saved(image, "HEIF", subsampling=subsampling)
        photo = photos.read(data)
        encoded = pillow_heif.open_heif(photos.encode(photo, photo.rgb))
        assert encoded.info["chroma"] == chroma
        data = saved(image, "AVIF", subsampling=subsampling)
        photo = photos.read(data)
        encoded = photos.encode(photo, photo.rgb)
        # The box with the decoder's configuration.
        assert encoded[encoded.index(b"av1C") :][:8] == data[data.index(b"av1C") :][:8]


def test_lossless_webp_keeps_the_colours_of_transparent_pixels():
    array = picture(4)
    array[:20, :, 3] = 0
    photo = photos.read(with_pillow("WEBP", array, lossless=True, exact=True))
    np.testing.assert_array_equal(by_opencv(photos.encode(photo, photo.rgb)), array)


def test_a_directory_that_holds_itself():
    data = bytearray(with_pillow("TIFF", picture(3)))
    at = data.index(struct.pack("<HHI", 34665, 4, 1))
    data[at + 8 : at + 12] = data[4:8]  # the EXIF directory is the main one
    photo = photos.read(bytes(data))
    np.testing.assert_array_equal(by_tifffile(photos.encode(photo, photo.rgb)), picture(3))


def test_jpeg_with_further_pictures_is_one_picture():
    main, other = (Image.fromarray(picture(3, seed=i)) for i in (0, 1))
    data = saved(main, "MPO", save_all=True, append_images=[other], quality=90)
    photo = photos.read(data)
    assert photo.format == "JPEG"
    with Image.open(io.BytesIO(photos.encode(photo, photo.rgb))) as image:
        assert image.format == "JPEG"
        assert getattr(image, "n_frames", 1) == 1


def test_heic_is_displayed_as_before():
    array = picture(3)
    for orientation in range(1, 9):
        exif = exif_block(orientation)
        data = saved(Image.fromarray(array), "HEIF", exif=exif, quality=95)
        displayed = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        photo = photos.read(data)
        np.testing.assert_array_equal(photo.upright(photo.rgb), displayed)
        encoded = photos.encode(photo, photo.rgb)
        again = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
        assert np.abs(again.astype(float) - displayed).mean() < 3


@pytest.mark.parametrize("suffix", photos.SUFFIXES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF", "BMP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_files_without_any_metadata(channels, kind, suffix):
    photo = photos.read(saved(Image.fromarray(squeezed(picture(channels))), kind))
    for chosen in (None, suffix):
        encoded = photos.encode(photo, photo.rgb, chosen)
        found = fields(encoded)
        assert found["size"] == (WIDTH, HEIGHT)
        assert not found["make"]
        assert found["orientation"] in (None, 1)
        assert not found["xmp"]
        assert not found["icc"]
        error = photos.read(encoded).rgb.astype(float) - photo.rgb
        assert np.abs(error).mean() < 6


@pytest.mark.parametrize("suffix", photos.SUFFIXES)
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".webp", ".avif", ".heic", "16"])
def test_other_formats_are_displayed_alike_and_keep_metadata(source, suffix):
    kinds = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".webp": "WEBP", ".avif": "AVIF"}
    if source == "16":
        data = png_by_hand(picture(3, np.uint16), metadata_chunks())
    else:
        data = with_pillow(kinds.get(source, "HEIF"), picture(3))
    photo = photos.read(data)
    encoded = photos.encode(photo, photo.rgb, suffix)
    again = photos.read(encoded, name="again")
    displayed = photo.upright(photo.rgb).astype(float) / np.iinfo(photo.rgb.dtype).max
    result = again.upright(again.rgb).astype(float) / np.iinfo(again.rgb.dtype).max
    assert result.shape == displayed.shape
    lossless = suffix in (".png", ".tif", ".tiff", ".bmp")
    if lossless and photo.rgb.dtype == again.rgb.dtype:
        np.testing.assert_array_equal(result, displayed)
    # WebP halves the resolution of colours, and these are noisy.
    assert np.abs(result - displayed).mean() < (6 if suffix == ".webp" else 4) / 255
    assert again.rgb.dtype == (
        np.uint16 if source == "16" and suffix in (".png", ".tif", ".tiff") else np.uint8
    )
    if suffix == ".bmp":
        return
    before, after = fields(data), fields(encoded)
    for key in ("make", "date", "exposure", "gps", "icc", "xmp"):
        assert after[key] == before[key], key
    if before["dpi"] and suffix in (".jpg", ".png", ".tif"):
        assert after["dpi"] == before["dpi"]


def test_depths_between_formats():
    deep = photos.read(png_by_hand(picture(3, np.uint16)))
    expected = np.rint(deep.rgb / 257).astype(np.uint8)
    np.testing.assert_array_equal(by_opencv(photos.encode(deep, deep.rgb, ".bmp")), expected)
    np.testing.assert_array_equal(by_tifffile(photos.encode(deep, deep.rgb, ".TIF")), deep.rgb)
    real = photos.read(with_tifffile(picture(1, np.float32)))
    values = real.rgb[..., :1].astype(float)
    png = by_opencv(photos.encode(real, real.rgb, ".png"))
    np.testing.assert_array_equal(png, np.rint(values * 65535).astype(np.uint16))
    bmp = by_pillow(photos.encode(real, real.rgb, ".bmp"))
    upright = np.rot90(np.rint(values * 255).astype(np.uint8), -1)
    np.testing.assert_array_equal(bmp, upright)
    wild = np.where(real.rgb > 0.5, np.float32(1.5), np.float32(-0.5))
    written = by_tifffile(photos.encode(real, wild))
    np.testing.assert_array_equal(written, (values > 0.5).astype(np.float32))


def test_grey_is_the_rounded_mean():
    for dtype in (np.uint8, np.uint16):
        photo = photos.read(png_by_hand(picture(1, dtype)))
        assert photo.grey
        rgb = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, photo.rgb.shape)
        rgb = rgb.astype(dtype)
        rgb[0, 0] = np.iinfo(dtype).max
        expected = np.rint(rgb.astype(float).mean(-1, keepdims=True))
        np.testing.assert_array_equal(by_opencv(photos.encode(photo, rgb)), expected)


def test_transparent_colour_of_a_png_becomes_alpha():
    image = Image.fromarray(picture(3))
    key = image.getpixel((5, 7))
    data = saved(image, "PNG", transparency=key)
    with Image.open(io.BytesIO(data)) as file:
        expected = np.asarray(file.convert("RGBA"))
    assert (expected[..., 3] == 0).any()
    photo = photos.read(data)
    np.testing.assert_array_equal(of_photo(photo), expected)
    np.testing.assert_array_equal(by_opencv(photos.encode(photo, photo.rgb)), expected)


def test_grey_png_of_few_bits_becomes_8():
    for bits, step in ((2, 85), (4, 17)):
        grey = Image.fromarray(picture(1)[..., 0] // step * step)
        data = saved(grey, "PNG", bits=bits)
        assert data[24] == bits
        photo = photos.read(data)
        np.testing.assert_array_equal(photo.rgb[..., 0], np.asarray(grey))
        np.testing.assert_array_equal(by_pillow(photos.encode(photo, photo.rgb))[..., 0], grey)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_what_pillow_displays(orientation):
    array = picture(3)
    data = saved(Image.fromarray(array), "PNG", exif=exif_block(orientation))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    photo = photos.read(data)
    assert photo.orientation == orientation
    np.testing.assert_array_equal(photo.rgb, array)
    np.testing.assert_array_equal(photo.upright(photo.rgb), expected)


def test_a_strange_orientation_is_none():
    for orientation in (0, 9, 300):
        data = saved(Image.fromarray(picture(3)), "PNG", exif=exif_block(orientation))
        assert photos.read(data).orientation == 1


def animation(kind, **options):
    frames = [Image.fromarray(picture(3, seed=i)) for i in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def tiff_with(**options):
    return with_tifffile(picture(1, options.pop("dtype", np.uint8)), **options)


def changed_floats(value):
    array = picture(1, np.float32)
    array[3, 4] = value
    return with_tifffile(array)


def png_header(width, height):
    data = bytearray(png_by_hand(picture(3)))
    data[8:33] = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return bytes(data)


def jpeg_header(width, height):
    data = bytearray(saved(Image.fromarray(picture(3)), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_header(width, height, tile_width=(322, 16)):
    """Patches the size, and that of the tiles, of a little-endian file."""
    data = bytearray(with_tifffile(picture(3), tile=(16, 16)))
    (start,) = struct.unpack_from("<I", data, 4)
    for tag, value in ((256, width), (257, height), tile_width):
        at = data.index(struct.pack("<H", tag), start + 2)
        struct.pack_into("<HII", data, at + 2, 4, 1, value)
    return bytes(data)


def rgb_image(mode="RGB"):
    return Image.fromarray(picture(3)).convert(mode)


BAD = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"This is no picture.\n" * 20, "is no image"),
    "html": (lambda: b"<!DOCTYPE html><title>404</title>", "is no image"),
    "cut-jpeg": (lambda: saved(rgb_image(), "JPEG")[:-300], "truncated"),
    "cut-progressive": (lambda: saved(rgb_image(), "JPEG", progressive=True)[:-200], "truncated"),
    "zeroed-jpeg": (lambda: saved(rgb_image(), "JPEG")[:-300] + bytes(30000), "truncated"),
    "cut-png": (lambda: png_by_hand(picture(3))[:-300], "truncated"),
    "cut-png16": (lambda: png_by_hand(picture(3, np.uint16))[:-300], "truncated"),
    "no-iend": (lambda: png_by_hand(picture(3))[:-12], "truncated"),
    "cut-webp": (lambda: with_pillow("WEBP", picture(3))[:-700], "damaged"),
    "cut-avif": (lambda: with_pillow("AVIF", picture(3))[:-700], "damaged"),
    "cut-heif": (lambda: with_pillow("HEIF", picture(3))[:-700], "damaged"),
    "cut-bmp": (lambda: saved(rgb_image(), "BMP")[:-300], "truncated"),
    "cut-tiff": (lambda: with_tifffile(picture(3, np.uint16))[:-300], "damaged"),
    "cut-tiff8": (lambda: with_tifffile(picture(3), compression="lzw")[:-300], "damaged"),
    "cut-tags": (lambda: with_pillow("TIFF", picture(3))[:60], "truncated"),
    "animated-gif": (lambda: animation("GIF"), "has 3 frames"),
    "animated-png": (lambda: animation("PNG"), "has 3 frames"),
    "animated-webp": (lambda: animation("WEBP"), "has 3 frames"),
    "animated-avif": (lambda: animation("AVIF"), "has 3 frames"),
    "two-heif": (lambda: animation("HEIF"), "has 3 frames"),
    "pages": (lambda: animation("TIFF"), "has 3 frames"),
    "raw": (lambda: tiff_with(subfiletype=1), "raw file of a camera"),
    "dng": (lambda: tiff_with(extratags=[(50706, 1, 4, b"\1\4\0\0", True)]), "raw file"),
    "bomb-tile": (lambda: tiff_header(WIDTH, HEIGHT, (322, 2**30)), "tiles of 1073741824 x 16"),
    "int32-tiff": (lambda: saved(rgb_image("I"), "TIFF"), "signed channels of 32 bits"),
    "nan": (lambda: changed_floats(np.nan), "1 NaN pixel, in row 3, column 4"),
    "infinite": (lambda: changed_floats(np.inf), "1 infinite pixel, in row 3, column 4"),
    "negative": (lambda: changed_floats(-0.25), "-0.25 to 1"),
    "bright": (lambda: changed_floats(2.5), "0 to 2.5"),
    "bomb-png": (lambda: png_header(20000, 20000), "at most 178,956,970"),
    "bomb-jpeg": (lambda: jpeg_header(65000, 65000), "178 million"),
    "bomb-tiff": (lambda: tiff_header(20000, 20000), "at most 178,956,970"),
    "no-pixels-png": (lambda: png_header(0, 9), "0 x 9 pixels"),
    "no-pixels-tiff": (lambda: tiff_header(0, 9), "0 x 9 pixels"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_give_one_line_with_the_name(case, tmp_path, capfd, caplog):
    make, reason = BAD[case]
    path = tmp_path / "holiday.jpg"
    path.write_bytes(make())
    with pytest.raises(InputError) as caught:
        photos.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 250
    with pytest.raises(InputError, match=r"^standard input: "):
        photos.read(path.read_bytes())
    with pytest.raises(InputError, match=r"^mine: "):
        photos.read(path.read_bytes(), name="mine")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jpg: does not exist$"):
        photos.read(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match=r"is a folder; give a file$"):
        photos.read(str(tmp_path))
    with pytest.raises(InputError, match=r"^/dev/zero: is not a file$"):
        photos.read("/dev/zero")
    with pytest.raises(InputError, match=r"cannot be read"):
        photos.read("a\0b.jpg")
    (tmp_path / "two\nlines.jpg").write_bytes(b"no")
    with pytest.raises(InputError) as caught:
        photos.read(tmp_path / "two\nlines.jpg")
    assert r"two\nlines.jpg: is no image" in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"x")

    def forbidden(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", forbidden)
    with pytest.raises(InputError, match=r"a\.jpg: cannot be read \(Permission denied\)$"):
        photos.read(tmp_path / "a.jpg")


def test_pillows_limit_is_kept_without_its_warning(monkeypatch):
    images = {kind: with_pillow(kind, picture(3)) for kind in ("JPEG", "PNG", "TIFF", "WEBP")}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
    for data in images.values():
        assert photos.read(data).rgb.shape == (HEIGHT, WIDTH, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 2 - 1)
    for data in images.values():
        with pytest.raises(InputError, match="crop or shrink it"):
            photos.read(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    for data in images.values():
        assert photos.read(data).rgb.shape == (HEIGHT, WIDTH, 3)


def test_warnings_and_logs_of_decoders_are_kept_back(caplog):
    exif = bytearray(exif_block())
    exif[14 : 14 + 2] = b"\xff\xff"  # far more tags than there are
    data = saved(Image.fromarray(picture(3)), "JPEG", exif=bytes(exif))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data)).getexif()
    assert found
    level = logging.getLogger("PIL").level
    photo = photos.read(data)
    photos.encode(photo, photo.rgb)
    assert bytes(exif) in photos.encode(photo, photo.rgb)
    assert not caplog.records
    assert logging.getLogger("PIL").level == level


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photo_is_read_though_its_exif_block_is_broken(kind):
    broken = b"Exif\0\0this is no directory"
    data = saved(Image.fromarray(picture(3)), kind, exif=broken)
    photo = photos.read(data)
    assert photo.orientation == 1
    encoded = photos.encode(photo, photo.rgb)
    if kind != "WEBP":
        assert broken[6:] in encoded
    for suffix in photos.SUFFIXES:
        again = photos.read(photos.encode(photo, photo.rgb, suffix))
        assert again.rgb.shape == photo.rgb.shape


def test_a_resolution_that_no_device_has_is_left_out():
    wild = struct.pack(">IIB", 2**32 - 1, 2**32 - 1, 1)
    photo = photos.read(png_by_hand(picture(3), png_chunk(b"pHYs", wild)))
    for suffix in photos.SUFFIXES:
        again = photos.read(photos.encode(photo, photo.rgb, suffix))
        assert again.rgb.shape == photo.rgb.shape
    data = with_tifffile(picture(3))
    for tag in (282, 283):  # bytes in place of fractions, on which Pillow fails in JPEG files
        entry = struct.pack("<HHI", tag, 5, 1)
        assert data.count(entry) == 1
        data = data.replace(entry, struct.pack("<HHI", tag, 7, 1))
    photo = photos.read(data)
    for suffix in photos.SUFFIXES:
        again = photos.read(photos.encode(photo, photo.rgb, suffix))
        assert again.upright(again.rgb).shape == photo.upright(photo.rgb).shape


def test_formats_that_cannot_hold_it():
    clear = photos.read(with_pillow("PNG", picture(4)), name="clear.png")
    for suffix in (".jpg", ".bmp"):
        with pytest.raises(InputError, match=rf"^clear\.png: .*transparency, which \{suffix} "):
            photos.encode(clear, clear.rgb, suffix)
    with pytest.raises(InputError, match=r"\.gif.*choose from \.jpg"):
        photos.encode(clear, clear.rgb, ".gif")
    premultiplied = photos.read(with_tifffile(picture(4), extrasamples=["assocalpha"]))
    again = photos.encode(premultiplied, premultiplied.rgb)
    with tifffile.TiffFile(io.BytesIO(again)) as file:
        assert file.pages[0].extrasamples == (tifffile.EXTRASAMPLE.ASSOCALPHA,)
    with pytest.raises(InputError, match="premultiplied"):
        photos.encode(premultiplied, premultiplied.rgb, ".png")
    wide = photos.read(png_by_hand(np.zeros((1, 16400, 3), np.uint8)), name="wide.png")
    with pytest.raises(InputError, match=r"^wide\.png: cannot be written as WEBP"):
        photos.encode(wide, wide.rgb, ".webp")


def test_wrong_pixels_are_a_bug_not_an_input_error():
    photo = photos.read(with_pillow("PNG", picture(3)))
    for wrong in (photo.rgb[1:], photo.rgb.astype(np.uint16)):
        with pytest.raises(ValueError, match=r"photo\.rgb") as caught:
            photos.encode(photo, wrong)
        assert not isinstance(caught.value, InputError)


def test_heic_without_its_plugin():
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "import importlib.util; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'pillow_heif' else find(n, *a)\n"
        "from jaxdeblur.media import photo\n"
        "print(photo.SUFFIXES)\n"
        "try: photo.read(b'\\0\\0\\0\\x1cftypheic' + bytes(99), name='a.heic')\n"
        "except photo.InputError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ".heic" not in run.stdout.splitlines()[0]
    assert run.stdout.splitlines()[1].startswith("a.heic: ")
    assert "pip install pillow-heif" in run.stdout
    assert ".heic" in photos.SUFFIXES


def test_importing_loads_nothing_heavy():
    code = (
        "import sys; from jaxdeblur.media import photo; print([m for m in ('jax', 'tifffile', "
        "'imagecodecs', 'cv2', 'av', 'pillow_heif') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_write_is_whole_and_replaces_nothing_unasked(tmp_path):
    path = tmp_path / "out.png"
    photos.write(path, b"first")
    assert path.read_bytes() == b"first"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    with pytest.raises(InputError, match=r"out\.png: exists; give --overwrite or another name$"):
        photos.write(path, b"second")
    assert path.read_bytes() == b"first"
    photos.write(str(path), b"second", overwrite=True)
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["out.png"]


def test_write_names_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"none.out\.png: its folder does not exist"):
        photos.write(tmp_path / "none" / "out.png", b"")
    with pytest.raises(InputError, match="is not a file"):
        photos.write(tmp_path, b"", overwrite=True)
    with pytest.raises(InputError, match="/dev/null: is not a file"):
        photos.write("/dev/null", b"", overwrite=True)
    with pytest.raises(InputError, match="cannot be written"):
        photos.write(tmp_path / ("x" * 300), b"")
    with pytest.raises(InputError, match="cannot be written"):
        photos.write("a\0b.png", b"")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match="is a link that leads nowhere"):
        photos.write(tmp_path / "link.png", b"")
    assert os.listdir(tmp_path) == ["link.png"]


def test_write_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "real.png"
    target.write_bytes(b"old")
    (tmp_path / "link.png").symlink_to(target)
    photos.write(tmp_path / "link.png", b"new", overwrite=True)
    assert target.read_bytes() == b"new"
    assert (tmp_path / "link.png").is_symlink()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("function", ["fsync", "link", "replace"])
@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()],
    ids=["full", "interrupted", "memory"],
)
def test_a_failure_in_the_middle_leaves_nothing(error, function, overwrite, tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    if overwrite:
        path.write_bytes(b"old")

    def failing(*_args):
        raise error

    monkeypatch.setattr(os, function, failing)
    if function == "link":  # where that fails, the file is renamed
        monkeypatch.setattr(os, "rename", failing)
    fails = function == "fsync" or (function == "replace") == overwrite
    if not fails:
        photos.write(path, b"new", overwrite=overwrite)
        assert path.read_bytes() == b"new"
    else:
        kind = InputError if isinstance(error, OSError) else type(error)
        with pytest.raises(kind) as caught:
            photos.write(path, b"new", overwrite=overwrite)
        if kind is InputError:
            assert str(caught.value) == f"{path}: cannot be written (No space left on device)"
        assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"] * overwrite


def test_a_folder_that_may_not_be_written(tmp_path, somebody_else):
    message = r"out\.png: cannot be written \(Permission denied\)"
    with somebody_else(), pytest.raises(InputError, match=message):
        photos.write(tmp_path / "out.png", b"")
    assert not list(tmp_path.iterdir())


def test_write_without_hard_links(tmp_path, monkeypatch):
    def unsupported(*_args):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", unsupported)
    photos.write(tmp_path / "out.png", b"first")
    with pytest.raises(InputError, match="exists"):
        photos.write(tmp_path / "out.png", b"second")
    assert os.listdir(tmp_path) == ["out.png"]
    assert (tmp_path / "out.png").read_bytes() == b"first"


def test_a_file_that_appears_meanwhile_stays(tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    fsync = os.fsync

    def appearing(descriptor):
        fsync(descriptor)
        path.write_bytes(b"theirs")

    monkeypatch.setattr(os, "fsync", appearing)
    with pytest.raises(InputError, match="exists"):
        photos.write(path, b"ours")
    assert os.listdir(tmp_path) == ["out.png"]
    assert path.read_bytes() == b"theirs"


def seeds(kind):
    """Small valid files of a format."""
    small = {c: picture(c)[:16, :20] for c in (1, 2, 3, 4)}
    deep = {c: picture(c, np.uint16)[:16, :20] for c in (1, 3, 4)}
    if kind == "PNG":
        files = [with_pillow(kind, small[c]) for c in small]
        return files + [png_by_hand(a, metadata_chunks()) for a in deep.values()]
    if kind == "TIFF":
        return [
            with_pillow(kind, small[3]),
            saved(Image.fromarray(small[3]), kind, compression="jpeg"),
            with_tifffile(deep[3], compression="lzw", predictor=True),
            with_tifffile(deep[4], compression="zlib", tile=(16, 16)),
            with_tifffile(deep[1], bigtiff=True, byteorder=">"),
            with_tifffile(deep[3], planarconfig="separate", rowsperstrip=5),
            with_tifffile(picture(1, np.float32)[:16, :20], compression="zlib", predictor=True),
        ]
    if kind == "JPEG":
        return [
            with_pillow(kind, small[1]),
            with_pillow(kind, small[3]),
            with_pillow(kind, small[3], progressive=True, quality=99),
        ]
    if kind == "BMP":
        return [with_pillow(kind, small[1]), with_pillow(kind, small[3])]
    if kind == "GIF":
        return [saved(Image.fromarray(small[3]), kind), animation(kind)]
    files = [with_pillow(kind, small[3]), with_pillow(kind, small[4])]
    return files + ([with_pillow(kind, small[3], lossless=True)] if kind == "WEBP" else [])


def with_valid_sums(data):
    """Mends the check sums of a PNG file, so that damage reaches the decoder."""
    data, start = bytearray(data), 8
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4])
        if end + 4 <= len(data):
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))
        start = end + 4
    return bytes(data)


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        # Headers are hit as often as all the rest.
        end = len(data) if rng.random() < 0.5 else min(len(data), 300)
        at = int(rng.integers(0, end)) if end else 0
        choice = rng.integers(0, 7)
        if choice == 0:
            for place in rng.integers(0, max(end, 1), rng.integers(1, 9)):
                if place < len(data):
                    data[place] ^= 1 << int(rng.integers(0, 8))
        elif choice == 1:
            del data[at:]
        elif choice == 2:
            piece = data[at : at + int(rng.integers(1, 200))]
            data[at:at] = piece
        elif choice == 3:
            size = min(int(rng.integers(1, 64)), len(data) - at)
            data[at : at + size] = bytes(size)
        elif choice == 4:
            data[at : at + 4] = rng.bytes(4)[: len(data) - at]
        elif choice == 5:
            order = "<" if rng.random() < 0.5 else ">"
            value = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, 300, 70000]))
            data[at : at + 4] = struct.pack(order + "I", value)[: max(0, len(data) - at)]
        else:
            del data[at : at + int(rng.integers(1, 40))]
    return bytes(data)


FUZZED = ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF", "BMP", "GIF"]


def fuzz(kind, count, first_seed):
    """Returns how many files could be read and how many were refused."""
    files = seeds(kind)
    counts = [0, 0]
    for seed in range(first_seed, first_seed + count):
        rng = np.random.default_rng(seed)
        data = mutated(files[seed % len(files)], rng)
        if kind == "PNG" and rng.random() < 0.8:
            data = with_valid_sums(data)
        with warnings.catch_warnings(record=True) as leaked:
            warnings.simplefilter("always")
            message = ""
            try:
                photo = photos.read(data, name="fuzzed")
                encoded = photos.encode(photo, photo.rgb)
            except InputError as error:
                message = str(error)
            else:
                again = photos.read(encoded)
                assert again.rgb.dtype == photo.rgb.dtype
                assert again.rgb.shape == photo.rgb.shape
        counts[bool(message)] += 1
        assert "\n" not in message
        assert not message or message.startswith("fuzzed: ")
        assert not leaked, (seed, [str(w.message) for w in leaked])
    return counts


@pytest.mark.parametrize("kind", FUZZED)
def test_damaged_files_are_read_or_refused(kind, capfd, caplog):
    read, refused = fuzz(kind, 40, 0)
    assert refused
    assert read or kind == "GIF"
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FUZZED)
def test_many_damaged_files_are_read_or_refused(kind, caplog):
    assert sum(fuzz(kind, 3000, 1000)) == 3000
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_photo_of_48_megapixels(tmp_path):
    """Reading and writing takes at most three copies beside the arrays held and the file."""
    path = tmp_path / "large.jpg"
    y, x = np.mgrid[:6000, :8000].astype(np.uint16)
    array = np.stack([x >> 5, y >> 5, (x + y) >> 6], -1).astype(np.uint8)
    Image.fromarray(array).save(path, quality=90)
    code = (
        "import pathlib, sys, warnings; warnings.simplefilter('error')\n"
        "from jaxdeblur.media import photo as photos\n"
        "def used():\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        "    return int(status.split('VmHWM:')[1].split()[0]) * 1024\n"
        "start = used(); photo = photos.read(sys.argv[1]); print(used() - start)\n"
        "data = photos.encode(photo, photo.rgb); print(used() - start)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    copy = 6000 * 8000 * 3
    for used in map(int, run.stdout.split()):
        assert copy < used < 3 * copy + 2 * path.stat().st_size
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("mode", "kind", "remark"),
    [
        ("P", "PNG", "has a palette; its result is RGB"),
        ("P", "BMP", "has a palette; its result is RGB"),
        ("P", "GIF", "has a palette; its result is RGB"),
        ("1", "PNG", "has 1 bit a pixel; its result is grey of 8 bits"),
        ("1", "BMP", "has 1 bit a pixel; its result is grey of 8 bits"),
        ("CMYK", "JPEG", "is CMYK; its result is sRGB"),
    ],
)
def test_what_holds_no_restored_picture_becomes_the_nearest_that_does(mode, kind, remark, caplog):
    data = saved(rgb_image(mode), kind)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    with caplog.at_level(logging.INFO, "jaxdeblur"):
        photo = photos.read(data)
    assert [record.message for record in caplog.records] == [remark]
    np.testing.assert_array_equal(photo.rgb, expected)
    assert photo.grey == (mode == "1")
    encoded = photos.encode(photo, photo.rgb)
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.format == ("PNG" if kind == "GIF" else kind)
        assert image.mode == ("L" if mode == "1" else "RGB")
        error = np.abs(np.asarray(image.convert("RGB"), int) - expected)
    assert error.max() <= (12 if kind == "JPEG" else 0)


def test_inks_become_srgb_by_their_profile():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    data = saved(rgb_image("CMYK"), "JPEG", icc_profile=srgb.tobytes())  # of three channels
    photo = photos.read(data)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(photo.rgb, np.asarray(image.convert("RGB")))
    with Image.open(io.BytesIO(photos.encode(photo, photo.rgb))) as image:
        assert "icc_profile" not in image.info


def test_a_palette_with_transparency_becomes_rgb_with_alpha():
    image = rgb_image("P")
    data = saved(image, "PNG", transparency=bytes(range(256)))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGBA"))
    photo = photos.read(data)
    np.testing.assert_array_equal(photo.rgb, expected[..., :3])
    np.testing.assert_array_equal(photo.alpha, expected[..., 3])


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_jpeg_without_its_end_marker_is_whole_if_its_picture_is(options):
    data = saved(rgb_image(), "JPEG", **options)
    assert data.endswith(b"\xff\xd9")
    expected = photos.read(data).rgb
    for end in (b"", bytes(3000)):
        np.testing.assert_array_equal(photos.read(data[:-2] + end).rgb, expected)
        for missing in (3, 5, 100):
            with pytest.raises(InputError, match="truncated"):
                photos.read(data[: -2 - missing] + end)


def test_a_jpeg_of_a_camera_without_its_end_marker(shared_data):
    photo = photos.read(shared_data / "cases" / "no_eoi.jpg")
    assert cv2.imread(str(shared_data / "cases" / "no_eoi.jpg")).shape == photo.rgb.shape


def test_an_opaque_png_named_as_jpeg_is_written_as_one(shared_data):
    path = shared_data / "cases" / "png_opaque_alpha_named.jpg"
    photo = photos.read(path)
    assert (photo.format, photo.opaque) == ("PNG", True)
    with Image.open(io.BytesIO(photos.encode(photo, photo.rgb, ".jpg"))) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        error = np.asarray(image, float) - photo.rgb
    assert np.abs(error).mean() < 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_one_pixel_that_is_not_opaque_needs_a_format_with_alpha(dtype):
    pixels = picture(4, dtype)
    pixels[..., 3] = np.iinfo(dtype).max
    assert photos.read(png_by_hand(pixels)).opaque
    pixels[3, 4, 3] -= 1
    photo = photos.read(png_by_hand(pixels))
    assert not photo.opaque
    with pytest.raises(InputError, match=r"has transparency, which \.jpg cannot hold"):
        photos.output_format(photo, ".jpg")

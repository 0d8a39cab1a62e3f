"""Colours told by code points, gamma or primaries, in results: profiles are read by hand."""

import io
import logging
import struct
import zlib

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from jaxdeblur.media import photo as photos
from jaxdeblur.media.formats import heif
from jaxdeblur.media.lost import LOST
from jaxdeblur.media.metadata import profiles

pillow_heif.register_heif_opener()

# Columns of the matrices from linear RGB to XYZ under D50, as published (Apple's Display P3 and
# Adobe's RGB profiles, Lindbloom's table, Elle Stone's profile of BT.2020).
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
BT2020 = ((0.6735, 0.2790, -0.0019), (0.1657, 0.6753, 0.0300), (0.1251, 0.0456, 0.7969))
ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
COLUMNS = {1: SRGB, 9: BT2020, 12: P3}
ADOBE_POINTS = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
P3_POINTS = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)

HEIGHT, WIDTH = 32, 48
TARGETS = [".jpg", ".png", ".webp", ".tif", ".avif", ".heic"]


def srgb_curve(v):
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def bt709_curve(v):
    return np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))


CURVES = {1: bt709_curve, 4: lambda v: v**2.2, 8: lambda v: v, 13: srgb_curve, 14: bt709_curve}


def tags(icc):
    """The tags of a profile, whose header and table must be sound."""
    assert struct.unpack_from(">I", icc)[0] == len(icc)
    assert icc[36:40] == b"acsp"
    found = {}
    for i in range(struct.unpack_from(">I", icc, 128)[0]):
        name, start, size = struct.unpack_from(">4sII", icc, 132 + 12 * i)
        assert start % 4 == 0
        assert start + size <= len(icc)
        found[name] = icc[start : start + size]
    return found


def matrix(icc):
    found = tags(icc)
    return [
        np.array(struct.unpack(">3i", found[name][8:20])) / 65536
        for name in (b"rXYZ", b"gXYZ", b"bXYZ")
    ]


def curve(icc, values, name=b"rTRC"):
    """Linear light by a parametric curve of type 0 or 3, by the specification."""
    block = tags(icc)[name]
    assert block[:4] == b"para"
    kind = struct.unpack_from(">H", block, 8)[0]
    p = np.array(struct.unpack_from(f">{ {0: 1, 3: 5}[kind] }i", block, 12)) / 65536
    if kind == 0:
        return values ** p[0]
    return np.where(values >= p[4], (p[1] * values + p[2]).clip(0) ** p[0], p[3] * values)


def picture(channels=3):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    array = np.stack([200 + x, 20 + y, 40 + 0 * x][:channels], -1).astype(np.uint8)
    return array[..., 0] if channels == 1 else array


def png(array, **chunks):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    data = buffer.getvalue()
    written = b""
    for kind, body in chunks.items():
        body = kind.encode() + body
        written += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + written + data[33:]


def source(kind, primaries, transfer, channels=3):
    array = picture(channels)
    if kind == "png":
        return png(array, cICP=bytes((primaries, transfer, 0, 1)))
    if kind == "avif":
        codes = {"primaries": primaries, "transfer": transfer, "matrix": 6}
        return imagecodecs.avif_encode(array, level=100, pixelformat="444", **codes)
    codes = {"color_primaries": primaries, "transfer_characteristics": transfer}
    codes |= {"matrix_coefficients": 6, "full_range_flag": 1}
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "HEIF", nclx_profile=codes, quality=100, chroma=444)
    return buffer.getvalue()


def converted(data, suffix, caplog):
    """The result, its ICC profile, and whether it was told that colours will look wrong."""
    with caplog.at_level(logging.INFO, "jaxdeblur"):
        photo = photos.read(data)
        encoded = photos.encode(photo, photo.rgb, suffix)
    with Image.open(io.BytesIO(encoded)) as image:
        if suffix != ".tif":  # which Pillow turns
            image.load()
        assert np.abs(np.asarray(image.convert("RGB"), float) - photo.rgb).mean() < 3
        icc = image.info.get("icc_profile") or b""
    return encoded, icc, LOST["colours"] in [record.message for record in caplog.records]


def chunk(data, kind):
    at = data.find(kind)
    return data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at])] if at >= 0 else None


def nclx_by_hand(data):
    at = data.index(b"colrnclx") + 8
    return struct.unpack_from(">HH", data, at)


@pytest.mark.parametrize("codes", [(12, 13), (9, 1), (9, 14), (1, 8), (12, 4), (1, 1)], ids=str)
@pytest.mark.parametrize("kind", ["png", "avif", "heic"])
@pytest.mark.parametrize("suffix", TARGETS)
def test_code_points_become_what_the_format_can_hold(suffix, kind, codes, caplog):
    encoded, icc, wrong = converted(source(kind, *codes), suffix, caplog)
    assert not wrong
    if suffix == ".png":
        assert chunk(encoded, b"cICP") == bytes((*codes, 0, 1))
    if suffix in (".avif", ".heic"):
        assert nclx_by_hand(encoded) == codes
    if suffix != ".heic" and not (suffix == ".png" and kind == "png"):
        np.testing.assert_allclose(matrix(icc), COLUMNS[codes[0]], atol=1e-3)
        values = np.linspace(0, 1, 200)
        np.testing.assert_allclose(curve(icc, values), CURVES[codes[1]](values), atol=1e-3)


@pytest.mark.parametrize("suffix", TARGETS)
@pytest.mark.parametrize("kind", ["png", "avif", "heic"])
def test_srgb_needs_nothing(suffix, kind, caplog):
    encoded, icc, wrong = converted(source(kind, 1, 13), suffix, caplog)
    assert (icc, wrong) == (b"", False)
    if suffix == ".png" and kind != "png":
        assert b"cICP" not in encoded


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("kind", ["png", "avif", "heic"])
@pytest.mark.parametrize("suffix", [*TARGETS, ".bmp"])
def test_hdr_is_told_by_code_points_or_its_loss_is(suffix, kind, transfer, caplog):
    encoded, icc, wrong = converted(source(kind, 9, transfer), suffix, caplog)
    assert icc == b""
    assert wrong == (suffix in (".jpg", ".webp", ".tif", ".bmp"))
    if suffix == ".png":
        assert chunk(encoded, b"cICP") == bytes((9, transfer, 0, 1))
    if suffix in (".avif", ".heic"):
        assert nclx_by_hand(encoded) == (9, transfer)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif", ".avif", ".heic"])
@pytest.mark.parametrize(
    ("gamma", "points", "columns"),
    [
        (1 / 2.2, ADOBE_POINTS, ADOBE),
        (1.0, None, SRGB),
        (0.5, None, SRGB),
        (None, P3_POINTS, P3),
    ],
    ids=["adobe", "linear", "gamma-2", "primaries"],
)
def test_gamma_and_primaries_of_png_become_a_profile(gamma, points, columns, suffix, caplog):
    chunks = {} if gamma is None else {"gAMA": struct.pack(">I", round(gamma * 1e5))}
    if points:
        chunks["cHRM"] = struct.pack(">8I", *points)
    _, icc, wrong = converted(png(picture(), **chunks), suffix, caplog)
    assert not wrong
    np.testing.assert_allclose(matrix(icc), columns, atol=1e-3)
    values = np.linspace(0, 1, 200)
    expected = srgb_curve(values) if gamma is None else values ** (1 / gamma)
    np.testing.assert_allclose(curve(icc, values), expected, atol=1e-3)


def test_what_needs_no_profile(caplog):
    gamma, usual = struct.pack(">I", 45455), (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    primaries = struct.pack(">8I", *usual)
    wild = struct.pack(">8I", *[0] * 8)
    for chunks in (
        {"gAMA": gamma},
        {"gAMA": gamma, "cHRM": primaries},
        {"cHRM": primaries},
        {"sRGB": b"\0", "gAMA": struct.pack(">I", 10000)},
        {"cHRM": wild},
        {"gAMA": bytes(4)},
        {"cHRM": struct.pack(">8I", *[2**31 - 1] * 8)},
    ):
        assert converted(png(picture(), **chunks), ".jpg", caplog)[1] == b"", chunks


def test_grey_pictures_have_grey_profiles(caplog):
    for data in (
        png(picture(1), gAMA=struct.pack(">I", 100000)),
        png(picture(1), cICP=bytes((1, 8, 0, 1))),
        source("avif", 1, 8, channels=1),
    ):
        for suffix in (".jpg", ".tif"):
            _, icc, _ = converted(data, suffix, caplog)
            assert icc[16:20] == b"GRAY"
            values = np.linspace(0, 1, 50)
            np.testing.assert_allclose(curve(icc, values, b"kTRC"), values, atol=1e-4)
    ImageCms.ImageCmsProfile(io.BytesIO(icc))


def test_a_profile_goes_before_code_points(caplog):
    adobe = profiles.profile(np.divide(ADOBE_POINTS, 1e5), (2.2,), grey=False)
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "AVIF", icc_profile=adobe)
    data = heif.with_nclx(buffer.getvalue(), 9, 16)
    for suffix in (".jpg", ".png", ".avif", ".heic"):
        encoded, icc, wrong = converted(data, suffix, caplog)
        assert icc == adobe
        assert not wrong
        assert suffix != ".png" or b"cICP" not in encoded


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_the_same_colour_is_displayed(suffix, caplog):
    """Little CMS, by the result's profile, shows P3's red as P3's red."""
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = 255
    codes = {"primaries": 12, "transfer": 13, "matrix": 6}
    data = imagecodecs.avif_encode(red, level=100, pixelformat="444", **codes)
    photo = photos.read(data)
    with Image.open(io.BytesIO(photos.encode(photo, red, suffix))) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        lab = ImageCms.profileToProfile(
            image.convert("RGB"), profile, ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    light, a, b = np.asarray(lab.resize((1, 1)))[0, 0].astype(np.int8).astype(int)
    # CIELAB of P3's red under D50, from the matrix above by hand.
    x, y, z = (value / white for value, white in zip(P3[0], (0.9642, 1, 0.8249), strict=True))
    f = [v ** (1 / 3) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z)]
    expected = (116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2]))
    assert abs((light % 256) * 100 / 255 - expected[0]) < 1
    assert abs(a - expected[1]) < 3
    assert abs(b - expected[2]) < 3


def test_bmp_tells_that_it_loses_a_profile(caplog):
    for points, wrong in ((ADOBE_POINTS, True), (None, False)):
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        if points:
            icc = profiles.profile(np.divide(points, 1e5), (2.2,), grey=False)
        buffer = io.BytesIO()
        Image.fromarray(picture()).save(buffer, "PNG", icc_profile=icc)
        caplog.clear()
        assert converted(buffer.getvalue(), ".bmp", caplog)[2] == wrong

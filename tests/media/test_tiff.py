"""TIFF files of odd kinds against tifffile, Pillow, libtiff and files that are made by hand."""

import io
import json
import logging
import resource
import struct
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, TiffImagePlugin

from jaxdeblur.errors import InputError
from jaxdeblur.media import photo as photos

HEIGHT, WIDTH = 40, 52
Y, X = np.mgrid[:HEIGHT, :WIDTH]
GREY = ((X + Y) * 2).astype(np.uint8)
RGB = np.stack([GREY, GREY // 2 + 30, 255 - GREY], axis=-1)
DEEP = (GREY.astype(np.uint16) * 257) ^ 0x55
REAL = (GREY / 255).astype(np.float32)


def by_tifffile(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def by_pillow(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", **options)
    return buffer.getvalue()


def of_pages(*pages):
    """A file of directories; each is an array and the options of its directory."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for array, options in pages:
            colours = "rgb" if array.shape[-1] == 3 else "minisblack"
            writer.write(array, **{"photometric": colours, "metadata": None, **options})
    return buffer.getvalue()


def by_hand(pixels, tags, order="<"):
    """A classic file of one strip; `tags` has type and values by tag, beside the usual ones."""
    usual = {256: (3, [WIDTH]), 257: (3, [HEIGHT]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1])}
    usual |= {273: (4, [8]), 277: (3, [1]), 278: (3, [HEIGHT]), 279: (4, [len(pixels)])}
    tags = usual | tags
    start = 8 + len(pixels) + len(pixels) % 2
    table, values = [], b""
    for tag, (kind, numbers) in sorted(tags.items()):
        letter = {1: "B", 2: "B", 3: "H", 4: "I"}[kind]
        value = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        field = value.ljust(4, b"\0")
        if len(value) > 4:
            place = start + 2 + 12 * len(tags) + 4 + len(values)
            field, values = struct.pack(order + "I", place), values + value + bytes(len(value) % 2)
        table.append(struct.pack(order + "HHI", tag, kind, len(numbers)) + field)
    mark = b"II" if order == "<" else b"MM"
    directory = struct.pack(order + "H", len(tags)) + b"".join(table)
    header = mark + struct.pack(order + "HI", 42, start)
    return header + pixels + bytes(len(pixels) % 2) + directory + bytes(4) + values


def packed(values, bits):
    """Rows of integers of `bits`, each row of whole bytes."""
    ones = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(ones.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "jaxdeblur.media.lost")
    return lambda: [record.message for record in caplog.records]


def restored(data):
    """The photo of a file, and what tifffile reads of the file that is made of it."""
    photo = photos.read(data, name="a.tif")
    encoded = photos.encode(photo, photo.rgb)
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        assert len(file.pages) == 1
        array = file.pages.first.asarray()
    channels = photo.rgb[..., 0] if photo.grey else photo.rgb
    if photo.alpha is not None:
        channels = np.concatenate([np.atleast_3d(channels), photo.alpha[..., None]], axis=-1)
    np.testing.assert_array_equal(array, channels)
    return photo, encoded


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="P" DimensionOrder="XYCZT" Type="uint8" SizeX="52" SizeY="40" '
    'SizeC="1" SizeZ="2" SizeT="4"><Channel SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
)
STACK = np.stack([GREY] * 5)
STACKS = {
    "imagej": (5, lambda: by_tifffile(STACK, imagej=True)),
    "imagej-colour": (5, lambda: by_tifffile(np.stack([RGB] * 5), imagej=True)),
    "imagej-axes": (12, lambda: by_tifffile(np.zeros((2, 3, 2, 8, 8), np.uint8), imagej=True)),
    "imagej-cut": (5, lambda: by_tifffile(STACK, imagej=True)[:4000]),
    "imagej-channels": (3, lambda: by_tifffile(np.zeros((3, 8, 8), np.uint16), imagej=True)),
    "imagej-described": (
        4,
        lambda: by_tifffile(GREY, metadata=None, description="ImageJ=1.53\nslices=4\n"),
    ),
    "shape": (5, lambda: by_tifffile(STACK, photometric="minisblack")),
    "shape-old": (5, lambda: by_tifffile(GREY, metadata=None, description="shape=(5, 40, 52)")),
    "ome": (5, lambda: by_tifffile(STACK, ome=True, photometric="minisblack")),
    "ome-described": (8, lambda: by_tifffile(GREY, metadata=None, description=OME)),
    "pages": (3, lambda: of_pages(*[(RGB, {})] * 3)),
    "volume": (
        16,
        lambda: by_tifffile(
            np.stack([GREY] * 16), volumetric=True, tile=(16, 16, 16), photometric="minisblack"
        ),
    ),
    "metamorph": (6, lambda: by_hand(GREY.tobytes(), {33629: (4, [0] * 6), 33628: (4, [0] * 12)})),
}


@pytest.mark.parametrize("case", STACKS)
def test_a_stack_is_refused_with_the_number_of_its_pictures(case, told):
    count, make = STACKS[case]
    with pytest.raises(InputError, match=rf"^a\.tif: has {count} frames, pages or slices; give"):
        photos.read(make(), name="a.tif")
    assert not told()


def test_a_stack_mapped_into_memory(tmp_path):
    for imagej in (False, True):
        path = tmp_path / "stack.tif"
        tifffile.memmap(path, shape=(7, 40, 52), dtype="uint16", imagej=imagej).flush()
        with pytest.raises(InputError, match="has 7 frames"):
            photos.read(path)


def test_a_stack_of_a_microscope(shared_data):
    with pytest.raises(InputError, match=r"imagej_stack\.tif: has 5 frames"):
        photos.read(shared_data / "cases" / "imagej_stack.tif")


@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
@pytest.mark.parametrize("array", [GREY, RGB], ids=["grey", "rgb"])
def test_a_description_of_one_picture_stays_and_stays_true(kind, array, told):
    options = {} if kind == "shaped" else {kind: True}
    colours = "rgb" if array.ndim == 3 else "minisblack"
    data = by_tifffile(array, **options, **({} if kind == "imagej" else {"photometric": colours}))
    _, encoded = restored(data)
    with (
        tifffile.TiffFile(io.BytesIO(data)) as before,
        tifffile.TiffFile(io.BytesIO(encoded)) as after,
    ):
        assert after.pages.first.description == before.pages.first.description
        assert [s.shape for s in after.series] == [s.shape for s in before.series] == [array.shape]
        assert after.series[0].kind == kind
    assert not told()


def test_a_description_that_would_be_false_goes():
    planes = by_tifffile(np.moveaxis(RGB, -1, 0).copy(), photometric="rgb", planarconfig="separate")
    with tifffile.TiffFile(io.BytesIO(planes)) as file:
        assert json.loads(file.pages.first.description) == {"shape": [3, 40, 52]}
    palette = by_tifffile(GREY, photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    ome = by_tifffile(REAL.astype(np.float64), ome=True, photometric="minisblack")
    for data in (planes, palette, ome):
        _, encoded = restored(data)
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            assert 270 not in file.pages.first.tags
            assert file.series[0].shape == file.pages.first.shape
    # Its words name no type.
    _, encoded = restored(by_tifffile(REAL.astype(np.float64)))
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        assert json.loads(file.pages.first.description) == {"shape": [40, 52]}


SMALL = RGB[::4, ::4]
REDUCED = {"subfiletype": 1}
COPIES = {
    "below": ((RGB, {"subifds": 2}), (RGB[::2, ::2], REDUCED), (SMALL, REDUCED)),
    "behind": ((RGB, {"tile": (16, 16)}), (RGB[::2, ::2], REDUCED), (SMALL, REDUCED)),
    "before": ((SMALL, REDUCED), (RGB, {})),
    "mask": ((RGB, {}), (GREY > 99, {"subfiletype": 4, "photometric": 4})),
    "reduced-mask": ((RGB, {}), (SMALL, REDUCED), (GREY > 99, {"subfiletype": 5})),
}


@pytest.mark.parametrize("case", COPIES)
def test_reduced_copies_and_masks_are_no_pictures(case, told):
    pages = COPIES[case]
    if case == "reduced-mask":
        data = bytearray(of_pages(*pages[:2], (GREY, REDUCED)))
        at = data.rindex(struct.pack("<HHII", 254, 4, 1, 1))
        data[at + 8] = 5
        data = bytes(data)
    else:
        data = of_pages(*pages)
    photo, _ = restored(data)
    np.testing.assert_array_equal(photo.rgb, RGB)
    assert told()[0] == (
        "has reduced copies or masks beside its picture; its result has only the picture"
    )


def test_old_marks_of_reduced_copies():
    data = of_pages((RGB, {}), (SMALL, {"extratags": [(255, 3, 1, 2, True)]}))
    np.testing.assert_array_equal(restored(data)[0].rgb, RGB)


def test_tags_of_a_copy_that_comes_first_are_kept():
    make = {"extratags": [(271, 2, 0, "Maker", True)], "description": "small"}
    _, encoded = restored(of_pages((SMALL, REDUCED | make), (RGB, {})))
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        assert file.pages.first.tags[271].value == "Maker"
        assert 270 not in file.pages.first.tags


def test_directories_that_go_round_are_read_once():
    data = bytearray(by_hand(GREY.tobytes(), {}))
    start = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    np.testing.assert_array_equal(restored(bytes(data))[0].rgb[..., 0], GREY)


SENSOR = (DEEP, {"photometric": 32803, "extratags": [(33422, 1, 4, b"\0\1\1\2", True)]})
RAWS = {
    "dng": lambda: of_pages((RGB, {"extratags": [(50706, 1, 4, b"\1\4\0\0", True)]})),
    "sensor": lambda: of_pages(SENSOR),
    "sensor-below": lambda: of_pages((SMALL, {"subfiletype": 1, "subifds": 1}), SENSOR),
    "cr2": lambda: b"II*\0\x10\0\0\0CR\2\0" + bytes(500),
    "preview-alone": lambda: of_pages((SMALL, REDUCED)),
    "orf": lambda: b"IIRO\x08\0\0\0" + bytes(500),
    "rw2": lambda: b"IIU\0\x18\0\0\0" + bytes(500),
    "raf": lambda: b"FUJIFILMCCD-RAW 0201" + bytes(500),
    "cr3": lambda: b"\0\0\0\x18ftypcrx " + bytes(500),
}


@pytest.mark.parametrize("case", RAWS)
def test_raw_files_of_cameras_are_to_be_developed(case):
    with pytest.raises(InputError, match=r"^a\.jpg: .*raw file of a camera.*develop it first"):
        photos.read(RAWS[case](), name="a.jpg")


RANDOM_MAP = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)


@pytest.mark.parametrize("step", [1, 256, 257])
def test_a_palette_of_8_bits_becomes_its_colours(step, told):
    data = by_tifffile(GREY, photometric="palette", colormap=RANDOM_MAP * step, metadata=None)
    photo, encoded = restored(data)
    np.testing.assert_array_equal(photo.rgb, RANDOM_MAP.T.astype(np.uint8)[GREY])
    assert photo.rgb.dtype == np.uint8
    assert told() == ["has a palette; its result is RGB"]
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.mode == "RGB"
        assert 320 not in image.tag_v2


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_of_few_and_deep_colours(bits):
    index = GREY % 2**bits
    colours = np.random.default_rng(1).integers(0, 65536, (3, 2**bits)).astype(np.uint16)
    tags = {258: (3, [bits]), 262: (3, [3]), 320: (3, colours.ravel().tolist())}
    photo, _ = restored(by_hand(packed(index, bits), tags))
    assert photo.rgb.dtype == np.uint16
    np.testing.assert_array_equal(photo.rgb, colours.T[index])


def test_a_palette_with_alpha():
    pixels = np.stack([GREY, 255 - GREY], axis=-1)
    tags = {258: (3, [8, 8]), 262: (3, [3]), 277: (3, [2]), 338: (3, [2])}
    tags[320] = 3, (RANDOM_MAP * 257).ravel().tolist()
    photo, _ = restored(by_hand(pixels.tobytes(), tags))
    np.testing.assert_array_equal(photo.rgb, RANDOM_MAP.T[GREY])
    np.testing.assert_array_equal(photo.alpha, 255 - GREY)
    with pytest.raises(InputError, match="palette is missing or short"):
        photos.read(by_hand(pixels.tobytes(), tags | {320: (3, [0] * 9)}))


@pytest.mark.parametrize("zero_is_white", [False, True])
@pytest.mark.parametrize("compression", ["raw", "group3", "group4", "tiff_ccitt", "packbits"])
def test_pixels_of_one_bit_become_grey(compression, zero_is_white, told):
    image = Image.fromarray(GREY).convert("1")
    tags = {262: 0} if zero_is_white else {}
    data = by_pillow(image, compression=compression, tiffinfo=tags)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.pages.first.photometric == (0 if zero_is_white else 1)
        assert file.pages.first.bitspersample == 1
    photo, encoded = restored(data)
    np.testing.assert_array_equal(photo.rgb[..., 0], np.asarray(image.convert("L")))
    assert told()[0] == "has 1 bit a pixel; its result is grey of 8 bits"
    with Image.open(io.BytesIO(encoded)) as written:
        assert written.mode == "L"
        np.testing.assert_array_equal(np.asarray(written), np.asarray(image.convert("L")))


@pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14])
def test_grey_of_odd_depths_is_spread(bits, told):
    values = DEEP >> (16 - bits)
    photo, _ = restored(by_hand(packed(values, bits), {258: (3, [bits])}))
    top = 255 if bits < 8 else 65535
    np.testing.assert_array_equal(photo.rgb[..., 0], np.rint(values * (top / (2**bits - 1))))
    assert photo.rgb.dtype == (np.uint8 if bits < 8 else np.uint16)
    assert len(told()) == 1


def test_grey_of_4_bits_with_alpha():
    pixels = np.stack([GREY // 16, 15 - GREY // 16], axis=-1)
    tags = {258: (3, [4, 4]), 277: (3, [2]), 338: (3, [2])}
    photo, _ = restored(by_hand(packed(pixels, 4), tags))
    np.testing.assert_array_equal(photo.rgb[..., 0], pixels[..., 0] * 17)
    np.testing.assert_array_equal(photo.alpha, pixels[..., 1] * 17)


def profile_of_inks():
    """An ICC profile of CMYK with a table of two points an ink, by the specification."""
    table = bytearray()
    for point in range(16):
        c, m, y, k = (point >> shift & 1 for shift in (3, 2, 1, 0))
        light = 255 * (1 - k) * (1 - 0.3 * c - 0.5 * m - 0.1 * y)
        table += bytes([round(light), 128 - 30 * c + 50 * m * (1 - k), 128 - 40 * c + 60 * y])
    linear = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + linear * 4 + table + linear * 3
    size = 128 + 4 + 12 + len(lut)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"", 0x2400000, b"prtr", b"CMYK", b"Lab ", b"",
                         b"acsp").ljust(68, b"\0")  # fmt: skip
    header = (header + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)).ljust(128, b"\0")
    return header + struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut


def inks():
    return Image.fromarray(RGB).convert("CMYK")


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw"])
def test_inks_become_srgb(compression, told):
    photo, encoded = restored(by_pillow(inks(), compression=compression))
    np.testing.assert_array_equal(photo.rgb, np.asarray(inks().convert("RGB")))
    assert told()[0] == "is CMYK; its result is sRGB"
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.mode == "RGB"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inks_become_srgb_by_their_profile(dtype):
    profile = profile_of_inks()
    source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    expected = ImageCms.profileToProfile(inks(), source, srgb, outputMode="RGB")
    assert np.abs(np.asarray(expected, float) - np.asarray(inks().convert("RGB"))).max() > 20
    step = np.iinfo(dtype).max // 255
    pixels = np.dstack([np.asarray(inks()), GREY]).astype(dtype) * dtype(step)
    data = by_tifffile(
        pixels, photometric="separated", iccprofile=profile, extrasamples=[2], metadata=None,
        planarconfig="contig",
    )  # fmt: skip
    photo, encoded = restored(data)
    assert photo.rgb.dtype == dtype
    assert np.abs(photo.rgb / step - np.asarray(expected)).max() <= 1.01
    np.testing.assert_array_equal(photo.alpha, GREY.astype(dtype) * step)
    with Image.open(io.BytesIO(photos.encode(photo, photo.rgb, ".png"))) as image:
        assert "icc_profile" not in image.info
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        assert 34675 not in file.pages.first.tags


def test_other_inks_are_refused():
    data = by_tifffile(
        np.asarray(inks()), photometric="separated", extratags=[(332, 3, 1, 2, True)]
    )
    with pytest.raises(InputError, match="inks"):
        photos.read(data)


def test_ycbcr_becomes_rgb_however_it_is_turned(told):
    image = Image.fromarray(RGB).convert("YCbCr")
    expected = np.asarray(image.convert("RGB"), int)
    for orientation in range(1, 9):
        photo, _ = restored(by_pillow(image, tiffinfo={274: orientation}))
        assert np.abs(photo.rgb - expected).max() <= 1
        assert photo.orientation == orientation
    assert set(told()) == {"is YCbCr; its result is RGB"}


def test_ycbcr_of_fewer_colours():
    """Units of four grey levels and two colours, of two by two pixels."""
    y, cb, cr = np.asarray(Image.fromarray(RGB).convert("YCbCr")).transpose(2, 0, 1)
    levels = y.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).swapaxes(1, 2).reshape(-1, 4)
    colours = np.stack([cb[::2, ::2].ravel(), cr[::2, ::2].ravel()], axis=-1)
    units = np.concatenate([levels, colours], axis=-1)
    tags = {258: (3, [8] * 3), 262: (3, [6]), 277: (3, [3]), 530: (3, [2, 2])}
    photo, _ = restored(by_hand(units.tobytes(), tags))
    assert np.abs(photo.rgb - RGB.astype(int)).mean() < 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", [8, 9])
def test_lab_becomes_srgb(kind, dtype, told):
    """Grey has no colours; the others are those of a table of sRGB in D50."""
    known = {(100, 0, 0): (255, 255, 255), (0, 0, 0): (0, 0, 0), (53.585, 0, 0): (128, 128, 128)}
    known |= {(54.29, 80.81, 69.89): (255, 0, 0), (29.57, 68.29, -112.03): (0, 0, 255)}
    lab = np.array(list(known), float)[None]
    deep, signed = dtype == np.uint16, kind == 8
    scale = (65535 if signed else 0xFF00) / 100 if deep else 2.55
    values = lab * [scale, 256 if deep else 1, 256 if deep else 1]
    if not signed:
        values[..., 1:] += 0x8000 if deep else 128
    pixels = np.rint(values).astype(np.int64).astype(dtype)
    depth = 8 * pixels.itemsize
    tags = {256: (3, [5]), 257: (3, [1]), 258: (3, [depth] * 3), 262: (3, [kind]), 277: (3, [3])}
    photo, _ = restored(by_hand(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes(), tags))
    step = np.iinfo(dtype).max // 255
    assert photo.rgb.dtype == dtype
    assert np.abs(photo.rgb[0] / step - np.array(list(known.values()))).max() < (2 if deep else 6)
    assert told() == ["is in the LAB colour space; its result is sRGB"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_floats_of_other_sizes_become_those_of_32_bits(dtype, told):
    photo, _ = restored(by_tifffile(REAL.astype(dtype)))
    np.testing.assert_array_equal(photo.rgb[..., 0], REAL.astype(dtype).astype(np.float32))
    assert len(told()) == 1
    with pytest.raises(InputError, match="0 to 2"):
        photos.read(by_tifffile((REAL / REAL.max() * 2).astype(dtype)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pixels_that_are_no_numbers_are_counted_and_placed(dtype):
    pixels = np.stack([REAL.astype(dtype)] * 3, axis=-1)
    pixels[7, 3] = np.nan
    with pytest.raises(InputError, match=r"has 1 NaN pixel, in row 7, column 3 \(both count from"):
        photos.read(by_tifffile(pixels, photometric="rgb"))
    pixels[7, 2, 1], pixels[39, 0, 0] = np.inf, -np.inf
    with pytest.raises(InputError) as caught:
        photos.read(by_tifffile(pixels, photometric="rgb"), name="a.tif")
    assert str(caught.value).startswith(
        "a.tif: has 1 NaN and 2 infinite pixels, the first in row 7, column 2 "
    )


REFUSED = {
    **{f"{kind}": (kind, "signed channels of") for kind in ("int8", "int16", "int32")},
    **{f"{kind}": (kind, "channels of") for kind in ("uint32", "uint64")},
    "complex": ("complex64", "complex channels of 64 bits"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_kinds_without_a_reading_are_refused_with_a_fix(case, told):
    dtype, reason = REFUSED[case]
    with pytest.raises(InputError, match=rf"{reason}.*; convert it to grey or RGB of 8 or 16 bits"):
        photos.read(by_tifffile(GREY.astype(dtype)))
    assert not told()


def test_more_than_one_extra_channel_is_refused():
    five = by_tifffile(np.dstack([RGB, GREY, GREY]), photometric="rgb", planarconfig="contig")
    with pytest.raises(InputError, match="has 5 channels, not 3 with or without alpha"):
        photos.read(five)


@pytest.mark.parametrize("order", ["<", ">"])
def test_bigtiff_becomes_classic(order, told):
    data = by_tifffile(DEEP, bigtiff=True, byteorder=order, extratags=[(65000, 16, 1, 7, True)])
    _, encoded = restored(data)
    assert encoded[:4] == (b"II*\0" if order == "<" else b"MM\0*")
    assert told() == ["is a BigTIFF file; its result is a classic one"]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_directories_of_exif_and_gps_are_kept_as_they_are(order, big):
    block = Image.Exif()
    block.endian = order
    block[271], block[33432] = "Maker", "Somebody"
    block[34665] = {36867: "2024:02:29 12:34:56", 33434: TiffImagePlugin.IFDRational(1, 125)}
    block[34665][37500] = b"\1\2private\3"
    block[34853] = {1: "N", 2: (48.0, 51.0, 29.5)}
    loaded = Image.Exif()
    loaded.load(block.tobytes())
    data = by_pillow(Image.fromarray(RGB), exif=loaded, big_tiff=big)
    _, encoded = restored(data)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(encoded)) as after:
        for pointer in (34665, 34853):
            old, new = (dict(image.getexif().get_ifd(pointer)) for image in (before, after))
            assert old == new
            assert old
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        tags = file.pages.first.tags
        assert tags[34665].value["DateTimeOriginal"] == "2024:02:29 12:34:56"
        assert tags[34665].value["MakerNote"] == b"\1\2private\3"
        assert tags[34853].value["GPSLatitude"][:2] == (48, 1)
        codes = [tag.code for tag in tags]
        assert codes == sorted(set(codes))


def test_iptc_photoshop_and_private_tags_are_kept_bit_for_bit(told):
    iptc = b"\x1c\x02\x78\0\x05hello\0\0"
    irb = b"8BIM\x04\x04\0\0\0\0\0\4abcd"
    thumbnail = b"8BIM\x04\x0c\0\0\0\0\0\2xy"
    extra = [
        (33723, 4, len(iptc) // 4, iptc, True),
        (34377, 1, len(irb + thumbnail), irb + thumbnail, True),
        (65001, 12, 2, struct.pack("<2d", 0.1, -3e200), True),
        (65002, 10, 1, struct.pack("<2i", -1, 3), True),
        (37724, 7, 8, b"Adobe Ph", True),
        (52545, 7, 8, b"manifest", True),
    ]
    _, encoded = restored(by_tifffile(RGB, metadata=None, photometric="rgb", extratags=extra))
    for value in (iptc, irb, extra[2][3], extra[3][3]):
        assert value in encoded
    for value in (thumbnail, b"Adobe Ph", b"manifest"):
        assert value not in encoded
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        tags = file.pages.first.tags
        assert [int(tags[c].dtype) for c in (33723, 34377, 65001, 65002)] == [4, 1, 12, 10]
        assert tags[65001].value == (0.1, -3e200)
    assert "has Photoshop's layers; its result has only the flat picture" in told()


@pytest.mark.parametrize(
    ("options", "remarks"),
    [
        ({}, []),
        ({"compression": "lzw", "predictor": True}, []),
        ({"tile": (16, 16)}, ["is stored in tiles or planes; its result is in strips"]),
        (
            {"compression": "packbits"},
            ["has a compression other than LZW and deflate; its result is deflated"],
        ),
    ],
)
def test_only_what_is_lost_is_told(options, remarks, told):
    restored(by_tifffile(RGB, photometric="rgb", **options))
    assert told() == remarks


@pytest.mark.parametrize("compression", ["webp", "jpeg2000", "png", "zstd", "lzma", "lerc"])
def test_other_compressions_are_read(compression):
    data = by_tifffile(RGB, photometric="rgb", compression=compression, metadata=None)
    np.testing.assert_array_equal(restored(data)[0].rgb, RGB)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 3), (4, 4)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiny_pictures(shape, channels):
    pixels = np.dstack([RGB, GREY])[: shape[0], : shape[1], :channels]
    tags = {256: (3, [shape[1]]), 257: (3, [shape[0]]), 258: (3, [8] * channels)}
    tags |= {262: (3, [2 if channels > 2 else 1]), 277: (3, [channels]), 278: (3, [shape[0]])}
    if channels in (2, 4):
        tags[338] = 3, [2]
    photo, _ = restored(by_hand(pixels.tobytes(), tags))
    np.testing.assert_array_equal(photo.rgb[..., -1], pixels[..., min(2, (channels > 2) * 2)])


def test_a_tiff_file_by_another_name(tmp_path):
    for name, options in (("photo.jpg", {}), ("photo.png", {})):
        (tmp_path / name).write_bytes(by_tifffile(RGB, photometric="rgb", **options))
        photo = photos.read(tmp_path / name)
        assert photo.format == "TIFF"
        with Image.open(io.BytesIO(photos.encode(photo, photo.rgb, name[-4:]))) as image:
            assert image.format == {".jpg": "JPEG", ".png": "PNG"}[name[-4:]]
            assert np.abs(np.asarray(image, float) - RGB).mean() < 3
    pixels = np.dstack([RGB, np.full_like(GREY, 255)])
    for extra in (1, 2):
        photo = photos.read(by_tifffile(pixels, photometric="rgb", extrasamples=[extra]))
        with Image.open(io.BytesIO(photos.encode(photo, photo.rgb, ".jpg"))) as image:
            assert image.mode == "RGB"
    clear = photos.read(by_tifffile(np.dstack([RGB, GREY]), photometric="rgb"), name="photo.jpg")
    with pytest.raises(InputError, match=r"^photo\.jpg: has transparency, which \.jpg cannot"):
        photos.output_format(clear, ".jpg")


def test_a_part_that_claims_to_be_huge_takes_no_memory():
    data = bytearray(by_pillow(Image.fromarray(RGB), compression="jpeg"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 13000, 13000)
    with pytest.raises(InputError, match="of a wrong size"):
        photos.read(bytes(data))


def seeds():
    small = RGB[:16, :20]
    yield by_pillow(Image.fromarray(small), compression="jpeg")
    yield by_pillow(Image.fromarray(small).convert("1"), compression="group4")
    yield by_pillow(Image.fromarray(small).quantize(16))
    yield by_pillow(Image.fromarray(small).convert("YCbCr"))
    yield by_pillow(Image.fromarray(small).convert("CMYK"), compression="packbits")
    yield by_tifffile(small, ome=True, photometric="rgb", compression="lzw", predictor=True)
    yield by_tifffile(DEEP[:16, :20], bigtiff=True, byteorder=">", tile=(16, 16), imagej=False)
    yield of_pages((small, {"subifds": 1, "compression": "zlib"}), (SMALL, REDUCED))


@pytest.mark.parametrize("number", range(8))
def test_damage_gives_a_picture_or_one_line(number, caplog):
    """Bits are turned, bytes replaced by those of large numbers, and ends cut off."""
    whole = list(seeds())[number]
    rng = np.random.default_rng(number)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 5)):
            data[place] = rng.choice([data[place] ^ (1 << int(rng.integers(8))), 0xFF, 0])
        if rng.random() < 0.3:
            del data[int(rng.integers(len(data))) :]
        message = ""
        with warnings.catch_warnings(record=True) as leaked:
            warnings.simplefilter("always")
            try:
                photo = photos.read(bytes(data), name="damaged")
                again = photos.read(photos.encode(photo, photo.rgb))
            except InputError as error:
                message = str(error)
            else:
                np.testing.assert_array_equal(again.rgb, photo.rgb)
                read += 1
        assert not leaked
        assert "\n" not in message
        assert not message or message.startswith("damaged: ")
    assert 0 < read < 60
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_every_cut_is_refused_or_harmless():
    """A file whose directory comes first may lack bytes behind its pixels, and no others."""
    data = by_tifffile(RGB[:8, :8], photometric="rgb", metadata=None, compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        end = file.pages.first.dataoffsets[-1] + file.pages.first.databytecounts[-1]
    for length in range(1, len(data)):
        try:
            photo = photos.read(data[:length])
        except InputError:
            assert length < len(data)
        else:
            assert length >= end
            np.testing.assert_array_equal(photo.rgb, RGB[:8, :8])


@pytest.mark.parametrize("length", [[0], [2000], [99_999], None])
def test_wrong_lengths_of_plain_pixels_do_not_matter(length):
    data = by_hand(GREY.tobytes(), {279: (4, length or [1])})
    if length is None:  # the tag is missing: it has another number
        data = data.replace(struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 278, 4, 1))
    np.testing.assert_array_equal(restored(data)[0].rgb[..., 0], GREY)


def test_jpeg_of_the_first_kind_in_a_tiff_file():
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG", quality=95, subsampling=0)
    jpeg = buffer.getvalue()
    tags = {258: (3, [8] * 3), 259: (3, [6]), 262: (3, [6]), 277: (3, [3]), 530: (3, [1, 1])}
    tags |= {513: (4, [8]), 514: (4, [len(jpeg)])}
    with Image.open(io.BytesIO(jpeg)) as image:
        assert np.abs(restored(by_hand(jpeg, tags))[0].rgb - np.asarray(image, int)).max() <= 1


def test_few_bytes_that_claim_many_pixels_are_refused():
    for tags in ({}, {258: (3, [8] * 3), 262: (3, [6]), 277: (3, [3])}):
        size = {256: (3, [13_000]), 257: (3, [13_000]), 278: (4, [13_000])}
        with pytest.raises(InputError, match="damaged"):
            photos.read(by_hand(bytes(5000), size | tags))

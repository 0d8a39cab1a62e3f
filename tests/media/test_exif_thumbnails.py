"""EXIF thumbnails and previews of results, in blocks made and read by hand."""

import io
import logging
import struct
import zlib

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image, PngImagePlugin

from jaxdeblur.media import photo as photos
from jaxdeblur.media.lost import LOST

pillow_heif.register_heif_opener()

HEIGHT, WIDTH = 150, 210
FORMATS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".avif": "AVIF", ".heic": "HEIF"}


def pixels(channels=3):
    """Dark on the left, light on the right: a thumbnail tells whether it is the old one."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / (HEIGHT + WIDTH)
    return np.stack([255 * x, 255 * x, 120 * y, 0 * x + 255][:channels], -1).astype(np.uint8)


def jpeg(array, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def small(width=160, height=114):
    return np.asarray(Image.fromarray(pixels()).resize((width, height)))


def tag(order, number, kind, count, value):
    field = struct.pack(order + {3: "HH", 4: "I"}[kind], *([value, 0] if kind == 3 else [value]))
    return struct.pack(order + "HHI", number, kind, count) + field


def exif_block(
    order="<", *, thumbnail=None, maker_note=b"maker note", orientation=6, compression=6, more=b""
):
    """IFD0, its EXIF directory with a maker note, and IFD1 with a thumbnail; `more` comes last."""
    thumbnail = jpeg(small()) if thumbnail is None else thumbnail
    exif_at = 8 + 2 + 2 * 12 + 4
    note_at = exif_at + 2 + 3 * 12 + 4
    second_at = note_at + len(maker_note) + len(maker_note) % 2
    thumbnail_at = second_at + 2 + 3 * 12 + 4
    note = struct.pack(order + "HHII", 37500, 7, len(maker_note), note_at)
    return b"".join(
        [
            (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 2),
            tag(order, 274, 3, 1, orientation) + tag(order, 34665, 4, 1, exif_at),
            struct.pack(order + "I", second_at),
            struct.pack(order + "H", 3) + note,
            tag(order, 40962, 4, 1, WIDTH) + tag(order, 40963, 3, 1, HEIGHT) + bytes(4),
            maker_note + bytes(len(maker_note) % 2),
            struct.pack(order + "H", 3) + tag(order, 259, 3, 1, compression),
            tag(order, 513, 4, 1, thumbnail_at) + tag(order, 514, 4, 1, len(thumbnail)) + bytes(4),
            thumbnail,
            more,
        ]
    )


def parsed(block):
    """IFD0, EXIF and IFD1 (or None) as dicts from tag to the number in it and its place."""
    order = "<" if block[:2] == b"II" else ">"

    def directory(start):
        (count,) = struct.unpack_from(order + "H", block, start)
        found = {}
        for at in range(start + 2, start + 2 + 12 * count, 12):
            number, kind, _ = struct.unpack_from(order + "HHI", block, at)
            found[number] = struct.unpack_from(order + {3: "H"}.get(kind, "I"), block, at + 8)[0]
        return found, struct.unpack_from(order + "I", block, start + 2 + 12 * count)[0]

    first, following = directory(struct.unpack_from(order + "I", block, 4)[0])
    return first, directory(first[34665])[0], directory(following)[0] if following else None


def thumbnail_of(block):
    second = parsed(block)[2]
    return block[second[513] :][: second[514]]


def written(kind, block):
    buffer = io.BytesIO()
    exif = {} if block is None else {"exif": b"Exif\0\0" + block}
    Image.fromarray(pixels()).save(buffer, kind, quality=95, **exif)
    return buffer.getvalue()


def block_of(data, kind):
    """The EXIF block of a file, by its container's structure where that is simple."""
    if kind == "JPEG":
        at = data.index(b"\xff\xe1")
        assert data[at + 4 : at + 10] == b"Exif\0\0"
        return data[at + 10 : at + 2 + int.from_bytes(data[at + 2 : at + 4])]
    if kind == "PNG":
        at = data.index(b"eXIf")
        return data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at])]
    if kind == "WEBP":
        at = data.index(b"EXIF") + 8
        return data[at : at + int.from_bytes(data[at - 4 : at], "little")].removeprefix(b"Exif\0\0")
    return data[data.rindex(b"Exif\0\0") + 6 :]


def photo_with(block, kind="JPEG"):
    """A photograph with exactly this block, in a file of a kind."""
    if kind == "AVIF":  # Pillow writes blocks with an orientation anew
        photo = photos.read(written("JPEG", block))
        return photos.read(photos.encode(photo, photo.rgb, ".avif"))
    return photos.read(written(kind, block))


def result(photo, caplog, suffix=None):
    """The result of light on the left and dark on the right, and what was told of previews."""
    with caplog.at_level(logging.INFO, "jaxdeblur"):
        encoded = photos.encode(photo, np.ascontiguousarray(photo.rgb[:, ::-1]), suffix)
    return encoded, [r.message for r in caplog.records if r.message == LOST["previews"]]


def assert_is_new(thumbnail, longest=160):
    assert thumbnail[:2] == b"\xff\xd8"
    array = imagecodecs.jpeg8_decode(thumbnail.rstrip(b"\0"))
    scale = longest / WIDTH
    assert array.shape[:2] == (round(HEIGHT * scale), round(WIDTH * scale))
    expected = np.asarray(Image.fromarray(pixels()[:, ::-1]).resize(array.shape[1::-1]))
    assert np.abs(array.astype(float) - expected).mean() < 5


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_the_thumbnail_is_that_of_the_result(source, target, order, caplog):
    orientation = 1 if ".heic" in (source, target) else 6
    block = exif_block(order, orientation=orientation)
    encoded, told = result(photo_with(block, FORMATS[source]), caplog, target)
    new = block_of(encoded, FORMATS[target])
    assert_is_new(thumbnail_of(new))
    assert not told
    # All but the thumbnail and its length stays where it was.
    start = parsed(block)[2][513]
    at = start - 8
    assert new[: at - 8] == block[: at - 8]
    assert new[at - 4 : at] == block[at - 4 : at]
    first, exif, second = parsed(new)
    assert first[274] == orientation
    assert (exif[40962], exif[40963]) == (WIDTH, HEIGHT)
    assert new[exif[37500] :].startswith(b"maker note")
    assert second[513] == start


PLACES = {
    "last": {},
    "before-something": {"more": b"something behind"},
    "too-small-before-something": {"thumbnail": jpeg(small()[:9, :9], quality=5), "more": b"more"},
    "small": {"thumbnail": jpeg(small(80, 57))},
    "large": {"thumbnail": jpeg(small(200, 143), quality=100)},
    "zeros-behind": {"more": bytes(2)},
    "not-a-picture": {"thumbnail": b"\xff\xd8\xff\xe0 is none" * 400},
}


@pytest.mark.parametrize("case", PLACES)
def test_thumbnails_of_any_size_at_any_place(case, caplog):
    block = exif_block(**PLACES[case])
    encoded, told = result(photo_with(block), caplog)
    new = block_of(encoded, "JPEG")
    longest = {"small": 80, "too-small-before-something": 9}.get(case, 160)
    assert_is_new(thumbnail_of(new), longest)
    assert not told
    more = PLACES[case].get("more", b"").strip(b"\0")
    if more:
        at = block.rindex(more)
        assert new[at : at + len(more)] == more
    old = PLACES[case].get("thumbnail", jpeg(small()))
    assert old not in encoded
    assert old[20:300] not in encoded


DROPPED = {
    "strips": {"compression": 1, "thumbnail": bytes(3000)},
    "empty": {"thumbnail": b""},
    "wrong": {"thumbnail": b"no picture at all"},
}


@pytest.mark.parametrize("case", DROPPED)
def test_a_thumbnail_that_cannot_be_made_anew_goes(case, caplog):
    block = exif_block(**DROPPED[case])
    encoded, told = result(photo_with(block), caplog)
    new = block_of(encoded, "JPEG")
    first, exif, second = parsed(new)
    assert second is None
    assert first[274] == 6
    assert new[exif[37500] :].startswith(b"maker note")
    assert told == [LOST["previews"]]


def test_a_thumbnail_that_is_not_compressed_is_erased(caplog):
    block = bytearray(exif_block(compression=1, thumbnail=b"pixel" * 600))
    for old, new in ((513, 273), (514, 279)):
        at = block.index(struct.pack("<HHI", old, 4, 1))
        struct.pack_into("<H", block, at, new)
    encoded, told = result(photo_with(bytes(block)), caplog)
    new = block_of(encoded, "JPEG")
    assert parsed(new)[2] is None
    assert b"pixel" not in new
    assert b"maker note" in new
    assert told == [LOST["previews"]]


def test_a_block_that_is_full_holds_a_coarser_thumbnail(caplog):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    block = exif_block(maker_note=bytes(range(1, 256)) * 240, thumbnail=jpeg(small(), quality=30))
    assert len(block) < 65527 < len(block) + len(jpeg(noise[:114, :160]))
    photo = photo_with(block)
    new = block_of(photos.encode(photo, noise), "JPEG")
    assert imagecodecs.jpeg8_decode(thumbnail_of(new)).shape == (114, 160, 3)
    full = exif_block(maker_note=bytes(range(1, 256)) * 252, thumbnail=jpeg(small()[:5, :5]))
    full += b"x" * (65527 - len(full))
    new = block_of(photos.encode(photo_with(full), noise), "JPEG")
    assert new[-9:] == b"x" * 9
    assert_previews_are_gone(new)


def assert_previews_are_gone(block):
    second = parsed(block)[2]
    assert second is None or imagecodecs.jpeg8_decode(thumbnail_of(block)).shape[1] <= 5


def test_previews_in_maker_notes_are_made_anew_where_they_are(caplog):
    preview = jpeg(small(200, 143), quality=90)
    note = b"Maker\0" + b"\xff\xd8\xff" + b"noise" * 9 + preview + b"end of note"
    encoded, told = result(photo_with(exif_block(maker_note=note)), caplog)
    new = block_of(encoded, "JPEG")
    at = parsed(new)[1][37500]
    assert new[at : at + 54] == note[:54]
    assert new[at + len(note) - 11 :].startswith(b"end of note")
    assert_is_new(new[at + 54 : at + len(note) - 11], 200)
    assert_is_new(thumbnail_of(new))
    assert not told
    assert preview[-300:-200] not in encoded


def test_a_preview_too_small_for_a_new_one_is_erased(caplog):
    preview = jpeg(np.zeros((600, 600, 3), np.uint8), quality=1, optimize=True)
    note = b"Maker\0" + preview + b"end of note"
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    photo = photo_with(exif_block(maker_note=note))
    new = block_of(photos.encode(photo, np.repeat(noise, 1, 0)), "JPEG")
    at = parsed(new)[1][37500]
    assert preview not in new
    assert new[at + len(note) - 11 :].startswith(b"end of note")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_thumbnails_of_all_kinds_of_pixels(channels, dtype, caplog):
    array = pixels(4)[..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]]
    array = np.ascontiguousarray(array).astype(dtype) * (257 if dtype == np.uint16 else 1)
    data = bytes(imagecodecs.png_encode(array[..., 0] if channels == 1 else array))
    block = exif_block()
    chunk = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    encoded, _ = result(photos.read(data[:33] + chunk + data[33:]), caplog)
    new = imagecodecs.jpeg8_decode(thumbnail_of(block_of(encoded, "PNG")))
    assert new.shape == ((114, 160) if channels < 3 else (114, 160, 3))
    assert new[57, 5].mean() > new[57, 150].mean() + 20


def test_profiles_that_imagemagick_writes_as_text(caplog):
    block = exif_block()
    digits = (b"Exif\0\0" + block).hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    for keyword, packed in (("exif", True), ("APP1", False)):
        info = PngImagePlugin.PngInfo()
        text = f"\n{keyword}\n{len(block) + 6:8}\n{lines}\n"
        info.add_text(f"Raw profile type {keyword}", text, zip=packed)
        buffer = io.BytesIO()
        Image.fromarray(pixels()).save(buffer, "PNG", pnginfo=info)
        photo = photos.read(buffer.getvalue())
        assert photo.orientation == 6
        encoded, told = result(photo, caplog)
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            text = image.info[f"Raw profile type {keyword}"].split(None, 2)
        body = bytes.fromhex(text[2])
        assert len(body) == int(text[1])
        assert_is_new(thumbnail_of(body[6:]))
        assert_is_new(thumbnail_of(block_of(result(photo, caplog, ".jpg")[0], "JPEG")))
        assert not told


def test_a_chunk_with_the_label_of_jpeg(caplog):
    body = b"eXIfExif\0\0" + exif_block()
    data = written("PNG", None)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    encoded, _ = result(photos.read(data[:33] + chunk + data[33:]), caplog)
    assert_is_new(thumbnail_of(block_of(encoded, "PNG").removeprefix(b"Exif\0\0")))


def test_a_block_without_a_thumbnail_keeps_its_bytes(caplog):
    block = bytearray(exif_block(thumbnail=b""))
    block[8 + 2 + 24 :][:4] = bytes(4)
    struct.pack_into("<I", block, 8 + 2 + 24, 0)
    for kind in ("JPEG", "PNG", "WEBP"):
        encoded, told = result(photo_with(bytes(block), kind), caplog)
        assert block_of(encoded, kind) == block
        assert not told


@pytest.mark.parametrize("seed", range(300))
def test_damaged_blocks_never_keep_a_photograph_from_being_written(seed):
    rng = np.random.default_rng(seed)
    block = bytearray(exif_block("<>"[seed % 2], thumbnail=jpeg(small(40, 29))))
    for _ in range(int(rng.integers(1, 6))):
        block[int(rng.integers(4, 140))] = int(rng.integers(0, 256))
    if seed % 5 == 0:
        del block[int(rng.integers(10, len(block))) :]
    photo = photos.Photo(
        rgb=pixels()[:20, :30],
        alpha=None,
        grey=False,
        format="WEBP",
        metadata=photos.Metadata(exif=bytes(block)),
        orientation=1,
    )
    for suffix in (".jpg", ".png"):
        assert photos.read(photos.encode(photo, photo.rgb, suffix)).rgb.shape == (20, 30, 3)


def test_the_size_of_a_turned_heic_file_is_told_as_it_is(caplog):
    """HEIC turns its pixels on reading, and a phone's block tells the size before that."""
    data = written("HEIF", exif_block(orientation=6))
    photo = photos.read(data)
    assert photo.rgb.shape[:2] == (WIDTH, HEIGHT)
    for suffix in (".heic", ".jpg", ".png"):
        encoded = photos.encode(photo, photo.rgb, suffix)
        first, exif, _ = parsed(block_of(encoded, FORMATS[suffix]))
        assert first[274] == 1
        assert (exif[40962], exif[40963]) == (HEIGHT, WIDTH)
        array = imagecodecs.jpeg8_decode(thumbnail_of(block_of(encoded, FORMATS[suffix])))
        assert array.shape[:2] == (160, 114)

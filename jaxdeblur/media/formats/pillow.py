"""The formats of 8 bits that Pillow reads and writes: JPEG, WebP, AVIF, HEIC and BMP."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import struct
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from jaxdeblur.errors import InputError
from jaxdeblur.media import lost
from jaxdeblur.media.formats import avif, heif, jpeg
from jaxdeblur.media.metadata import exif, profiles, srgb, xmp
from jaxdeblur.media.metadata.common import Metadata, check_frames, exif_of, valid_dpi

# Every format that can be read and written, by the ends of file names.
FORMATS = dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG")
FORMATS |= {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP"}
if features.check("avif"):
    FORMATS[".avif"] = "AVIF"
if importlib.util.find_spec("pillow_heif"):
    FORMATS |= {".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF"}

WITHOUT_ALPHA = ("JPEG", "BMP")

READ_ALONE = {"GIF": "PNG"}  # and written as

# Of the modes that hold no restored picture, what is lost in the nearest one that does.
_NEAREST = {"1": "bilevel", "P": "palette", "CMYK": "inks"}

# What other files begin with that cameras, phones and the web put under a photograph's name.
_OTHERS = {
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "a Photoshop document",
    b"%PDF": "a PDF document",
    b"<svg": "SVG",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"\x00\x00\x01\x00": "an icon",
    b"II\xbc\x01": "JPEG XR",
}

# What Pillow's encoders are told unless the input has something of its own.
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "HEIF": {"quality": 90},
    "BMP": {},
}

# Brands of HEIC files. Some have only the family's, mif1 and msf1.
_OF_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

_BAND_ROWS = 256  # copied at a time out of Pillow's memory


def decode(data: bytes) -> tuple[np.ndarray, Metadata, str]:
    """Decodes a file.

    Args:
      data: the file.

    Returns:
      uint8 pixels `[H, W, C]`, of 1 to 4 channels: grey, grey and alpha, RGB, RGBA; the metadata;
      and the format as Pillow names it.

    Raises:
      InputError: a file of a kind that is not supported; without the file's name.
      Exception: others, for a damaged file.
    """
    if data.startswith(jpeg.START):
        return *_decoded_jpeg(data), "JPEG"
    return _decoded(data)


def _decoded_jpeg(data: bytes) -> tuple[np.ndarray, Metadata]:
    whole = jpeg.completed(data)
    try:
        return _decoded(whole)[:2]
    except MemoryError:
        raise
    except Exception:
        if kind := jpeg.unread(data):
            raise InputError(f"{kind}, which is not read; convert it to PNG") from None
        raise


def _decoded(data: bytes) -> tuple[np.ndarray, Metadata, str]:
    try:
        image = Image.open(io.BytesIO(data), formats=_readable(data))
    except UnidentifiedImageError:
        raise InputError(_unidentified(data)) from None
    except Image.DecompressionBombError:
        raise InputError("has more than 178 million pixels; crop or shrink it") from None
    with image:
        # Cameras append previews and gain maps, which make Pillow call a JPEG file MPO.
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        if kind != "JPEG":
            check_frames(getattr(image, "n_frames", 1))
        image.load()
        metadata, gone = _metadata(image, kind, data)
        if image.mode in _NEAREST:
            gone.add(_NEAREST[image.mode])
        if image.mode == "CMYK":
            image, metadata = _of_inks(image, metadata)
        elif image.mode in _NEAREST:
            image = _without_palette(image)
        if image.mode not in ("L", "LA", "RGB", "RGBA"):
            raise InputError(f"has pixels of the kind {image.mode}; convert it to RGB")
        if kind in WITHOUT_ALPHA and image.mode == "RGBA":
            image = _without_opacity(image)
        if kind in WITHOUT_ALPHA and image.mode in ("LA", "RGBA"):
            raise InputError(f"is a {kind} file with transparency; convert it to PNG")
        pixels = _pixels(image)
    lost.tell_all(gone)
    return pixels, metadata, kind


def encode(array: np.ndarray, target: str, metadata: Metadata, same_format: bool) -> bytes:
    """Encodes pixels as `decode` returns them.

    Args:
      array: uint8 `[H, W, C]`, C from 1 to 4.
      target: the format as Pillow names it.
      metadata: what to write beside them.
      same_format: whether `metadata` is of a file of this format.
    """
    options = dict(_OPTIONS[target])
    if same_format:
        options |= metadata.same_format
    segments = options.pop("segments", None)
    if "qtables" in options:
        del options["quality"]  # which would scale them
    gone = False
    if segments is not None:
        segments, gone = jpeg.renewed(segments, array)
    elif target != "BMP":
        blocks, gone = _blocks(array, target, metadata)
        options |= {name: block for name, block in blocks.items() if block}
    if gone:
        lost.tell("previews")
    if target == "AVIF" and array.shape[-1] == 1:
        options["subsampling"] = "4:0:0"
    if metadata.dpi and target in ("JPEG", "BMP"):
        options["dpi"] = metadata.dpi
    if target == "HEIF":
        heif.register()
        options = heif.with_colours(options, metadata)
    pixels = array[..., 0] if array.shape[-1] == 1 else array
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if target == "AVIF":
        return avif.encode(image, options, None if metadata.icc else metadata.colours)
    buffer = io.BytesIO()
    image.save(buffer, target, **options)
    encoded = buffer.getvalue()
    return encoded if segments is None else jpeg.with_segments(encoded, segments)


def _blocks(array: np.ndarray, target: str, metadata: Metadata) -> tuple[dict[str, bytes], bool]:
    """EXIF, ICC profile and XMP as options of Pillow, and whether a preview is gone."""
    limits = (exif.MOST_IN_JPEG, jpeg.MOST_XMP) if target == "JPEG" else (None, None)
    block, gone = b"", False
    if metadata.exif and (limits[0] is None or len(metadata.exif) <= limits[0]):
        block, gone = exif.renewed(metadata.exif, array, limits[0])
        block = jpeg.EXIF_LABEL + block
    packet = metadata.xmp
    if limits[1] is not None and len(packet) > limits[1]:
        packet = b""
    grey = array.shape[-1] < 3
    icc = metadata.icc if target == "HEIF" else profiles.of(metadata, grey=grey)
    if array.shape[-1] in {"WEBP": (1, 2), "AVIF": (2,)}.get(target, ()):  # written as RGB
        icc = profiles.for_rgb(icc)
    return {"exif": block, "icc_profile": icc, "xmp": packet}, gone


def _without_palette(image: Image.Image) -> Image.Image:
    """A picture with a palette, or of 1 bit, in the least that holds it restored."""
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _without_opacity(image: Image.Image) -> Image.Image:
    """An opaque picture as RGB; others stay as they are."""
    return image.convert("RGB") if image.getextrema()[-1] == (255, 255) else image


def _of_inks(image: Image.Image, metadata: Metadata) -> tuple[Image.Image, Metadata]:
    """A picture in CMYK as sRGB; by its profile, if it has one."""
    turned = Image.fromarray(srgb.of_inks(_pixels(image), metadata.icc))
    # Profile and coding are those of four channels.
    segments = jpeg.without_profile(metadata.same_format["segments"])
    return turned, dataclasses.replace(metadata, icc=b"", same_format={"segments": segments})


def _readable(data: bytes) -> list[str]:
    formats = ["JPEG", "WEBP", "BMP", "GIF"]
    if ".avif" in FORMATS:
        formats.append("AVIF")
    brands = heif.brands(data)
    if brands and not brands & {b"avif", b"avis"}:
        if not brands & _OF_HEIC:
            raise InputError("is a video, not a photograph; give it a name such as .mp4 or .mov")
        if ".heic" not in FORMATS:
            raise InputError("looks like HEIC; pip install pillow-heif to read it")
        heif.register()
        formats.append("HEIF")
    return formats


def _unidentified(data: bytes) -> str:
    """Why a file is no photograph."""
    if heif.brands(data) & {b"avif", b"avis"} and ".avif" not in FORMATS:
        return "is AVIF, which this Pillow was built without; convert it to PNG"
    for start, name in _OTHERS.items():
        if data.startswith(start):
            return f"is {name}, which is not read; convert it to PNG"
    known = ", ".join(FORMATS)
    return f"is no image, or of a format other than {known}, or damaged at its start"


def _pixels(image: Image.Image) -> np.ndarray:
    """`[H, W, C]`, copied in bands: at once, Pillow would need twice the memory."""
    width, height = image.size
    array = np.empty((height, width, len(image.getbands())), np.uint8)
    for top in range(0, height, _BAND_ROWS):
        bottom = min(top + _BAND_ROWS, height)
        band = np.asarray(image.crop((0, top, width, bottom)))
        array[top:bottom] = band.reshape(bottom - top, width, -1)
    return array


def _metadata(image: Image.Image, kind: str, data: bytes) -> tuple[Metadata, set[str]]:
    """The metadata, and names in `LOST` of what goes."""
    info = image.info
    options: dict[str, Any] = {}
    gone: set[str] = set()
    colours = None
    if kind == "JPEG":
        options, gone = jpeg.settings(image, data)
    elif kind == "WEBP":
        chunks = _webp_chunks(data)
        if b"VP8L" in chunks:
            options = {"lossless": True, "exact": True}
        if b"C2PA" in chunks:
            gone.add("c2pa")
    elif kind in ("AVIF", "HEIF"):
        options, depth = avif.settings(data) if kind == "AVIF" else heif.settings(info)
        gone = heif.lost(data) | ({"deep"} if depth > 8 else set())
        colours = heif.nclx(data)
    elif kind == "GIF":
        gone |= {"c2pa"} if b"C2PA_GIF" in data else set()
        gone |= {"segments"} if info.get("comment") else set()
    elif kind == "BMP":
        info = info | {"icc_profile": _bmp_profile(data)}
    block, orientation = exif_of(image)
    packet = xmp.cleaned(info.get("xmp") or b"", extended=False)
    metadata = Metadata(
        exif=block,
        icc=info.get("icc_profile") or b"",
        xmp=packet.packet,
        dpi=valid_dpi(info.get("dpi")),
        orientation=orientation,
        colours=colours,
        same_format=options,
    )
    # Of JPEG the packet is kept with its extension, and what both lost is in `gone`.
    return metadata, gone if kind == "JPEG" else gone | packet.lost


def _bmp_profile(data: bytes) -> bytes:
    """The ICC profile in a header of version 5, which Pillow does not read; most have none."""
    header, space = struct.unpack_from("<14xI52x4s", data.ljust(80, b"\0"))
    if header < 124 or space != b"DEBM":
        return b""
    start, size = struct.unpack_from("<II", data, 14 + 112)
    return data[14 + start : 14 + start + size]


def _webp_chunks(data: bytes) -> set[bytes]:
    start, kinds = 12, set()
    while start + 8 <= len(data):
        kinds.add(data[start : start + 4])
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        start += 8 + size + size % 2
    return kinds

"""The formats of 8 bits that Pillow reads and writes: JPEG, WebP, AVIF, HEIC and BMP."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import logging
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError, features

from jaxdeblur.errors import InputError
from jaxdeblur.media import jpeg
from jaxdeblur.media.metadata import Metadata, check_frames, exif_of, valid_dpi

# Every format that can be read and written, by the ends of file names.
FORMATS = dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG")
FORMATS |= {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP"}
if features.check("avif"):
    FORMATS[".avif"] = "AVIF"
if importlib.util.find_spec("pillow_heif"):
    FORMATS |= {".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF"}

WITHOUT_ALPHA = ("JPEG", "BMP")

READ_ALONE = {"GIF": "PNG"}  # and written as

# Of the modes that hold no restored picture, what is told of the nearest one that does.
_NEAREST = {
    "1": "has 1 bit a pixel; its result is grey of 8 bits",
    "P": "has a palette; its result is RGB",
    "CMYK": "is CMYK; its result is sRGB",
}

_log = logging.getLogger(__name__)

# What Pillow's encoders are told unless the input has something of its own.
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "HEIF": {"quality": 90},
    "BMP": {},
}

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
        data = jpeg.completed(data)
    try:
        image = Image.open(io.BytesIO(data), formats=_readable(data))
    except UnidentifiedImageError:
        raise InputError(
            f"is no image, or of a format other than {', '.join(FORMATS)}, or damaged at its start"
        ) from None
    except Image.DecompressionBombError:
        raise InputError("has more than 178 million pixels; crop or shrink it") from None
    with image:
        # Cameras append previews and gain maps, which make Pillow call a JPEG file MPO.
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        if kind != "JPEG":
            check_frames(getattr(image, "n_frames", 1))
        image.load()
        metadata = _metadata(image, kind, data)
        if image.mode in _NEAREST:
            _log.info(_NEAREST[image.mode])
        if image.mode == "CMYK":
            image, metadata = _of_inks(image, metadata)
        elif image.mode in _NEAREST:
            image = _without_palette(image)
        if image.mode not in ("L", "LA", "RGB", "RGBA"):
            raise InputError(f"has pixels of the kind {image.mode}; convert it to RGB")
        if kind in WITHOUT_ALPHA and image.mode in ("LA", "RGBA"):
            raise InputError(f"is a {kind} file with transparency; convert it to PNG")
        return _pixels(image), metadata, kind


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
    if segments is None and target != "BMP":
        exif = b"Exif\0\0" + metadata.exif if metadata.exif else b""
        blocks = {"exif": exif, "icc_profile": metadata.icc, "xmp": metadata.xmp}
        options |= {name: block for name, block in blocks.items() if block}
    if metadata.dpi and target in ("JPEG", "BMP"):
        options["dpi"] = metadata.dpi
    if target == "HEIF":
        _register_heif()
    buffer = io.BytesIO()
    pixels = array[..., 0] if array.shape[-1] == 1 else array
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, target, **options)
    encoded = buffer.getvalue()
    return encoded if segments is None else jpeg.with_segments(encoded, segments)


def _without_palette(image: Image.Image) -> Image.Image:
    """A picture with a palette, or of 1 bit, in the least that holds it restored."""
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _of_inks(image: Image.Image, metadata: Metadata) -> tuple[Image.Image, Metadata]:
    """A picture in CMYK as sRGB; by its profile, if it has one."""
    profile = metadata.icc
    # Profile and encoding are those of four channels.
    metadata = dataclasses.replace(metadata, icc=b"", same_format={})
    if not profile:
        return image.convert("RGB"), metadata
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        turned = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # damaged, or of other channels
        turned = None
    return turned or image.convert("RGB"), metadata


def _readable(data: bytes) -> list[str]:
    formats = ["JPEG", "WEBP", "BMP", "GIF"]
    if ".avif" in FORMATS:
        formats.append("AVIF")
    if data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"avis"):
        if ".heic" not in FORMATS:
            raise InputError("looks like HEIC; pip install pillow-heif to read it")
        _register_heif()
        formats.append("HEIF")
    return formats


@functools.cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def _pixels(image: Image.Image) -> np.ndarray:
    """`[H, W, C]`, copied in bands: at once, Pillow would need twice the memory."""
    width, height = image.size
    array = np.empty((height, width, len(image.getbands())), np.uint8)
    for top in range(0, height, _BAND_ROWS):
        bottom = min(top + _BAND_ROWS, height)
        band = np.asarray(image.crop((0, top, width, bottom)))
        array[top:bottom] = band.reshape(bottom - top, width, -1)
    return array


def _metadata(image: Image.Image, kind: str, data: bytes) -> Metadata:
    info = image.info
    options: dict[str, Any] = {}
    if kind == "JPEG":
        options = jpeg.settings(image, data)
    elif kind == "WEBP" and _webp_is_lossless(data):
        options = {"lossless": True, "exact": True}
    elif kind == "AVIF":
        options = {"subsampling": _avif_subsampling(data)}
    elif kind == "HEIF":
        options = {key: info[key] for key in ("chroma", "nclx_profile") if info.get(key)}
    exif, orientation = exif_of(image)
    return Metadata(
        exif=exif,
        icc=info.get("icc_profile") or b"",
        xmp=info.get("xmp") or b"",
        dpi=valid_dpi(info.get("dpi")),
        orientation=orientation,
        same_format=options,
    )


def _webp_is_lossless(data: bytes) -> bool:
    start = 12
    while start + 8 <= len(data) and data[start : start + 4] != b"VP8L":
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        start += 8 + size + size % 2
    return start + 8 <= len(data)


def _avif_subsampling(data: bytes) -> str:
    """Reads it from the third byte of the box with the decoder's configuration."""
    place = data.find(b"av1C") + 6
    flags = data[place] if 6 <= place < len(data) else 0
    if flags & 0x10:
        return "4:0:0"
    return {0x0C: "4:2:0", 0x08: "4:2:2"}.get(flags & 0x0C, "4:4:4")

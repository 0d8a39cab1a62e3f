"""PNG files of 8 and 16 bits; Pillow has no mode for colours of 16."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

from jaxdeblur.errors import InputError
from jaxdeblur.media.metadata import Metadata, check_frames, check_size, exif_of, valid_dpi

_log = logging.getLogger(__name__)

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_HEADER_END = 33  # the signature and IHDR, which are as long in every file

# Chunks that stay true for other pixels of the same kind.
_KEPT = {b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs"}
_KEPT |= {b"tEXt", b"zTXt", b"iTXt", b"eXIf"}


def decode(data: bytes) -> tuple[np.ndarray, Metadata]:
    """Decodes a PNG file.

    Args:
      data: the file.

    Returns:
      uint8 or uint16 pixels `[H, W, C]`, of 1 to 4 channels: grey, grey and alpha, RGB, RGBA. Grey
      of 1, 2 and 4 bits is spread to 8; a palette becomes its colours, a transparent colour an
      alpha channel.

    Raises:
      InputError: a file of a kind that is not supported; without the file's name.
      Exception: others, for a damaged file.
    """
    import imagecodecs

    if data[12:16] != b"IHDR":
        raise InputError("is damaged: it does not begin with its header")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    check_size(width, height)
    if colour == 3:
        _log.info("has a palette; its result is RGB")
    elif depth == 1:
        _log.info("has 1 bit a pixel; its result is grey of 8 bits")
    kept = _kept_chunks(data)
    array = imagecodecs.png_decode(data)
    return array.reshape(height, width, -1), _metadata(kept)


def encode(array: np.ndarray, metadata: Metadata, same_format: bool) -> bytes:
    """Encodes pixels as `decode` returns them.

    Args:
      array: uint8 or uint16 `[H, W, C]`, C from 1 to 4.
      metadata: what to write beside them.
      same_format: whether `metadata` is of a PNG file.
    """
    import imagecodecs

    bare = bytes(imagecodecs.png_encode(array[..., 0] if array.shape[-1] == 1 else array))
    chunks = metadata.same_format["chunks"] if same_format else _new_chunks(metadata)
    return bare[:_HEADER_END] + chunks + bare[_HEADER_END:]


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, start and end of the chunks, the last of which is IEND."""
    start, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        if start + 12 > len(data):
            raise InputError("is truncated: it ends before its IEND chunk; get the whole file")
        length, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, start + 12 + length
        start += 12 + length


def _kept_chunks(data: bytes) -> bytes:
    kept = []
    for kind, start, end in _chunks(data):
        if kind == b"acTL":
            check_frames(int.from_bytes(data[start + 8 : start + 12]))
        elif kind in _KEPT:
            if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
                raise InputError(f"is damaged: the check sum of its {kind.decode()} chunk is wrong")
            kept.append(data[start:end])
    return b"".join(kept)


def _metadata(chunks: bytes) -> Metadata:
    """Lets Pillow interpret the chunks, in an image of one pixel."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    bare = buffer.getvalue()
    with Image.open(io.BytesIO(bare[:_HEADER_END] + chunks + bare[_HEADER_END:])) as image:
        image.load()
        exif, orientation = exif_of(image)
        info = image.info
    return Metadata(
        exif=exif,
        icc=info.get("icc_profile") or b"",
        xmp=info.get("xmp", b""),
        dpi=valid_dpi(info.get("dpi")),
        orientation=orientation,
        same_format={"chunks": chunks},
    )


def _new_chunks(metadata: Metadata) -> bytes:
    """The chunks that Pillow writes for metadata of another format."""
    text = PngImagePlugin.PngInfo()
    if metadata.xmp:
        text.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    options: dict[str, object] = {"pnginfo": text}
    if metadata.exif:
        options["exif"] = metadata.exif
    if metadata.icc:
        options["icc_profile"] = metadata.icc
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG", **options)
    return _kept_chunks(buffer.getvalue())

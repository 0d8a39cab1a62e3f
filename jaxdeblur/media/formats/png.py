"""PNG files of 8 and 16 bits; Pillow has no mode for colours of 16."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

from jaxdeblur.errors import InputError
from jaxdeblur.media import lost
from jaxdeblur.media.formats import png_texts
from jaxdeblur.media.metadata import exif, profiles
from jaxdeblur.media.metadata.common import Metadata, check_frames, check_size, exif_of, valid_dpi

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_HEADER_END = 33  # the signature and IHDR, which are as long in every file

# Chunks that stay true for other pixels of the same kind.
_KEPT = {b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"eXIf"}
_KEPT |= {b"oFFs", b"pCAL", b"sCAL", b"sTER", *png_texts.KINDS}

# Those of the coding, which are nobody's loss, and those that mean a loss of its own.
_CODING = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"iDOT", b"acTL", b"fcTL", b"fdAT", b"tRNS"}
_LOST_WITH = {b"caBX": "c2pa", b"gmAP": "gain_map", b"gdAT": "gain_map"}


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
    gone: set[str] = set()
    if data[28]:
        gone.add("interlaced_png")
    if colour == 3:
        gone.add("palette")
    elif depth < 8:
        gone.add("bilevel" if depth == 1 else "grey_bits")
    kept = _kept_chunks(data, gone)
    if "colour_key" in gone and colour == 3:
        gone.remove("colour_key")  # of a palette: its result is told
    array = imagecodecs.png_decode(data)
    metadata = _metadata(kept, grey=colour in (0, 4))
    lost.tell_all(gone)
    return array.reshape(height, width, -1), metadata


def encode(array: np.ndarray, metadata: Metadata, same_format: bool) -> bytes:
    """Encodes pixels as `decode` returns them.

    Args:
      array: uint8 or uint16 `[H, W, C]`, C from 1 to 4.
      metadata: what to write beside them.
      same_format: whether `metadata` is of a PNG file.
    """
    import imagecodecs

    bare = bytes(imagecodecs.png_encode(array[..., 0] if array.shape[-1] == 1 else array))
    chunks = metadata.same_format["chunks"] if same_format else _new_chunks(metadata, array)
    return bare[:_HEADER_END] + _renewed(chunks, array) + bare[_HEADER_END:]


def has_texts(chunks: bytes) -> bool:
    """Whether there are texts for which other formats have no place."""
    return any(
        kind in png_texts.KINDS and not png_texts.is_metadata(body) for kind, body in _parts(chunks)
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, start and end of the chunks, the last of which is IEND."""
    start, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        if start + 12 > len(data):
            raise InputError("is truncated: it ends before its IEND chunk; get the whole file")
        length, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, start + 12 + length
        start += 12 + length


def _parts(chunks: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and contents of sound chunks."""
    start = 0
    while start < len(chunks):
        length, kind = struct.unpack_from(">I4s", chunks, start)
        yield kind, chunks[start + 8 : start + 8 + length]
        start += 12 + length


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _kept_chunks(data: bytes, gone: set[str]) -> bytes:
    """The chunks that hold for other pixels; adds to `gone` what the others mean."""
    kept = []
    for kind, start, end in _chunks(data):
        if kind == b"acTL":
            check_frames(int.from_bytes(data[start + 8 : start + 12]))
        elif kind == b"tRNS":
            gone.add("colour_key")
        elif kind in _KEPT:
            if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
                raise InputError(f"is damaged: the check sum of its {kind.decode()} chunk is wrong")
            body = data[start + 8 : end - 4]
            if kind in png_texts.KINDS:
                body = png_texts.cleaned(kind, body, gone)
            kept.append(_chunk(kind, body))
        elif kind not in _CODING:
            gone.add(_LOST_WITH.get(kind, "chunks"))
    return b"".join(kept)


def _renewed(chunks: bytes, array: np.ndarray) -> bytes:
    """The chunks with the EXIF thumbnail of other pixels."""
    parts, gone = [], False
    for kind, body in _parts(chunks):
        label = b"Exif\0\0" if body.startswith(b"Exif\0\0") else b""  # no writer should put it
        block = body.removeprefix(label) if kind == b"eXIf" else b""
        if kind in png_texts.KINDS:
            block = png_texts.exif(kind, body)
        new, without = exif.renewed(block, array) if block else (block, False)
        gone |= without
        if new != block:
            body = label + new if kind == b"eXIf" else png_texts.with_exif(kind, body, new)
        parts.append(_chunk(kind, body))
    if gone:
        lost.tell("previews")
    return b"".join(parts)


def _metadata(chunks: bytes, *, grey: bool) -> Metadata:
    """Lets Pillow interpret the chunks, in an image of one pixel."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    bare = buffer.getvalue()
    with Image.open(io.BytesIO(bare[:_HEADER_END] + chunks + bare[_HEADER_END:])) as image:
        image.load()
        found = {kind: body for kind, body in _parts(chunks) if kind not in png_texts.KINDS}
        if b"eXIf" not in found:
            old = (png_texts.exif(kind, body) for kind, body in _parts(chunks))
            image.info["exif"] = next(filter(None, old), b"")
        block, orientation = exif_of(image)
        info = image.info
    codes = found.get(b"cICP", b"")
    colours = (codes[0], codes[1]) if len(codes) == 4 else None
    icc = info.get("icc_profile") or b""
    if not icc and not colours and b"sRGB" not in found:
        icc = _profile(found.get(b"gAMA", b""), found.get(b"cHRM", b""), grey=grey)
    return Metadata(
        exif=block,
        icc=icc,
        xmp=info.get("xmp") or b"",
        dpi=valid_dpi(info.get("dpi")),
        orientation=orientation,
        colours=colours,
        same_format={"chunks": chunks},
    )


def _profile(gamma: bytes, chromaticities: bytes, *, grey: bool) -> bytes:
    """The ICC profile of what the chunks gAMA and cHRM say, in units of 1 / 100,000."""
    if not gamma and not chromaticities:
        return b""
    exponent = struct.unpack(">I", gamma)[0] / 1e5 if len(gamma) == 4 else None
    points = None
    if len(chromaticities) == 32:
        points = tuple(value / 1e5 for value in struct.unpack(">8I", chromaticities))
    return profiles.of_gamma(exponent, points, grey=grey)


def _new_chunks(metadata: Metadata, array: np.ndarray) -> bytes:
    """The chunks that Pillow writes for metadata of another format."""
    text = PngImagePlugin.PngInfo()
    if metadata.xmp:
        text.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    options: dict[str, object] = {"pnginfo": text}
    if metadata.exif:
        options["exif"] = metadata.exif
    icc = metadata.icc
    code_points = b""
    if metadata.colours and not icc and not profiles.is_srgb(metadata.colours):
        # For RGB, of the full range; and a profile for readers that do not know the chunk.
        code_points = _chunk(b"cICP", bytes((*metadata.colours, 0, 1)))
        icc = profiles.of_code_points(metadata.colours, grey=array.shape[-1] < 3)
    if icc:
        options["icc_profile"] = icc
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG", **options)
    return code_points + _kept_chunks(buffer.getvalue(), set())

"""The parts of a JPEG file that Pillow does not hand from input to output."""

from __future__ import annotations

import functools
import hashlib
import io
import struct
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

from jaxdeblur.errors import InputError
from jaxdeblur.media.formats import behind
from jaxdeblur.media.metadata import exif, markers, photoshop, xmp
from jaxdeblur.media.metadata.markers import START as START

EXIF_LABEL = b"Exif\0\0"
_XMP_LABEL = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION_LABEL = b"http://ns.adobe.com/xmp/extension/\0"
_ICC_LABEL = b"ICC_PROFILE\0"
_GAIN_MAP_LABEL = b"urn:iso:std:iso:ts:21496:-1\0"

MOST_XMP = 65533 - len(_XMP_LABEL)
_MOST_OF_EXTENSION = 65400  # bytes of the packet in a segment

# Segments that are of the picture's coding, or of other pixels, by marker and label, and what is
# lost with them.
_STALE = {
    (0xE0, b"JFXX\0"): "previews",
    (0xE2, behind.INDEX_LABEL): "",  # where further pictures are in the input
    (0xE2, _GAIN_MAP_LABEL): "gain_map",
    (0xE4, b"SCALADO\0"): "",
    (0xEA, b"AROT\0"): "gain_map",
    (0xEB, b"HDR_RI"): "gain_map",
    (0xEE, b"Adobe"): "",
}
_MAY_HOLD_PREVIEWS = (0xE2, 0xE3, 0xE4, 0xE5)
_FULL = 60_000  # bytes of a segment, after which the next goes on


def settings(image: Image.Image, data: bytes) -> tuple[dict[str, Any], set[str]]:
    """What keeps the output close to the input, and what the output does not have.

    Args:
      image: the file, opened by Pillow.
      data: the file.

    Returns:
      `segments`, the bytes of the metadata, and keyword arguments of Pillow's encoder; and names
      in `LOST`.
    """
    found = markers.metadata(data)
    parts, lost = _without_stale(found)
    parts = _with_xmp(parts, lost)
    lost |= behind.lost(found, data[markers.end(data) or len(data) :], lost)
    if image.info.get("progressive"):
        lost.add("progressive")
    if markers.frame(data)[0] == 0xC3:
        lost.add("lossless_jpeg")
    return {"segments": markers.joined(parts), **_encoding(image)}, lost - {""}


def unread(data: bytes) -> str | None:
    """What is special of a file that cannot be decoded; None if it is of the usual kinds."""
    try:
        marker, bits = markers.frame(data)
    except (ValueError, IndexError):
        return None
    if marker == 0xF7:
        return "is a JPEG-LS file"
    if bits != 8:
        return f"is a JPEG file of {bits} bits a sample"
    if marker in (0xC3, 0xC7, 0xCB, 0xCF):
        return "is a lossless JPEG file"
    if marker in (0xC9, 0xCA):
        return "is a JPEG file of arithmetic coding"
    return None if marker < 0xC3 else "is a hierarchical JPEG file"


def completed(data: bytes) -> bytes:
    """Returns a file with its end marker, which some cameras and tools leave out.

    Raises:
      InputError: the file ends before its picture does; without the file's name.
    """
    scan = next(
        (start for marker, start, _ in markers.segments(data) if marker == markers.SCAN), len(data)
    )
    if data.find(markers.END, scan) >= 0:
        return data
    # libjpeg makes pixels of whatever follows, and grey ones of nothing. So what follows must not
    # matter. Zeros, as an interrupted download leaves, are nothing.
    whole = data.rstrip(b"\0")
    with (
        Image.open(io.BytesIO(whole + markers.END), formats=["JPEG"]) as image,
        Image.open(io.BytesIO(whole + b"\x55" * 64 + markers.END), formats=["JPEG"]) as other,
    ):
        if scan < len(whole) and image.tobytes() == other.tobytes():
            return whole + markers.END
    raise InputError("is truncated: the end of the picture is missing; get the whole file")


def with_segments(encoded: bytes, segments: bytes) -> bytes:
    """Puts `segments` in place of those that Pillow wrote."""
    for marker, start, _ in markers.segments(encoded):
        if not markers.is_metadata(marker):
            return encoded[:2] + segments + encoded[start:]
    raise ValueError("no picture in the JPEG file")


def renewed(segments: bytes, array: np.ndarray) -> tuple[bytes, bool]:
    """Segments with the EXIF thumbnail of other pixels; see `exif.renewed`."""
    parts, lost = [], False
    for marker, body in _parts(segments):
        if marker == 0xE1 and body.startswith(EXIF_LABEL):
            block, gone = exif.renewed(body[len(EXIF_LABEL) :], array, exif.MOST_IN_JPEG)
            body, lost = EXIF_LABEL + block, lost or gone
        parts.append((marker, body))
    return markers.joined(parts), lost


def without_profile(segments: bytes) -> bytes:
    """Segments without the ICC profile."""
    parts = [(m, body) for m, body in _parts(segments) if not body.startswith(_ICC_LABEL)]
    return markers.joined(parts)


def holds_more(segments: bytes) -> bool:
    """Whether there is what other formats have no place for: comments, IPTC, long XMP and more."""
    common = (b"JFIF\0", EXIF_LABEL, _XMP_LABEL, _ICC_LABEL)
    return any(not body.startswith(common) for _, body in _parts(segments))


def _parts(segments: bytes) -> list[tuple[int, bytes]]:
    end = bytes((0xFF, markers.SCAN, 0, 2))
    return markers.metadata(START[:2] + segments + end)


def _encoding(image: Image.Image) -> dict[str, Any]:
    # -1 stands for grey and for ratios that Pillow cannot write. Progressive is not kept: Pillow
    # fails on noisy pictures then, whose bytes outgrow its buffer.
    options: dict[str, Any] = {"subsampling": max(0, JpegImagePlugin.get_sampling(image))}
    tables = getattr(image, "quantization", {})
    if set(tables) in ({0}, {0, 1}) and sum(tables[0]) < _luma_sum_at_95():
        options["qtables"] = tables
    return options


@functools.cache
def _luma_sum_at_95() -> int:
    encoded = io.BytesIO()
    Image.new("L", (8, 8)).save(encoded, "JPEG", quality=95)
    with Image.open(encoded) as image:
        return sum(image.quantization[0])  # pyright: ignore[reportAttributeAccessIssue]


def _without_stale(parts: list[tuple[int, bytes]]) -> tuple[list[tuple[int, bytes]], set[str]]:
    """The segments that hold for other pixels, and what is lost with the others."""
    kept, lost = [], set()
    boxes = _boxes(parts)
    going_on = 0  # the marker of a segment that was full of a preview
    for marker, body in parts:
        stale = next(
            (name for (m, label), name in _STALE.items() if m == marker and body.startswith(label)),
            None,
        )
        if stale is None and marker == 0xEB:
            stale = boxes.get(body[:4])
        if stale is None and marker in _MAY_HOLD_PREVIEWS and not body.startswith(_ICC_LABEL):
            stale = "previews" if START in body or marker == going_on else None
        going_on = marker if stale == "previews" and len(body) > _FULL else 0
        if stale is not None:
            lost.add(stale)
            continue
        if marker == 0xE0 and body.startswith(b"JFIF\0") and body[12:14].strip(b"\0"):
            body = body[:12] + b"\0\0"
            lost.add("previews")
        kept.append((marker, body))
    if any(body.startswith(photoshop.LABEL) for _, body in kept):
        kept = _without_photoshops_thumbnails(kept, lost)
    return kept, lost


def _boxes(parts: list[tuple[int, bytes]]) -> dict[bytes, str | None]:
    """What is lost with the boxes in APP11, by the start of their segments; None with no pixels."""
    stale: dict[bytes, str | None] = {}
    for marker, body in parts:
        if marker != 0xEB or body[:2] != b"JP" or body[:4] in stale:
            continue
        size = int.from_bytes(body[8:12])
        at = 16 + 8 * (size == 1)  # behind the header of the box, a long one
        content = body[at + 8 : at + 12] if body[12:16] == b"jumb" else b""
        # Pictures, and what is added to this one, are of other pixels; texts are not.
        known = {b"c2pa": "c2pa", b"json": None, b"xml ": None, b"": "gain_map"}
        stale[body[:4]] = known.get(content, "previews")
    return stale


def _without_photoshops_thumbnails(
    parts: list[tuple[int, bytes]], lost: set[str]
) -> list[tuple[int, bytes]]:
    """Long resources are in several segments, and parsed as one."""
    at = [i for i, (_, body) in enumerate(parts) if body.startswith(photoshop.LABEL)]
    joined = b"".join(parts[i][1][len(photoshop.LABEL) :] for i in at)
    left = photoshop.without_thumbnails(joined)
    if left == joined:
        return parts
    lost.add("previews")
    most = 65533 - len(photoshop.LABEL)
    pieces = [left[i : i + most] for i in range(0, len(left), most)]
    new = [(parts[at[0]][0], photoshop.LABEL + piece) for piece in pieces]
    after = [part for i, part in enumerate(parts) if i > at[0] and i not in at]
    return parts[: at[0]] + new + after


def _with_xmp(parts: list[tuple[int, bytes]], lost: set[str]) -> list[tuple[int, bytes]]:
    """Segments whose XMP holds for other pixels: the packet's, and those of its extension."""
    extension = _extension(parts)
    new, guid = None, b""
    if extension is not None:
        new = xmp.cleaned(extension)
        lost |= new.lost
        guid = hashlib.md5(new.packet, usedforsecurity=False).hexdigest().upper().encode()
    kept: list[tuple[int, bytes]] = []
    for marker, body in parts:
        if body.startswith(_EXTENSION_LABEL) and new is not None and new.packet != extension:
            if _offset_of(body) == 0 and not new.empty:
                kept += [(marker, piece) for piece in _extension_segments(new.packet, guid)]
            continue
        if marker == 0xE1 and body.startswith(_XMP_LABEL):
            packet = xmp.cleaned(body[len(_XMP_LABEL) :], extended=new is None or not new.empty)
            lost |= packet.lost
            if not packet.packet:
                continue
            body = _XMP_LABEL + packet.packet
            if new is not None and new.packet != extension:
                body = body.replace(_guid_of(parts), guid)
        kept.append((marker, body))
    return kept


def _guid_of(parts: list[tuple[int, bytes]]) -> bytes:
    first = next(body for _, body in parts if body.startswith(_EXTENSION_LABEL))
    return first[len(_EXTENSION_LABEL) :][:32]


def _offset_of(body: bytes) -> int:
    return int.from_bytes(body[len(_EXTENSION_LABEL) + 36 :][:4])


def _extension(parts: list[tuple[int, bytes]]) -> bytes | None:
    """The extended packet, whole or not; None if there is none."""
    bodies = [b[len(_EXTENSION_LABEL) :] for _, b in parts if b.startswith(_EXTENSION_LABEL)]
    if not bodies:
        return None
    pieces = sorted((int.from_bytes(body[36:40]), body[40:]) for body in bodies)
    return b"".join(piece for _, piece in pieces)


def _extension_segments(packet: bytes, guid: bytes) -> list[bytes]:
    return [
        _EXTENSION_LABEL
        + guid
        + struct.pack(">II", len(packet), start)
        + packet[start : start + _MOST_OF_EXTENSION]
        for start in range(0, len(packet), _MOST_OF_EXTENSION)
    ]

"""Metadata in PNG's chunks of text: XMP packets, and profiles as ImageMagick writes them."""

from __future__ import annotations

import re
import zlib

from jaxdeblur.media.metadata import photoshop, xmp

KINDS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp"
_PROFILE = re.compile(rb"Raw profile type (exif|APP1|xmp|8bim)\Z")
_MOST = 2**26  # bytes of a text
_EXIF_LABEL, _XMP_LABEL = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def is_metadata(body: bytes) -> bool:
    """Whether a chunk holds what other formats have a place for: XMP, EXIF, profiles."""
    keyword = body.partition(b"\0")[0]
    return keyword == _XMP or keyword.startswith(b"Raw profile type ")


def cleaned(kind: bytes, body: bytes, lost: set[str]) -> bytes:
    """A chunk's contents that hold for other pixels; adds to `lost` what it spoke of."""
    keyword = body.partition(b"\0")[0]
    if kind == b"iTXt" and keyword == _XMP:
        return _cleaned_packet(body, lost)
    name, payload = _profile(kind, body)
    new = payload
    if name == b"8bim":
        new = photoshop.without_thumbnails(payload)
        lost |= {"previews"} if new != payload else set()
    elif name == b"xmp" or payload.startswith(_XMP_LABEL):
        label = _XMP_LABEL if payload.startswith(_XMP_LABEL) else b""
        packet = xmp.cleaned(payload[len(label) :])
        lost |= packet.lost
        new = label + packet.packet
    return body if new == payload else _with_profile(kind, body, new)


def exif(kind: bytes, body: bytes) -> bytes:
    """The EXIF block in a chunk; none if it has none."""
    name, payload = _profile(kind, body)
    if name == b"exif" or payload.startswith(_EXIF_LABEL):
        return payload.removeprefix(_EXIF_LABEL)
    return b""


def with_exif(kind: bytes, body: bytes, block: bytes) -> bytes:
    """A chunk that has an EXIF block, with another one."""
    _, payload = _profile(kind, body)
    label = _EXIF_LABEL if payload.startswith(_EXIF_LABEL) else b""
    return _with_profile(kind, body, label + block)


def _cleaned_packet(body: bytes, lost: set[str]) -> bytes:
    # Behind the keyword: whether and how the text is compressed, a language, the keyword in it.
    start = len(_XMP) + 3
    try:
        start = body.index(b"\0", body.index(b"\0", start) + 1) + 1
        text = _inflated(body[start:]) if body[len(_XMP) + 1] else body[start:]
    except (ValueError, IndexError, zlib.error):
        return body
    packet = xmp.cleaned(text)
    if packet.packet == text:
        return body
    lost |= packet.lost
    return body[:start] + (zlib.compress(packet.packet) if body[len(_XMP) + 1] else packet.packet)


def _profile(kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Name and bytes of ImageMagick's profile: a name, a length and hexadecimal digits in text."""
    keyword, _, text = body.partition(b"\0")
    match = _PROFILE.match(keyword)
    if not match or kind == b"iTXt":
        return b"", b""
    try:
        text = _inflated(text[1:]) if kind == b"zTXt" else text
        _, length, digits = text.strip().split(None, 2)
        return match[1], bytes.fromhex(digits.decode("ascii"))[: int(length)]
    except (ValueError, zlib.error):
        return b"", b""


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, _MOST)
    if inflater.unconsumed_tail:
        raise ValueError("a text without end")
    return text


def _with_profile(kind: bytes, body: bytes, payload: bytes) -> bytes:
    keyword = body.partition(b"\0")[0]
    digits = re.sub("(.{72})", r"\1\n", payload.hex())
    name = keyword.rpartition(b" ")[2].decode()
    text = f"\n{name}\n{len(payload):8}\n{digits}\n".encode()
    return keyword + b"\0" + (b"\0" + zlib.compress(text) if kind == b"zTXt" else text)

"""Whether a video file was cut or damaged, where its bytes tell; FFmpeg would just end early."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

_HEAD = 1 << 16  # bytes in which the headers that tell the size are

_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_BROADCAST = 1  # a flag of ASF: what the properties tell is not of this file
_MXF_PARTITION = bytes.fromhex("060e2b34020501010d01020101")

_OGG_HEADER = 27  # bytes, before the sizes of a page's parts
_OGG_END = 4  # a flag of the last page of a stream
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def fault(path: Path) -> str:
    """What goes after "the file is", such as "cut short (9 of 99 bytes)"; "" if nothing is seen."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
        promised = promised_size(head)
        if size < promised:
            return f"cut short ({size} of {promised} bytes)"
        return _ogg_fault(file, size) if head.startswith(b"OggS") else ""


def promised_size(head: bytes) -> int:
    """The least bytes of a file according to its beginning; 0 if that does not tell."""
    if head.startswith(b"RIFF"):
        length = int.from_bytes(head[4:8], "little")
        return length if length < 2**32 - 1 else 0
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _matroska_size(head[:4096])
    if head.startswith(_MXF_PARTITION):
        return _mxf_size(head)
    start = head.find(_ASF_PROPERTIES)
    if head.startswith(b"\x30\x26\xb2\x75") and 0 <= start <= len(head) - 104:
        flags = int.from_bytes(head[start + 88 : start + 92], "little")
        return 0 if flags & _BROADCAST else int.from_bytes(head[start + 40 : start + 48], "little")
    return 0


def _matroska_size(head: bytes) -> int:
    start = head.find(b"\x18\x53\x80\x67") + 4  # the element that holds all the rest
    if not 4 <= start < len(head) or not head[start]:
        return 0
    length = 9 - head[start].bit_length()
    unknown = 2 ** (7 * length) - 1
    promised = int.from_bytes(head[start : start + length], "big") & unknown
    return 0 if promised == unknown else start + length + promised


def _mxf_size(head: bytes) -> int:
    """Where the footer is, whose first byte at least must be there."""
    if len(head) < 17:
        return 0
    length = head[16] & 0x7F if head[16] & 0x80 else 0  # of the length that follows the key
    start = 17 + length + 24  # behind the version, the grid and two positions
    footer = int.from_bytes(head[start : start + 8], "big")
    return footer + 1 if footer else 0


def _ogg_fault(file: BinaryIO, size: int) -> str:
    """See `fault`: of pages, each with a checksum, the last of which says that it is the last."""
    start = flags = 0
    while start < size:
        file.seek(start)
        header = file.read(_OGG_HEADER)
        parts = file.read(header[26]) if len(header) == _OGG_HEADER else b""
        body = file.read(sum(parts))
        end = start + len(header) + len(parts) + sum(parts)
        if len(header) < _OGG_HEADER or len(parts) < header[26] or end > size:
            return f"cut short (in a page from byte {start} on)"
        page = header[:22] + bytes(4) + header[26:] + parts + body
        if not header.startswith(b"OggS") or _ogg_checksum(page) != header[22:26]:
            return f"damaged (a page from byte {start} on)"
        start, flags = end, header[5]
    return "" if flags & _OGG_END else "cut short (without its last page)"


def _ogg_checksum(page: bytes) -> bytes:
    """The checksum of RFC 3533: that of zlib, but with all bits reversed and without its masks."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return mirrored.to_bytes(4, "big").translate(_REVERSED)

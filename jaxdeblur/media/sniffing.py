"""Tells videos from photographs by the first bytes of a file."""

from __future__ import annotations

import stat
from pathlib import Path

from jaxdeblur.media.formats import heif

_LENGTH = 1024  # bytes that are looked at

_STARTS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"OggS",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",  # MXF
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG-1 or MPEG-2 without a container
    b"DKIF",  # IVF
    b"nut/multimedia container",
    b"YUV4MPEG2 ",
)

_PHOTO_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
_PHOTO_STARTS += (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# ISO/IEC 14496-12: the kinds of box that such a file begins with, and the brands of photographs.
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_PHOTO_BRANDS = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"heif"),
    *(b"mif1", b"mif2", b"msf1", b"miaf", b"avif", b"avis", b"jpeg", b"jpgs", b"crx "),
)
_VIDEO_BRANDS = (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V ")

_SYNC = 0x47  # the first byte of every packet of an MPEG transport stream
_PACKETS = ((0, 188), (4, 192))  # where the first one has it, and how long they are


def is_video(head: bytes) -> bool:
    """Whether a file that begins so is a video; False also of what is not known."""
    if head[4:8] in _FIRST_BOXES:
        return not _is_iso_photo(head)
    if head.startswith(b"RIFF"):
        return head[8:12] == b"AVI "
    return head.startswith(_STARTS) or _is_transport_stream(head)


def is_photo(head: bytes) -> bool:
    """Whether a file that begins so is a photograph; False also of what is not known."""
    webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return webp or head.startswith(_PHOTO_STARTS) or _is_iso_photo(head)


def may_be_photo(head: bytes) -> bool:
    """Whether a file of which no more than 8 bytes are known can be a photograph."""
    return head.startswith((*_PHOTO_STARTS, b"RIFF")) or head[4:8] == b"ftyp"


def _is_iso_photo(head: bytes) -> bool:
    """Whether a file that begins so is a photograph in boxes, such as HEIC, AVIF or CR3."""
    brands = heif.brands(head)
    if brands and head[8:12] in _PHOTO_BRANDS:
        return True
    return not brands.isdisjoint(_PHOTO_BRANDS) and brands.isdisjoint(_VIDEO_BRANDS)


def head_of(path: Path) -> bytes:
    """The first bytes of a file; b"" of what is none, or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would take from it
            return b""
        with path.open("rb") as file:
            return file.read(_LENGTH)
    except (OSError, ValueError):
        return b""


def _is_transport_stream(head: bytes) -> bool:
    for first, length in _PACKETS:
        syncs = head[first::length]
        if len(syncs) >= 3 and set(syncs) == {_SYNC}:
            return True
    return False

"""Photoshop's image resources, which JPEG and TIFF files carry."""

from __future__ import annotations

import struct

LABEL = b"Photoshop 3.0\0"  # before them, in a JPEG segment

_SIGNATURES = (b"8BIM", b"PHUT", b"AgHg", b"DCSR", b"MeSa")
_THUMBNAILS = (0x0409, 0x040C)


def without_thumbnails(resources: bytes) -> bytes:
    """Takes the thumbnails out; what cannot be parsed stays as it is."""
    kept, start = [], 0
    try:
        while start < len(resources):
            if resources[start : start + 4] not in _SIGNATURES:
                if any(resources[start:]):
                    return resources
                break
            (number,) = struct.unpack_from(">H", resources, start + 4)
            at = start + 6 + (resources[start + 6] // 2 + 1) * 2  # a name of even length, with its
            (size,) = struct.unpack_from(">I", resources, at)
            stop = at + 4 + size + size % 2
            if at + 4 + size > len(resources):
                return resources
            if number not in _THUMBNAILS:
                kept.append(resources[start:stop])
            start = stop
    except (struct.error, IndexError):
        return resources
    return b"".join([*kept, resources[start:]])

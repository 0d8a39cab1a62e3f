"""What phones and cameras put behind the picture of a JPEG file."""

from __future__ import annotations

import re
import struct

from jaxdeblur.media.metadata import markers

INDEX_LABEL = b"MPF\0"  # of the segment that lists several pictures

# What lies behind the picture, by its marks.
_MARKS = {
    "gain_map": re.compile(rb"hdr-gain-map|aux:hdrgainmap|urn:iso:std:iso:ts:21496"),
    "motion_photo": re.compile(rb"MotionPhoto_Data|\0\0\0[\x08-\xff]ftyp"),
    "depth_map": re.compile(rb"DepthMap|aux:depth|aux:disparity|auxiliary:depth"),
}


def lost(parts: list[tuple[int, bytes]], behind: bytes, known: set[str]) -> set[str]:
    """Names in `LOST` of what the bytes behind the picture hold.

    Args:
      parts: marker and body of the metadata segments.
      behind: the bytes behind the end marker.
      known: names of what the segments told already.
    """
    names = {name for name, marks in _MARKS.items() if marks.search(behind)}
    kinds = {kind >> 16 for kind in _kinds_of_pictures(parts)}  # 1: large thumbnails; 2: several
    if 1 in kinds:
        names.add("previews")
    if 2 in kinds or (0 in kinds and not (names | known) & {"gain_map", "depth_map"}):
        names.add("pictures")
    if markers.START in behind and not (names | known) & {*_MARKS, "pictures", "previews"}:
        names.add("previews")
    return names


def _kinds_of_pictures(parts: list[tuple[int, bytes]]) -> list[int]:
    """The types of the pictures after the first in the multi-picture index, CIPA DC-007."""
    index = next((body[4:] for _, body in parts if body.startswith(INDEX_LABEL)), b"")
    order = "<" if index[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", index, 4)
        (count,) = struct.unpack_from(order + "H", index, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, size, place = struct.unpack_from(order + "HHII", index, at)
            if tag == 0xB002:
                entries = struct.iter_unpack(order + "I12x", index[place:][: size // 16 * 16])
                return [kind & 0xFFFFFF for (kind,) in entries][1:]
    except struct.error:
        pass
    return []

"""Which directory of a TIFF file has its picture, and how many pictures the file holds."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from jaxdeblur.errors import InputError
from jaxdeblur.media import lost
from jaxdeblur.media.metadata.common import check_size

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

RAW = "is the raw file of a camera; develop it first, to a TIFF file"

RAW_MAGIC = (
    b"IIRO",
    b"IIRS",
    b"MMOR",
    b"IIU\0",
    b"FUJIFILMCCD-RAW",
    b"FOVb",
    b"\0MRM",
    b"II\x1a\0",
)
"""Starts of the files of cameras that are no TIFF files."""

_MASK = 4  # photometric
_SENSOR = (32803, 34892)  # photometric: one colour a pixel, and linear values of a sensor
_DNG_VERSION, _STACK_PLANES = 50706, 33629
_MOST_COPIES = 64  # looked at below a directory


def picture(file: TiffFile) -> TiffPage:
    """The directory of a file's only picture; tells if there are others (reduced ones, masks).

    Raises:
      InputError: the file is a raw one, or holds several pictures.
    """
    best, rank, count, directories = None, (False, 0), 0, 0
    for page, below in _directories(file):
        if page.photometric in _SENSOR or _DNG_VERSION in page.tags:
            raise InputError(RAW)
        pixels = page.imagewidth * page.imagelength
        directories += pixels > 0
        if pixels and not (page.is_reduced or page.is_mask or page.photometric == _MASK):
            count += not below
            if (not below, pixels) > rank:
                best, rank = page, (not below, pixels)
    if best is None and directories:
        raise InputError(
            "has only reduced copies; if it is the raw file of a camera, develop it first"
        )
    if best is None:
        if file.pages and {256, 257}.issubset(tag.code for tag in file.pages.first.tags):
            check_size(file.pages.first.imagewidth, file.pages.first.imagelength)
        raise InputError("is damaged or truncated: it has no picture; get the whole file")
    count = max(count, _count_in(best))
    if count > 1:
        raise InputError(f"has {count} frames, pages or slices; give a file with a single picture")
    if directories > 1:
        lost.tell("copies")
    return best


def _directories(file: TiffFile) -> Iterator[tuple[TiffPage, bool]]:
    """Yields the directories, and those below them with True."""
    file.filehandle.seek(8)
    if file.filehandle.read(2) == b"CR" and not file.is_bigtiff:
        raise InputError(RAW)  # of Canon
    seen: set[int] = set()
    for page in file.pages:
        if page.offset in seen:  # they go round in a circle
            break
        seen.add(page.offset)
        yield page, False  # pyright: ignore[reportReturnType]
        # A copy that is damaged, which raises anything, costs no picture.
        with contextlib.suppress(Exception):
            for copy in itertools.islice(page.pages or (), _MOST_COPIES):
                yield copy, True  # pyright: ignore[reportReturnType]


def _count_in(page: TiffPage) -> int:
    """How many pictures a directory tells of: by its tags, or by a description in it."""
    counts = [page.imagedepth]
    if planes := page.tags.get(_STACK_PLANES):
        counts.append(planes.count)
    if page.imagej_description:
        told = dict(re.findall(r"^(\w+)=(\d+)\s*$", page.imagej_description, re.MULTILINE))
        axes = [int(told.get(axis, 1)) for axis in ("channels", "slices", "frames")]
        count = max(int(told.get("images", 1)), math.prod(axes))
        # Some programs call the samples of a pixel channels.
        counts.append(count // (axes[0] if axes[0] == page.samplesperpixel else 1))
    if page.shaped_description:
        shape = re.search(r'shape"?\s*[:=]\s*[\[(]([\d,\s]+)', page.shaped_description)
        sizes = json.loads(f"[{shape[1].strip().rstrip(',')}]") if shape else []
        count, rest = divmod(math.prod(sizes), math.prod(page.shape))
        counts.append(1 if rest else count)  # else the description is one of another picture
    if page.is_ome:
        with contextlib.suppress(ElementTree.ParseError):
            root = ElementTree.fromstring(page.description)
            each = [
                math.prod(int(pixels.get(f"Size{axis}", 1)) for axis in "ZCT")
                for pixels in root.iterfind(".//{*}Pixels")
            ]
            counts.append(sum(max(1, planes // page.samplesperpixel) for planes in each))
    return max(counts)

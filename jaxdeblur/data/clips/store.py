"""A store of clips from which parts of frames are read without decoding whole files.

It is a folder, or a prefix of an object store (`gs://`, `s3://`), with an `index.json` and for each
clip one zarr array `[2, frames, H, W, 3]` of uint8, first the blurred frames, then the sharp. The
arrays are cut into squares, compressed without loss, eight frames of them a file; any reader of
zarr version 3 opens them. A clip is in the index only when its array is whole.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from jaxdeblur.data.clips.frames import Clip, Part
from jaxdeblur.errors import InputError

FORMAT = "jaxdeblur frames 1"
INDEX = "index.json"
_KINDS = ("blurred", "sharp")

_PATIENCE = 60  # seconds, for an address to answer; TensorStore by itself tries for many minutes


def is_store(data_dir: str | os.PathLike[str]) -> bool:
    """Whether it is a store: a folder with an index, or an address such as `gs://bucket/reds`."""
    return "://" in os.fspath(data_dir) or (Path(data_dir).expanduser() / INDEX).is_file()


@dataclasses.dataclass(frozen=True)
class Index:
    """What a store says of itself.

    Attributes:
      variant: which blurred frames it holds.
      num_clips: of the whole store.
      clips: that are in it already.
    """

    variant: str
    num_clips: int
    clips: list[Clip]

    @property
    def missing(self) -> int:
        """How many clips an interrupted `write` has left out."""
        return self.num_clips - len(self.clips)


def open_store(data_dir: str | os.PathLike[str], variant: str) -> Index:
    """Reads the index of a store.

    Args:
      data_dir: the store.
      variant: which blurred frames it should hold.

    Raises:
      InputError: there is no store, its index is damaged, or it holds another variant.
    """
    try:
        store = tensorstore.KvStore.open(_key_values(data_dir)).result()
        content = json.loads(store.read(INDEX).result(timeout=_PATIENCE).value)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        clips = [
            Clip(c["split"], c["name"], tuple(c["frames"]), tuple(c["size"]))
            for c in content["clips"]
        ]
        index = Index(content["variant"], int(content["num_clips"]), clips)
    except (KeyError, TypeError, ValueError, OSError) as error:
        name = f"{os.fspath(data_dir).rstrip('/')}/{INDEX}"
        raise InputError(
            f"{name} is no index of frames ({error}); make the store again with "
            "`jaxdeblur prepare frames`"
        ) from error
    if index.variant != variant:
        raise InputError(
            f"the store {os.fspath(data_dir)!r} holds {index.variant!r} frames, not {variant!r}"
        )
    return index


class StoreReader:
    """Reads windows of frames.

    Args:
      path: the store.
      clips: those of its index that are read.
    """

    def __init__(self, path: str | os.PathLike[str], clips: Sequence[Clip]):
        self._path = path
        self._clips = clips
        self._open = functools.cache(self._open_clip)  # arrays are opened when first read

    def __call__(self, parts: Sequence[Part]) -> list[np.ndarray]:
        try:
            reads = [
                self._open(part.clip)[_KINDS.index(part.kind), part.frame][part.window.slices]
                for part in parts
            ]
            reads = [read.read() for read in reads]  # all asked for before the first is waited for
            return [read.result() for read in reads]
        except (ValueError, OSError) as error:
            raise InputError(
                f"the store {os.fspath(self._path)!r} cannot be read ({error}); if it is damaged, "
                "remove it and run `jaxdeblur prepare frames` again"
            ) from error

    def _open_clip(self, number: int) -> tensorstore.TensorStore:
        spec = location(self._path, self._clips[number])
        # A file that is missing is an error, not black.
        spec |= {"recheck_cached_data": "open", "fill_missing_data_reads": False}
        return tensorstore.open(spec, read=True).result()


def place(clip: Clip) -> str:
    """Where a clip's array lies below the store: its label, with bytes that are no text as %FF."""
    return "".join(
        f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter
        for letter in clip.label
    )


def _key_values(path: str | os.PathLike[str], below: str = "") -> str | dict[str, str]:
    """A folder of the store as TensorStore takes it."""
    text = os.fspath(path)
    if "://" in text:
        return f"{text.rstrip('/')}/{urllib.parse.quote(below)}"
    return {"driver": "file", "path": f"{Path(text).expanduser().absolute()}/{below}"}


def location(path: str | os.PathLike[str], clip: Clip) -> dict[str, Any]:
    """A clip's array as TensorStore takes it."""
    return {"driver": "zarr3", "kvstore": _key_values(path, f"{place(clip)}/")}

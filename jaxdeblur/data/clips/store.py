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
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from jaxdeblur.data.clips.folders import ClipFiles, read_frame
from jaxdeblur.data.clips.frames import Clip, Part
from jaxdeblur.errors import InputError
from jaxdeblur.runtime import atomic

_FORMAT = "jaxdeblur frames 1"
_INDEX = "index.json"
_KINDS = ("blurred", "sharp")

# Measured with crops of 256x256 from 1280x720: squares of 64 pixels are read as fast as those of
# 96 or 128 or faster, and zstd's first level is as small as slower ones; without compression or
# with LZ4, reading is two or three times as fast, but the store half as large again.
_SQUARE = 64
_CODEC = {"name": "zstd", "configuration": {"level": 1}}
_FRAMES_A_FILE = 8

_PATIENCE = 60  # seconds, for an address to answer; TensorStore by itself tries for many minutes


def is_store(data_dir: str | os.PathLike[str]) -> bool:
    """Whether it is a store: a folder with an index, or an address such as `gs://bucket/reds`."""
    return "://" in os.fspath(data_dir) or (Path(data_dir).expanduser() / _INDEX).is_file()


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
        content = json.loads(store.read(_INDEX).result(timeout=_PATIENCE).value)
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        clips = [
            Clip(c["split"], c["name"], tuple(c["frames"]), tuple(c["size"]))
            for c in content["clips"]
        ]
        index = Index(content["variant"], int(content["num_clips"]), clips)
    except (KeyError, TypeError, ValueError, OSError) as error:
        name = f"{os.fspath(data_dir).rstrip('/')}/{_INDEX}"
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
        spec = _location(self._path, self._clips[number])
        # A file that is missing is an error, not black.
        spec |= {"recheck_cached_data": "open", "fill_missing_data_reads": False}
        return tensorstore.open(spec, read=True).result()


def write(
    clips: Sequence[ClipFiles],
    path: str | os.PathLike[str],
    variant: str,
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Writes a store, or goes on with one that was interrupted.

    Args:
      clips: what to store.
      path: folder; made where missing.
      variant: which blurred frames the clips have.
      progress: called with the number of frames, blurred and sharp, that are stored.

    Raises:
      InputError: a damaged frame, a full disk, or a folder of something else. The clips that were
        stored before stay, and the next call goes on after them.
    """
    if "://" in os.fspath(path):
        raise InputError(f"{path} is no folder; write the store to one and copy it there")
    folder = Path(path).expanduser()
    stored = _claim(folder, variant, len(clips))
    known = {clip.label: clip for clip in stored}
    done = 0
    for clip in clips:
        summary = Clip(clip.split, clip.name, clip.frames, clip.size)
        if clip.label not in known:
            before = done
            for count in _write_clip(folder, clip, summary):
                progress(before + count)
            stored.append(summary)
            _write_index(folder, Index(variant, len(clips), stored))
        elif known[clip.label] != summary:
            raise InputError(
                f"the store {str(path)!r} holds another {clip.label} (other frames or another "
                "size); give a new folder"
            )
        done += 2 * len(clip.frames)
        progress(done)


def _claim(folder: Path, variant: str, num_clips: int) -> list[Clip]:
    """Returns the clips of an unfinished store, or begins a new one."""
    if is_store(folder):
        return open_store(folder, variant).clips
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    if occupied:
        raise InputError(f"{folder} holds other files; give a new folder")
    _write_index(folder, Index(variant, num_clips, []))
    return []


def _write_index(folder: Path, index: Index) -> None:
    content = {"format": _FORMAT, **dataclasses.asdict(index)}
    with atomic.replacing(folder / _INDEX, overwrite=True) as partial:
        partial.write_text(json.dumps(content) + "\n")


def _write_clip(folder: Path, clip: ClipFiles, summary: Clip) -> Iterator[int]:
    """Writes the array of one clip; yields the number of frames written, file by file."""
    array_folder = folder / clip.label
    try:
        if array_folder.exists():  # of an interrupted run
            shutil.rmtree(array_folder)
        metadata = _metadata(len(clip.frames), clip.size)
        spec = _location(folder, summary) | {
            "metadata": metadata,
            "store_data_equal_to_fill_value": True,  # black as well
        }
        array = tensorstore.open(spec, create=True).result()
        with ThreadPoolExecutor() as threads:
            for first in range(0, len(clip.frames), _FRAMES_A_FILE):
                chosen = slice(first, first + _FRAMES_A_FILE)
                files = clip.blurred[chosen] + clip.sharp[chosen]
                decode = functools.partial(read_frame, size=clip.size)
                frames = np.stack(list(threads.map(decode, files)))
                frames = frames.reshape(2, -1, *frames.shape[1:])
                array[:, first : first + frames.shape[1]].write(frames).result()
                yield 2 * (first + frames.shape[1])
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{array_folder}: cannot be written ({error}); the clips before it are whole, and the "
            "same command goes on after them"
        ) from error


def _key_values(path: str | os.PathLike[str], below: str = "") -> str | dict[str, str]:
    """A folder of the store as TensorStore takes it."""
    text = os.fspath(path)
    if "://" in text:
        return f"{text.rstrip('/')}/{urllib.parse.quote(below)}"
    return {"driver": "file", "path": f"{Path(text).expanduser().absolute()}/{below}"}


def _location(path: str | os.PathLike[str], clip: Clip) -> dict[str, Any]:
    """A clip's array as TensorStore takes it."""
    return {"driver": "zarr3", "kvstore": _key_values(path, f"{clip.label}/")}


def _metadata(frames: int, size: tuple[int, int]) -> dict[str, Any]:
    height, width = (-(-length // _SQUARE) * _SQUARE for length in size)
    file = [2, min(frames, _FRAMES_A_FILE), height, width, 3]
    square = [1, 1, _SQUARE, _SQUARE, 3]
    codecs = [{"name": "bytes"}, _CODEC]
    sharding = {"chunk_shape": square, "codecs": codecs}
    return {
        "shape": [2, frames, *size, 3],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": file}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }

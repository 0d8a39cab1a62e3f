"""Writes a store of clips, see `store`, clip after clip."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np
import tensorstore

from jaxdeblur.data.clips import store
from jaxdeblur.data.clips.folders import ClipFiles, read_frame
from jaxdeblur.data.clips.frames import Clip
from jaxdeblur.errors import InputError
from jaxdeblur.runtime import atomic, locks, paths

_METADATA, _CHUNKS = "zarr.json", "c"  # what zarr puts into the folder of an array
_PASSING = ".jaxdeblur-"  # begins the names of locks, and of files in the making

# Measured with crops of 256x256 from 1280x720: squares of 64 pixels are read as fast as those of
# 96 or 128 or faster, and zstd's first level is as small as slower ones; without compression or
# with LZ4, reading is two or three times as fast, but the store half as large again.
_SQUARE = 64
_CODEC = {"name": "zstd", "configuration": {"level": 1}}
_FRAMES_A_FILE = 8


def _raise(error: InputError) -> NoReturn:
    raise error


def write(
    clips: Sequence[ClipFiles],
    path: str | os.PathLike[str],
    variant: str,
    progress: Callable[[int], None] = lambda count: None,
    *,
    failed: Callable[[InputError], None] = _raise,
    unusable: int = 0,
) -> None:
    """Writes a store, or goes on with one that was interrupted.

    Args:
      clips: what to store.
      path: folder; made where missing. While another process writes to it, it is waited for.
      variant: which blurred frames the clips have.
      progress: called with the number of frames, blurred and sharp, that are stored.
      failed: called with what is wrong with a clip; if it returns, the other clips are stored.
      unusable: number of further clips, which cannot be stored: the index counts them as missing.

    Raises:
      InputError: a full disk, or a folder of something else; a damaged frame, or a clip that lies
        in the folder of another, by way of `failed`. The clips that were stored before stay, and
        the next call goes on after them.
    """
    if "://" in os.fspath(path):
        raise InputError(f"{path} is no folder; write the store to one and copy it there")
    folder = paths.local(path, "store")
    paths.check_text(folder, "store")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    with locks.waiting_for(folder / store.INDEX):
        atomic.remove_leftovers(folder)
        stored = _claim(folder, variant, len(clips) + unusable)
        labels = {clip.label for clip in (*stored, *clips)}
        index = store.Index(variant, len(labels) + unusable, stored)
        _write_clips(clips, folder, index, progress, failed)
        if store.open_store(folder, variant) != index:
            _write_index(folder, index)


def _write_clips(
    clips: Sequence[ClipFiles],
    folder: Path,
    index: store.Index,
    progress: Callable[[int], None],
    failed: Callable[[InputError], None],
) -> None:
    """Writes the clips that are not in the index yet, and adds them to it."""
    known = {clip.label: clip for clip in index.clips}
    places = {store.place(clip): clip.label for clip in reversed((*index.clips, *clips))}
    done = 0
    for clip in clips:
        summary = Clip(clip.split, clip.name, clip.frames, clip.size)
        try:
            if clip.label not in known:
                _check_place(clip, places, known)
                for count in _write_clip(folder, clip, summary):
                    progress(done + count)
                index.clips.append(summary)
                _write_index(folder, index)
            elif known[clip.label] != summary:
                raise _ClipError(
                    f"the store {os.fspath(folder)!r} holds another {clip.label} (other frames or "
                    "another size); give a new folder"
                )
        except _ClipError as error:
            failed(error)
        done += 2 * len(clip.frames)
        progress(done)


class _ClipError(InputError):
    """What is wrong with one clip, and does not touch the others."""


def _claim(folder: Path, variant: str, num_clips: int) -> list[Clip]:
    """Returns the clips of an unfinished store, or begins a new one."""
    if store.is_store(folder):
        return store.open_store(folder, variant).clips
    try:
        occupied = any(not path.name.startswith(_PASSING) for path in folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    if occupied:
        raise InputError(f"{folder} holds other files; give a new folder")
    _write_index(folder, store.Index(variant, num_clips, []))
    return []


def _write_index(folder: Path, index: store.Index) -> None:
    content = {"format": store.FORMAT, **dataclasses.asdict(index)}
    with atomic.replacing(folder / store.INDEX, overwrite=True) as partial:
        partial.write_text(json.dumps(content) + "\n")


def _check_place(clip: Clip, places: Mapping[str, str], known: Mapping[str, Clip]) -> None:
    """Raises an error of the clip if its array would lie where another's files do.

    Args:
      clip: one that is not stored yet.
      places: the labels of all clips, by where their arrays lie.
      known: the clips that are stored.
    """
    place = PurePosixPath(store.place(clip))
    if places[str(place)] != clip.label:
        raise _ClipError(f"{clip.label}: its name is that of {places[str(place)]} in a store")
    around = [places[str(folder)] for folder in place.parents if str(folder) in places]
    below = [other.label for other in known.values() if place in _parents(other)]
    if around or below:
        where = "in the folder of" if around else "around"
        raise _ClipError(
            f"{clip.label}: lies {where} another clip, {(around or below)[0]}, which a store "
            "cannot hold; move it elsewhere"
        )


def _parents(clip: Clip) -> Sequence[PurePosixPath]:
    return PurePosixPath(store.place(clip)).parents


def _make_room(array_folder: Path) -> None:
    """Removes what an interrupted run has left where an array is to be, and nothing else."""
    try:
        there = set(os.listdir(array_folder))
    except FileNotFoundError:
        return
    except OSError as error:  # a name that is too long, a file in the way
        raise _ClipError(f"{array_folder}: cannot be written ({error.strerror})") from error
    of_array = {name for name in there if name == _CHUNKS or name.startswith(_METADATA)}
    if there != of_array or there == {_CHUNKS}:  # zarr writes the metadata first
        raise _ClipError(f"{array_folder} holds other files; move them, or give a new folder")
    shutil.rmtree(array_folder)


def _write_clip(folder: Path, clip: ClipFiles, summary: Clip) -> Iterator[int]:
    """Writes the array of one clip; yields the number of frames written, file by file."""
    array_folder = folder / store.place(clip)
    try:
        _make_room(array_folder)
        metadata = _metadata(len(clip.frames), clip.size)
        spec = store.location(folder, summary) | {
            "metadata": metadata,
            "store_data_equal_to_fill_value": True,  # black as well
        }
        array = tensorstore.open(spec, create=True).result()
        with ThreadPoolExecutor() as threads:
            for first in range(0, len(clip.frames), _FRAMES_A_FILE):
                chosen = slice(first, first + _FRAMES_A_FILE)
                files = clip.blurred[chosen] + clip.sharp[chosen]
                decode = functools.partial(_read_frame, size=clip.size)
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


def _read_frame(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        return read_frame(path, size)
    except InputError as error:
        raise _ClipError(str(error)) from error


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

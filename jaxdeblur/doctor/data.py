"""Whether a dataset opens as training opens it, and how fast it is read."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxdeblur import remote
from jaxdeblur.data import cifar, clips, frame_store, photos, pipeline, triplets
from jaxdeblur.doctor.common import Line, reason, size

_LIMIT = 3.0  # seconds to read each split
_WINDOW = 256  # pixels, the side of what is read of a frame: the published patch
_MOST_WARNINGS = 3


def lines(folder: str, dataset: str | None, variant: str) -> Iterator[Line]:
    if not remote.is_remote(folder) and not Path(folder).expanduser().is_dir():
        yield Line("folder", f"{folder} is no folder", broken=True)
        return
    yield Line("folder", folder)
    guessed = " (guessed; see --dataset)" if dataset is None else ""
    dataset = dataset or _guess(folder)
    yield Line("dataset", f"{dataset}{guessed}")
    for split in ("train", "val", "test"):
        with _warnings() as warnings:
            line = _split(folder, dataset, variant, split)
        yield line
        for warning in warnings[:_MOST_WARNINGS]:
            yield Line("warning", warning.getMessage())
        if len(warnings) > _MOST_WARNINGS:
            yield Line("warning", f"and {len(warnings) - _MOST_WARNINGS} more")


def _guess(folder: str) -> str:
    if frame_store.is_store(folder):
        return "clips"
    root = Path(folder).expanduser()
    if (root / "cifar10").is_dir():
        return "cifar10"
    names = (name for _, folders, _ in os.walk(root) for name in folders)
    return "clips" if any(name.split("_")[-1] == "sharp" for name in names) else "photos"


@contextlib.contextmanager
def _warnings() -> Iterator[list[logging.LogRecord]]:
    """Collects what the package warns of, instead of letting it go to standard error."""
    logger = logging.getLogger("jaxdeblur")
    handler = logging.handlers.BufferingHandler(sys.maxsize)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler.buffer
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


def _split(folder: str, dataset: str, variant: str, split: str) -> Line:
    start = time.perf_counter()
    try:
        source = _open(folder, dataset, variant, split)
        opened = f"opened in {time.perf_counter() - start:.2g} s"
        height, width, _ = source.smallest_size()
        things = "frames" if isinstance(source, clips.Clips) else "images"
        found = f"{len(source):,} {things}, the smallest {width}x{height}"
        return Line(split, f"{found}, {opened}; {_speed(source)}")
    except Exception as error:
        return Line(split, reason(error), broken=split != "test")


def _open(folder: str, dataset: str, variant: str, split: str) -> pipeline.Source:
    match dataset:
        case "cifar10":
            return cifar.Cifar10(folder, split)
        case "photos":
            return photos.photo_folder(folder, split)
    return pipeline.open_clips(folder, split, variant, pipeline.CLIPS[dataset])


def _speed(source: pipeline.Source) -> str:
    """Reads in random order, nothing twice: it would come from memory."""
    rng = np.random.default_rng(0)
    count = num_bytes = 0
    seconds, start = 0.0, time.perf_counter()
    for index in rng.permutation(len(source)):
        num_bytes += _read(source, int(index), rng)
        count += 1
        seconds = time.perf_counter() - start
        if seconds > _LIMIT:
            break
    rates = f"{count / seconds:,.1f} a second, {size(num_bytes / seconds)}/s"
    return f"{count:,} read by one thread, {rates}"


def _read(source: pipeline.Source, index: int, rng: np.random.Generator) -> int:
    """Reads a sample as training does; returns the bytes of its pixels."""
    if not isinstance(source, clips.Clips):
        return source[index].nbytes
    shape = source.size(index)
    window = triplets.random_window(shape, min(_WINDOW, *shape), rng)
    return sum(part.nbytes for part in source.triplet(index, window))

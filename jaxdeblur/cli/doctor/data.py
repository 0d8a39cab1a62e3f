"""Whether a dataset opens as training opens it, and how fast it is read."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxdeblur.cli.doctor.common import Line, reason, size
from jaxdeblur.configs import default
from jaxdeblur.data import datasets
from jaxdeblur.data.source import TrainingSample
from jaxdeblur.errors import InputError, naming_extra, nearest
from jaxdeblur.workdir import remote

_LIMIT = 3.0  # seconds to read each split
_PATCH_SIZE = 256  # pixels, the side of what is read of an image: that of the recipes on frames
_MOST_WARNINGS = 3


def lines(folder: str, dataset: str | None, variant: str) -> Iterator[Line]:
    if dataset is not None and dataset not in datasets.DATASETS:
        raise InputError(f"--dataset {dataset!r}; {nearest(dataset, datasets.DATASETS)}")
    if not remote.is_remote(folder) and not Path(folder).expanduser().is_dir():
        yield Line("folder", f"{folder} is no folder", broken=True)
        return
    yield Line("folder", folder)
    guessed = " (guessed; see --dataset)" if dataset is None else ""
    dataset = dataset or datasets.guess(folder)
    assert dataset is not None  # any folder may hold photographs
    yield Line("dataset", f"{dataset}{guessed}")
    for split in ("train", "val", "test"):
        with _warnings() as warnings:
            line = _split(folder, dataset, variant, split)
        yield line
        for warning in warnings[:_MOST_WARNINGS]:
            yield Line("warning", warning.getMessage())
        if len(warnings) > _MOST_WARNINGS:
            yield Line("warning", f"and {len(warnings) - _MOST_WARNINGS} more")


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
    config = default.get_config()
    config.dataset, config.data_dir, config.blur_variant = dataset, folder, variant
    start = time.perf_counter()
    try:
        with naming_extra():
            source = datasets.DATASETS[dataset].open(config, split)
        opened = f"opened in {time.perf_counter() - start:.2g} s"
        height, width, _ = source.smallest_size()
        config.patch_size = min(_PATCH_SIZE, height, width)
        things = "frames" if source.num_frames > 1 else "images"
        found = f"{len(source):,} {things}, the smallest {width}x{height}"
        speed = _speed(source.training_sample(config), len(source))
        return Line(split, f"{found}, {opened}; {speed}")
    except Exception as error:
        return Line(split, reason(error), broken=split != "test")


def _speed(sample: TrainingSample, num_images: int) -> str:
    """Makes samples as training does, in random order, nothing twice: it would come from memory."""
    rng = np.random.default_rng(0)
    count = num_bytes = 0
    seconds, start = 0.0, time.perf_counter()
    for index in rng.permutation(num_images):
        num_bytes += sum(part.nbytes for part in sample(int(index), rng).values())
        count += 1
        seconds = time.perf_counter() - start
        if seconds > _LIMIT:
            break
    rates = f"{count / seconds:,.1f} a second, {size(num_bytes / seconds)}/s"
    return f"{count:,} read by one thread, {rates}"

"""From a source to the batches of a training or an evaluation: each process has its part of them.

A batch is `{"sharp": uint8 [B, P, P, 3], "sigma": float32 [B]}` where the jitted step is to make
the blur (`blur.make_pair`), or has `"blurred"`, like `"sharp"`, instead of `"sigma"`; of clips
`[B, P, P, 9]`. With `"index"`, int32 `[B]`, the images' numbers. Every random choice is a function
of the seed and of the sample's number, whatever the number of threads and processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxdeblur.data import epochs
from jaxdeblur.data.source import Source

if TYPE_CHECKING:
    import grain
    from ml_collections import ConfigDict

Batch = dict[str, np.ndarray]


def training_batches(
    config: ConfigDict, source: Source, first_step: int = 0
) -> grain.DatasetIterator:
    """This process's parts of an endless sequence of shuffled batches.

    Every step takes one batch, so the step says where to go on.

    Args:
      config: the samples and the global batch's size.
      source: of the images or frames.
      first_step: number of batches to leave out.

    Yields:
      A `Batch` of `batch_size` samples divided by the number of processes.
    """
    return epochs.batches(
        source.training_sample(config),
        len(source),
        config.batch_size,
        config.seed,
        first=first_step,
        share=(jax.process_index(), jax.process_count()),
    )


def evaluation_batches(config: ConfigDict, source: Source) -> Iterator[tuple[Batch, int]]:
    """This process's parts of the batches of an evaluation of patches.

    Every image or frame `eval_repeats` times, in order; the samples are always the same for the
    seed.

    Yields:
      A part of a batch of `eval_batch_size`, and how many of the whole batch count: the last one is
      filled up with copies.
    """
    sample = source.evaluation_sample(config)
    numbers = [(i, repeat) for repeat in range(config.eval_repeats) for i in range(len(source))]
    part = config.eval_batch_size // jax.process_count()
    for start in range(0, len(numbers), config.eval_batch_size):
        first = start + part * jax.process_index()
        own = [numbers[min(n, len(numbers) - 1)] for n in range(first, first + part)]
        samples = [{**sample(i, repeat), "index": np.int32(i)} for i, repeat in own]
        batch = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
        yield batch, min(config.eval_batch_size, len(numbers) - start)

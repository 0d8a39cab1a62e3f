"""The order in which a training sees its samples, and their batches, loaded by Grain's threads."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from jaxdeblur.data.source import Sample, TrainingSample
from jaxdeblur.errors import naming_extra

with naming_extra():
    import grain

_ENDLESS = 2**40  # samples


def shuffled(num_images: int, seed: int) -> Callable[[int], int]:
    """Returns the image of each sample: every image once an epoch, each in an order of its own.

    Grain's `shuffle` takes milliseconds a sample where there are only a few images.
    """

    @functools.lru_cache(maxsize=2)  # around an epoch's end, threads are in both
    def order(epoch):
        return np.random.default_rng([seed, epoch]).permutation(num_images)

    return lambda position: int(order(position // num_images)[position % num_images])


def batches(
    sample: TrainingSample,
    num_images: int,
    batch_size: int,
    seed: int,
    *,
    first: int = 0,
    share: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """One process's parts of an endless sequence of shuffled batches.

    The i-th part of a batch is that of the i-th process: joined in order, the parts are the same
    batch for any number of processes.

    Args:
      sample: makes a sample of an image's number.
      num_images: there are.
      batch_size: of the whole batch, B.
      seed: of the order, and of each sample's random choices.
      first: number of batches to leave out.
      share: the process's number, and how many there are.

    Yields:
      Samples stacked, with `index`, int32, the images' numbers.
    """
    number, count = share

    def numbered(index: int, rng: np.random.Generator) -> Sample:
        return {**sample(index, rng), "index": np.asarray(index, np.int32)}

    # Shuffle and number the samples before taking a share: the order and every sample's random
    # choices are then the same for any number of processes.
    dataset = (
        grain.MapDataset.range(_ENDLESS)
        .seed(seed)
        .map(shuffled(num_images, seed))
        .random_map(numbered)
        .batch(batch_size // count)[first * count + number :: count]
    )
    # Grain would read 500 batches ahead: seconds of all cores at the start, and their memory.
    options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
    return iter(dataset.to_iter_dataset(options))

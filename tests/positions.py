"""A source whose pixels say where they are from, and the batches of it."""

import itertools

import numpy as np

from jaxdeblur.configs import default
from jaxdeblur.data import pipeline
from jaxdeblur.data.patches import SharpImages


class Positions(SharpImages):
    """Images whose pixels say which image, row and column they are of."""

    name = title = "positions"

    def __init__(self, count, height=11, width=14):
        rows, columns = np.mgrid[:height, :width]
        self._images = [
            np.stack([np.full_like(rows, i), rows, columns], axis=-1).astype(np.uint8)
            for i in range(count)
        ]
        self.labels = [str(i) for i in range(count)]

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return self._images[index]

    def smallest_size(self):
        return (*self._images[0].shape[:2], self.name)


def make_config(**values):
    config = default.get_config()
    config.update({"patch_size": 5, "eval_patch_size": 4, "batch_size": 4, "seed": 3} | values)
    return config


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def train(config, source, count, first_step=0):
    """The first training batches; closed, as an iterator reads ahead in threads."""
    batches = pipeline.training_batches(config, source, first_step)
    try:
        return take(batches, count)
    finally:
        batches.close()


def indices(batches):
    return [int(patch[0, 0, 0]) for batch in batches for patch in batch["sharp"]]


def sigmas(batches):
    return np.concatenate([batch["sigma"] for batch in batches])


def assert_same_batches(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key])

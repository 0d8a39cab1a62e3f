import collections
import itertools

import numpy as np
import pytest
from positions import Positions, make_config, train

from jaxdeblur.data import patches, pipeline


def turns(patch):
    """The eight ways to lay a square patch, the mirrored ones last."""
    return [np.rot90(p, k) for p in (patch, patch[:, ::-1]) for k in range(4)]


def crop_under(patch, image):
    """The part of the image from which a patch was cut, found by its pixels' positions."""
    size = len(patch)
    top, left = patch[..., 1].min(), patch[..., 2].min()
    return image[top : top + size, left : left + size]


def patches_and_turns(count=5, **values):
    """Patches of one source, and for each which of the eight turns of its crop it is."""
    source = Positions(7)
    batches = train(make_config(batch_size=48, **values), source, count)
    patches = [patch for batch in batches for patch in batch["sharp"]]
    kinds = []
    for patch in patches:
        image = source[patch[0, 0, 0]]
        candidates = turns(crop_under(patch, image))
        kinds.append(next(i for i, x in enumerate(candidates) if np.array_equal(x, patch)))
    return patches, kinds


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {0}),
        ({"flip": True}, {0, 4}),
        ({"rotate": True}, {0, 1, 2, 3}),
        ({"flip": True, "rotate": True}, set(range(8))),
    ],
    ids=["none", "flip", "rotate", "both"],
)
def test_patches_are_crops_turned_as_configured(values, expected):
    _, kinds = patches_and_turns(**values)
    counts = collections.Counter(kinds)
    assert set(counts) == expected
    assert min(counts.values()) > len(kinds) / len(expected) / 2


def test_patches_come_from_everywhere():
    patches, _ = patches_and_turns(count=14)
    corners = {tuple(map(int, patch[0, 0, 1:])) for patch in patches}
    assert corners == set(itertools.product(range(11 - 5 + 1), range(14 - 5 + 1)))


def test_patch_as_large_as_the_image_is_the_image():
    source = Positions(5, 6, 6)
    batch = train(make_config(patch_size=6), source, 1)[0]
    for patch in batch["sharp"]:
        np.testing.assert_array_equal(patch, source[patch[0, 0, 0]])


@pytest.mark.parametrize(
    ("size", "rows", "columns"), [(4, (3, 7), (5, 9)), (5, (3, 8), (4, 9)), (11, (0, 11), (1, 12))]
)
def test_evaluated_patch_is_the_centre(size, rows, columns):
    config = make_config(eval_patch_size=size, eval_batch_size=2)
    [(batch, _)] = pipeline.evaluation_batches(config, Positions(2))
    for i, patch in enumerate(batch["sharp"]):
        np.testing.assert_array_equal(patch, Positions(2)[i][slice(*rows), slice(*columns)])


def test_the_margin_is_reflected_where_the_image_ends():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    padded = np.pad(image, ((5, 5), (5, 5), (0, 0)), mode="reflect")
    for top, left in ((0, 0), (12, 22), (6, 9)):
        expected = padded[top : top + 18, left : left + 18]
        np.testing.assert_array_equal(patches._cut(image, top, left, 8, 5), expected)

"""How pictures are padded and cut, by counting and against NumPy's reflection."""

import numpy as np
import pytest

from jaxdeblur import create_model
from jaxdeblur.restoring import tiling


def test_reflection_is_that_of_numpy():
    for size in (2, 3, 5):
        expected = np.pad(np.arange(size), (0, 17), mode="reflect")
        np.testing.assert_array_equal(tiling._reflect(np.arange(size + 17), size), expected)
    np.testing.assert_array_equal(tiling._reflect(np.arange(4), 1), np.zeros(4))


@pytest.mark.parametrize(
    ("length", "tile", "reach", "multiple"),
    [
        (1000, 256, (58, 58), 2),
        (1000, 104, (40, 53), 8),
        (130, 120, (20, 20), 1),
        (99, 64, (0, 9), 8),
    ],
)
def test_tiles_cover_a_line_with_their_margins(length, tile, reach, multiple):
    padded = -(-length // multiple) * multiple
    spans = tiling.cut(length, padded, tile, reach, multiple)
    assert [span.first for span in spans] == [0, *(span.stop for span in spans[:-1])]
    assert spans[-1].stop == length
    for span in spans:
        assert span.start % multiple == 0
        assert 0 <= span.start <= padded - tile
        assert span.first < span.stop
        assert span.start == 0 or span.first - span.start >= reach[0]
        assert span.start + tile == padded or span.start + tile - span.stop >= reach[1]


def test_forty_sizes_share_six_programs():
    module = create_model("atrous_net_small")
    random = np.random.default_rng(0)
    shapes = set()
    for size in random.integers(20, 5000, (400, 2)):
        plan = tiling.plan(module, tuple(size), single=True, budget=10**6)
        shapes.add(plan.shape)
        if min(size) > 3000:
            assert plan.pixels < 1.8 * size.prod()
    assert len(shapes) <= 6


def test_memory_decides_on_the_tiles_but_not_on_the_picture():
    module = create_model("atrous_net_small")
    roomy = tiling.plan(module, (2000, 1500), single=True, budget=10**6)
    scarce = tiling.plan(module, (2000, 1500), single=True, budget=200_000)
    assert 200_000 < np.prod(roomy.shape) <= 10**6
    assert np.prod(scarce.shape) <= 200_000
    for axis in (0, 1):
        ends = [
            (plan.rows, plan.columns)[axis][-1].start + plan.shape[axis] for plan in (roomy, scarce)
        ]
        assert ends[0] == ends[1]

"""How pictures are padded and cut, by counting and against NumPy's reflection."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdeblur import create_model
from jaxdeblur.restoring import tiling


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


def test_four_hundred_sizes_share_six_programs():
    module = create_model("atrous_net_small")
    random = np.random.default_rng(0)
    shapes = set()
    for size in random.integers(258, 5000, (400, 2)):
        plan = tiling.plan(module, tuple(size), single=True, budget=10**6)
        if not {480, 640, 720, 768} & {*(size + size % 2).tolist()}:
            shapes.add(plan.shape)
        if min(size) > 3000:
            assert plan.pixels < 1.8 * size.prod()
    assert len(shapes) <= 6


@pytest.mark.parametrize(
    ("size", "shape"),
    [((480, 640), (480, 640)), ((720, 1280), (720, 768)), ((180, 320), (180, 320))],
)
def test_common_sizes_and_tiny_ones_have_programs_of_their_own(size, shape):
    module = create_model("atrous_net_small")
    assert tiling.plan(module, size, single=True, budget=10**6).shape == shape


@pytest.mark.parametrize(("size", "side"), [((100, 9000), 100), ((9000, 7), 8)])
def test_a_long_strip_is_cut_though_it_is_narrower_than_the_margins(size, side):
    plan = tiling.plan(create_model("atrous_net_small"), size, single=True, budget=10**7)
    assert sorted(plan.shape)[0] == side
    assert sorted(plan.shape)[1] <= 768


def test_a_tile_may_be_larger_than_the_picture():
    # From 0 on, what is further than 40 from the end; then back from it, from 98 before the start.
    first, last = tiling.cut(157, 158, 256, (40, 40), 2)
    assert (first.start, first.first, first.stop) == (0, 0, 118)
    assert (last.start, last.first, last.stop) == (-98, 118, 157)


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


# Networks that see all of their input.

BLENDED = {
    "maxim": create_model("maxim_s1"),
    "nafnet": create_model("nafnet"),
    "shallow": create_model("nafnet", width=4, encoder_blocks=(1,), decoder_blocks=(1,)),
}


@pytest.mark.parametrize(
    ("name", "size", "shape", "rows", "columns"),
    [
        # 1080 = 2 * 604 - 128, 1920 = 3 * 725.3 - 2 * 128, in multiples of 16.
        ("nafnet", (1080, 1920), (608, 736), [0, 472], [0, 592, 1184]),
        ("nafnet", (768, 700), (768, 704), [0], [0]),
        ("nafnet", (5, 769), (16, 464), [0], [0, 305]),
        # 720 = 4 * 204 - 3 * 32, 1280 = 6 * 240 - 5 * 32, in multiples of 64.
        ("maxim", (720, 1280), (256, 256), [0, 154, 309, 464], [0, 204, 409, 614, 819, 1024]),
        ("maxim", (3, 100), (64, 128), [0], [0]),
    ],
)
def test_a_network_that_sees_everything_has_the_tiles_it_wants(name, size, shape, rows, columns):
    for single in (True, False):
        plan = tiling.plan(BLENDED[name], size, single=single, budget=10**6)
        assert plan.blended
        assert plan.shape == shape
        assert [span.start for span in plan.rows] == rows
        assert [span.start for span in plan.columns] == columns
        assert plan.pixels == shape[0] * shape[1] * len(rows) * len(columns)


@pytest.mark.parametrize(
    ("tile", "budget", "shape"),
    [
        ("auto", 10**6, (256, 256)),
        ("auto", 50_000, (192, 192)),  # of no more than 223 pixels a side
        ("auto", 1, (64, 64)),
        ("off", 1, (576, 1024)),
        (256, 1, (256, 256)),
        (200, 10**6, (256, 256)),  # to the grid
        (10_000, 1, (576, 1024)),
    ],
)
def test_tiles_are_as_asked_or_fit_the_budget(tile, budget, shape):
    plan = tiling.plan(BLENDED["maxim"], (555, 1000), tile, single=True, budget=budget)
    assert plan.shape == shape
    whole = shape == (576, 1024)
    assert (len(plan.rows) == len(plan.columns) == 1) == whole


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(BLENDED)), st.tuples(*[st.integers(1, 2500)] * 2), st.data())
def test_what_blended_tiles_give_sums_up_to_the_picture(name, size, data):
    module = BLENDED[name]
    tile = data.draw(st.sampled_from(["auto", "off"]) | st.integers(1, 900), "tile")
    budget = data.draw(st.integers(1, 10**6), "budget")
    plan = tiling.plan(module, size, tile, single=True, budget=budget)
    for spans, side, length in zip((plan.rows, plan.columns), plan.shape, size, strict=True):
        assert side % module.size_multiple == 0
        total = np.zeros(length)
        for span in spans:
            assert span.first == span.start
            assert span.inside == slice(0, span.stop - span.start)
            assert span.stop == min(span.start + side, length)
            total[span.first : span.stop] += span.weight
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_local_networks_are_not_blended():
    module = create_model("atrous_net_small")
    assert not tiling.plan(module, (900, 900), 256, single=True, budget=10**6).blended

"""`jaxdeblur models`."""

import contextlib
import io

import pytest

from jaxdeblur.cli import main
from jaxdeblur.models import PRESETS
from jaxdeblur.weights import shipped


@pytest.fixture(scope="module")
def verbose():
    """What `jaxdeblur models --verbose` prints, but of the networks that take long to count."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("maxim", "maxim_s2", "nafnet_64"):
            patch.delitem(PRESETS, name)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            main(["models", "--verbose"])
    return out.getvalue()


def test_lists_weights_and_networks(capsys):
    main(["models"])
    text = capsys.readouterr().out
    for name in (*shipped(), "carlo_net", "kaist_net_small", "atrous_net_reds", "maxim_s2"):
        assert f"  {name} " in text
    assert "  atrous_net_reds    sees 217x217 pixels\n" in text
    for name, tile in (("maxim", 256), ("nafnet_64", 768)):
        (line,) = (line for line in text.splitlines() if line.startswith(f"  {name} "))
        assert (
            line.split(maxsplit=1)[1] == f"sees all of a picture, in tiles of up to {tile} pixels"
        )


@pytest.mark.parametrize("name", shipped())
def test_verbose_tells_cards_and_costs(verbose, name):
    section = verbose[verbose.index(f"  {name} ") :].split("\n  ", 1)
    section = [section[1].split("\n  ", 1)[0]] if not section[1].startswith("  ") else section[1:]
    told = section[0]
    card = shipped()[name]
    for key in card.keys() - {"summary"}:
        assert f"    {key}:" in told
    assert f"sha256: {card['sha256']}" in told
    for what in ("parameters", "multiply-adds at 256x256", "multiply-adds at 1280x720"):
        assert f"    {what}: " in told
    assert "field of view: " in told
    assert "size grid: multiples of" in told or "size grid: any size" in told


def test_verbose_counts_as_by_hand(verbose):
    assert "    parameters: 24,371,331\n" in verbose
    # 64 channels: at half the size 5 blocks of 147,456 and two more layers, the others at full.
    half = 256 * 256 / 4
    blocks = 5 * (4 * 9 * 64 * 32 + 9 * 128 * 64)
    outer = 81 * 3 * 32 + 9 * 64 * 16 + 9 * 16 * 3
    total = half * (blocks + 2 * 9 * 32 * 64) + 4 * half * outer
    small = verbose[verbose.rindex("  atrous_net_small ") :]
    assert f"multiply-adds at 256x256: {total / 1e9:,.1f} G" in small


@pytest.mark.parametrize(
    ("name", "giga", "grid", "field"),
    [
        ("maxim_s1", 41, "multiples of 64, from 64", "num_stages=1"),
        ("nafnet", 16, "multiples of 16, from 1", "encoder_blocks=(1, 1, 1, 28)"),
    ],
)
def test_verbose_tells_of_networks_that_see_everything(verbose, name, giga, grid, field):
    section = verbose[verbose.index(f"\n  {name} ") :].split("\n  ")[1:]
    end = next(i for i, line in enumerate(section[1:], 1) if not line.startswith("  "))
    told = dict(line.strip().split(": ", 1) for line in section[1:end])
    assert float(told["multiply-adds at 256x256"].split()[0]) == pytest.approx(giga, abs=1)
    assert told["size grid"].startswith(grid)
    assert field in told["fields"]
    assert told["field of view"].startswith("all of a picture")

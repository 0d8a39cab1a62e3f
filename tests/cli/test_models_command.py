"""`jaxdeblur models`."""

import contextlib
import io

import pytest

from jaxdeblur.cli import main
from jaxdeblur.weights import shipped


@pytest.fixture(scope="module")
def verbose():
    """What `jaxdeblur models --verbose` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        main(["models", "--verbose"])
    return out.getvalue()


def test_lists_weights_and_networks(capsys):
    main(["models"])
    text = capsys.readouterr().out
    for name in (*shipped(), "carlo_net", "kaist_net_small", "atrous_net_reds"):
        assert f"  {name} " in text
    assert "24,371,331 parameters, sees 217x217 pixels" in text


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
    # 64 channels: at half the size 5 blocks of 147,456 and two more layers, the others at full.
    half = 256 * 256 / 4
    blocks = 5 * (4 * 9 * 64 * 32 + 9 * 128 * 64)
    outer = 81 * 3 * 32 + 9 * 64 * 16 + 9 * 16 * 3
    total = half * (blocks + 2 * 9 * 32 * 64) + 4 * half * outer
    small = verbose[verbose.rindex("  atrous_net_small ") :]
    assert f"multiply-adds at 256x256: {total / 1e9:,.1f} G" in small

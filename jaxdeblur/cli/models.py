"""`jaxdeblur models`: lists the networks and the weights that are shipped."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax import linen as nn

# The kinds of blur that the weights were measured against (tools/blurs.py).
BLURS = ("gaussian 1.5", "gaussian 3", "defocus", "shake", "gopro", "reds", "sharp", "screenshot")
_SIZES = ((256, 256), (720, 1280))  # height and width in pixels, whose cost is told


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("models", help="list the networks and the shipped weights")
    parser.add_argument("--verbose", action="store_true", help="cards, cost and fields in full")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from jaxdeblur import catalogue
    from jaxdeblur.models import PRESETS, describe_model
    from jaxdeblur.weights import load, shipped

    print("trained weights (jaxdeblur.load, jaxdeblur deblur --model):")
    for name, card in shipped().items():
        print(f"  {name:18} {card['summary']}")
        if arguments.verbose:
            trained = load(name)
            _print_facts(facts(trained.module, trained.card["channels"]))
            _print_facts({key: value for key, value in card.items() if key != "summary"})
    for name, entry in catalogue.ENTRIES.items():
        here = "" if name in catalogue.fetched() else f"; get it with `jaxdeblur fetch {name}`"
        print(f"  {name:18} {entry.network}: {entry.summary}{here}")
    print(
        "\ndB gained by kind of blur, dB left of what is sharp, time of 12 megapixels on 2 cores:"
    )
    rows = blur_rows()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    print("\nnetworks (jaxdeblur.create_model; --verbose tells their size and cost):")
    for name, module in PRESETS.items():
        print(f"  {name:18} sees {_field_of_view(module)}")
        if arguments.verbose:
            fields = ", ".join(f"{k}={v}" for k, v in describe_model(module)[1].items())
            _print_facts(facts(module, channels=3) | {"fields": fields})


def blur_rows() -> list[list[str]]:
    """A table, its header first: what each of the weights makes of each kind of blur.

    Decibels gained; of what is sharp the decibels that are left; seconds for 12 megapixels.
    """
    measured = json.loads((Path(__file__).parent / "blurs.json").read_text())
    rows = [["model", *BLURS, "12 MP"]]
    for row in measured:
        gains = [f"{row[blur]:+.1f}" for blur in BLURS[:-2]]
        left = [f"{row[blur]:.0f}" for blur in BLURS[-2:]]
        rows.append([row["model"], *gains, *left, f"{row['seconds']:.0f} s"])
    return rows


def facts(module: nn.Module, channels: int) -> dict[str, str]:
    """What a network costs, how far it sees and which sizes it takes, in words."""
    from jaxdeblur.models.cost import multiply_adds, num_parameters

    multiple, minimum = module.size_multiple, module.minimum_size
    grid = f"multiples of {multiple}" if multiple > 1 else "any size"
    costs = {
        f"multiply-adds at {width}x{height}": (
            f"{multiply_adds(module, (1, height, width, channels)) / 1e9:,.1f} G"
        )
        for height, width in _SIZES
    }
    return {
        "parameters": f"{num_parameters(module, channels):,}",
        **costs,
        "field of view": _field_of_view(module),
        "size grid": f"{grid}, from {minimum}; jaxdeblur.load pads other ones",
    }


def _field_of_view(module: Any) -> str:
    if module.reach is None:
        return f"all of a picture, in tiles of up to {module.tile_size} pixels"
    side = sum(module.reach) + 1
    return f"{side}x{side} pixels"


def _print_facts(named: dict, indent: str = "    ") -> None:
    for key, value in named.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            _print_facts(value, indent + "  ")
            continue
        for line in value if isinstance(value, list) else [value]:
            if isinstance(line, dict):
                line = ", ".join(f"{name} {what}" for name, what in line.items())
            print(f"{indent}{key}: {line}")

"""Weights that know what several trainings learned which began at the same ones.

  python tools/combine.py OUT.safetensors --base WEIGHTS --add WEIGHTS SHARE [--add ...]

Adds to the base, for each of the others, a share of what its training changed: base + sum of
share * (weights - base). Of trainings that began at the base this keeps much of what each of them
learned (Ilharco et al., "Editing models with task arithmetic", ICLR 2023), and is where another
training may begin. WEIGHTS are what jaxdeblur.load takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxdeblur import weights
from jaxdeblur.errors import InputError, reported
from jaxdeblur.models.variables import check_shapes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT.safetensors")
    parser.add_argument("--base", required=True, metavar="WEIGHTS")
    parser.add_argument(
        "--add", nargs=2, action="append", required=True, metavar=("WEIGHTS", "SHARE")
    )
    arguments = parser.parse_args()
    with reported():
        added = [(source, share_of(text)) for source, text in arguments.add]
        weights.save(arguments.out, combine(arguments.base, added))


def share_of(text: str) -> float:
    """A number, or InputError."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not math.isfinite(share):
        raise InputError(f"--add: SHARE = {text!r} must be a number, such as 0.5")
    return share


def combine(base: str, added: Sequence[tuple[str, float]]) -> weights.Deblurrer:
    """Adds shares of what trainings changed to where they began.

    Args:
      base: where they began, what `weights.load` takes.
      added: their results, the same, and the share of each.

    Raises:
      InputError: no such weights, those of another network, or of one with batch statistics, which
        belong to the weights that they were taken with.
    """
    start = weights.load(base)
    if start.model_state:
        raise InputError(f"--base {base!r} has batch statistics, of which no sum has a meaning")
    params = start.params
    for source, share in added:
        trained = weights.load(source)
        channels = start.card["channels"]
        check_shapes(start.module, trained.variables(), channels, f"--add {source!r}")
        params = jax.tree.map(
            lambda p, t, s, share=share: p + share * (t - s), params, trained.params, start.params
        )
    told = ", ".join(f"{share:g} of {source}" for source, share in added)
    card = {"channels": start.card["channels"], "combined": f"{base} and what changed in {told}"}
    return dataclasses.replace(start, params=params, card=card)


if __name__ == "__main__":
    main()

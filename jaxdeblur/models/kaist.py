"""KAIST_NET: residual down-up and up-down blocks around a per-pixel adaptive convolution."""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

from jaxdeblur.convolutions import adaptive_convolve
from jaxdeblur.models.layers import Conv, ConvTranspose, check_input, current_frame, leaky_relu


class DownUp(nn.Module):
    """RDU: a convolution to half the size, a transposed one back, plus the input."""

    features: int
    zero_init: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = leaky_relu(Conv(2 * self.features, 5, stride=2, dtype=self.dtype, name="down")(x))
        init = _last_init(self.zero_init)
        up = ConvTranspose(
            self.features, 4, stride=2, kernel_init=init, dtype=self.dtype, name="up"
        )
        return x + leaky_relu(up(y))


class UpDown(nn.Module):
    """RUD: a transposed convolution to twice the size, a convolution back, plus the input."""

    features: int
    zero_init: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = leaky_relu(
            ConvTranspose(self.features // 2, 4, stride=2, dtype=self.dtype, name="up")(x)
        )
        init = _last_init(self.zero_init)
        down = Conv(self.features, 5, stride=2, kernel_init=init, dtype=self.dtype, name="down")
        return x + leaky_relu(down(y))


def upsample(x: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling: `[B, H, W, C]` to `[B, 2H, 2W, C]`."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


class KaistNet(nn.Module):
    """A U-shaped network that predicts kernels, a residual image and how to mix the two.

    11,590,813 parameters for images, 11,595,613 for video. The output is not clipped.

    Attributes:
      num_blocks: blocks of each outer stage, at full and at half resolution.
      num_inner_blocks: blocks of each inner stage, at a quarter of the resolution.
      num_channels: channels at full resolution; twice and four times as many further in.
      zero_init: start the kernels before the sums (each block's last, and those of the three
        outputs) at zero instead of Glorot-uniform, and the predicted kernels at a single pixel:
        training then starts from the blurred image itself and stands larger learning rates. The
        published network does not.
      remat: while training, keep each block's input alone and compute the rest of the block again
        for its gradients: a third more arithmetic for a fraction of the memory. On GPUs and TPUs;
        on a CPU, XLA merges the two computations again.
      dtype: type of the arithmetic; parameters stay float32.

    References:
      Sim & Kim, "A Deep Motion Deblurring Network Based on Per-Pixel Adaptive Kernels With
      Residual Down-Up and Up-Down Modules", CVPRW 2019; the variant published as "KAIST_NET" by
      Mancini & Simonati, "Deep Image Deblurring", University of Bologna, 2020
      (github.com/MarcelloSimonati/DeepImageDeblurring).
    """

    size_multiple: ClassVar[int] = 8
    minimum_size: ClassVar[int] = 8
    keeps_size: ClassVar[bool] = True

    num_blocks: int = 9
    num_inner_blocks: int = 4
    num_channels: int = 32
    zero_init: bool = False
    remat: bool = False
    dtype: Dtype | None = None

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels before and after its own, along an axis, that a restored pixel depends on."""
        # Blocks of an even kernel with a stride see further to one side than to the other.
        outer, inner = self.num_blocks, self.num_inner_blocks
        return 20 + 8 * outer + 12 * inner, 13 + 16 * outer + 24 * inner

    @nn.compact
    def __call__(self, blurred: jax.Array, train: bool = False) -> jax.Array:
        """Restores `[B, H, W, 3 or 9]` in [0, 1], H and W multiples of 8, to `[B, H, W, 3]`."""
        del train
        check_input(blurred, "kaist_net", multiple=self.size_multiple, minimum=self.minimum_size)
        conv = functools.partial(Conv, dtype=self.dtype)
        full, half, quarter = (self.num_channels * scale for scale in (1, 2, 4))

        x = leaky_relu(conv(full, 5, name="stem")(blurred))
        x = full_skip = self.stage(DownUp, full, self.num_blocks, "encoder_full")(x)
        x = conv(half, 1, name="to_half")(nn.avg_pool(x, (2, 2), (2, 2)))  # [B, H/2, W/2, 2F]
        x = half_skip = self.stage(DownUp, half, self.num_blocks, "encoder_half")(x)
        x = conv(quarter, 1, name="to_quarter")(nn.avg_pool(x, (2, 2), (2, 2)))  # [B, H/4, W/4, 4F]
        x = self.stage(DownUp, quarter, self.num_inner_blocks, "encoder_quarter")(x)

        x = self.stage(UpDown, quarter, self.num_inner_blocks, "decoder_quarter")(x)
        x = jnp.concatenate([upsample(x), half_skip], axis=-1)
        x = conv(half, 1, name="from_quarter")(x)  # [B, H/2, W/2, 2F]
        x = self.stage(UpDown, half, self.num_blocks, "decoder_half")(x)

        image = leaky_relu(conv(half, 5, name="image_half")(x))
        image = jnp.concatenate([upsample(image), full_skip], axis=-1)
        image = conv(full, 1, name="image_mix")(image)  # [B, H, W, F]
        image = leaky_relu(conv(full, 5, name="image_full")(image))
        last = functools.partial(conv, kernel_size=5, kernel_init=_last_init(self.zero_init))
        residual = last(3, name="residual")(image)  # [B, H, W, 3]
        weight = nn.sigmoid(last(1, name="weight")(image))  # [B, H, W, 1]

        kernels = leaky_relu(conv(half, 5, name="kernels_half")(x))
        kernels = conv(full, 5, name="kernels_full")(upsample(kernels))
        bias_init = _identity if self.zero_init else nn.initializers.zeros
        kernels = last(25, bias_init=bias_init, name="kernels")(kernels)  # [B, H, W, 5*5]

        # Mixed in the input's precision: in bfloat16 the picture itself would be rounded.
        residual, weight, kernels = (y.astype(blurred.dtype) for y in (residual, weight, kernels))
        filtered = adaptive_convolve(current_frame(blurred), kernels)
        return weight * filtered + (1 - weight) * residual

    def stage(self, block: type[nn.Module], features: int, depth: int, name: str):
        """Returns `depth` blocks in sequence, named `name_0`, `name_1`, ..."""
        block = nn.remat(block) if self.remat else block
        return nn.Sequential(
            [block(features, self.zero_init, self.dtype, name=f"{name}_{i}") for i in range(depth)]
        )


def _last_init(zero: bool) -> Initializer:
    return nn.initializers.zeros if zero else nn.initializers.glorot_uniform()


def _identity(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
    """Twice the pixel in the middle of the window: filtered and residual start at half weight."""
    del key
    return jnp.zeros(shape, dtype).at[shape[0] // 2].set(2)

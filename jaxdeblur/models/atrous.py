"""ATROUS_NET: a residual network of parallel dilated convolutions at half resolution."""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

from jaxdeblur.models.layers import Conv, ConvTranspose, check_input, current_frame, leaky_relu


class AtrousBlock(nn.Module):
    """Four dilations of one input side by side, merged, plus the input; sees 11x11 pixels.

    Attributes:
      num_channels: channels of input and output; each branch has half as many.
      batch_norm: normalise each convolution before its LeakyReLU.
      zero_init: start `merge` at zero, so that the block starts as the identity.
      dtype: type of the arithmetic; parameters stay float32.
    """

    num_channels: int
    batch_norm: bool = False
    zero_init: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        conv = functools.partial(
            Conv, kernel_size=3, kernel_init=nn.initializers.he_normal(), dtype=self.dtype
        )

        def activate(y, name):
            if self.batch_norm:
                norm = nn.BatchNorm(use_running_average=not train, dtype=self.dtype, name=name)
                y = norm(y)
            return leaky_relu(y)

        branches = [
            activate(conv(self.num_channels // 2, dilation=d, name=f"dilated_{d}")(x), f"norm_{d}")
            for d in (1, 2, 3, 4)
        ]
        merge = conv(self.num_channels, kernel_init=_last_init(self.zero_init), name="merge")
        merged = merge(jnp.concatenate(branches, axis=-1))
        return x + activate(merged, "norm_merge")


class AtrousNet(nn.Module):
    """The official network (12,571,011 parameters with 5 blocks, 24,371,331 with 10).

    In video mode 12,633,219 and 24,433,539. It predicts the difference to the current blurred
    frame; the output is not clipped.

    Attributes:
      num_channels: channels of the blocks; a multiple of 4.
      num_blocks: 5 for CIFAR-10, 10 for REDS.
      batch_norm: batch normalisation inside the blocks, between convolution and LeakyReLU (where
        is our choice); off in every published result. Needs `train=True` and a mutable
        `batch_stats` collection while training.
      zero_init: start the kernels before the sums (each block's `merge` and the last) at zero
        instead of He-normal: training then starts from the blurred image itself and stands larger
        learning rates. The published network does not.
      remat: while training, keep each block's input alone and compute the rest of the block again
        for its gradients: a third more arithmetic for a fraction of the memory. On GPUs and TPUs;
        on a CPU, XLA merges the two computations again.
      dtype: type of the arithmetic; parameters stay float32.

    References:
      "ATROUS_NET" of Mancini & Simonati, "Deep Image Deblurring", University of Bologna, 2020
      (github.com/MarcelloSimonati/DeepImageDeblurring); Yu & Koltun, "Multi-Scale Context
      Aggregation by Dilated Convolutions", ICLR 2016; for `zero_init`, Zhang et al., "Fixup
      Initialization", ICLR 2019.
    """

    size_multiple: ClassVar[int] = 2
    minimum_size: ClassVar[int] = 2
    keeps_size: ClassVar[bool] = True

    num_channels: int = 256
    num_blocks: int = 5
    batch_norm: bool = False
    zero_init: bool = False
    remat: bool = False
    dtype: Dtype | None = None

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels before and after its own, along an axis, that a restored pixel depends on."""
        # Five at half the size for each block; stem, down, up, mix and difference.
        return 10 * self.num_blocks + 8, 10 * self.num_blocks + 8

    @nn.compact
    def __call__(self, blurred: jax.Array, train: bool = False) -> jax.Array:
        """Restores `[B, H, W, 3 or 9]` in [0, 1], H and W even, to `[B, H, W, 3]`."""
        check_input(blurred, "atrous_net", multiple=self.size_multiple, minimum=self.minimum_size)
        options = {"kernel_init": nn.initializers.he_normal(), "dtype": self.dtype}
        conv = functools.partial(Conv, **options)
        deconv = functools.partial(ConvTranspose, **options)
        full, half, quarter = (self.num_channels // scale for scale in (1, 2, 4))

        skip = leaky_relu(conv(half, 9, name="stem")(blurred))  # [B, H, W, N/2]
        x = leaky_relu(conv(full, 3, stride=2, name="down")(skip))  # [B, H/2, W/2, N]
        block = nn.remat(AtrousBlock, static_argnums=2) if self.remat else AtrousBlock
        block = functools.partial(block, full, self.batch_norm, self.zero_init, self.dtype)
        for i in range(self.num_blocks):
            x = block(name=f"block_{i}")(x, train)
        x = leaky_relu(deconv(half, 3, stride=2, name="up")(x))  # [B, H, W, N/2]
        x = leaky_relu(conv(quarter, 3, name="mix")(jnp.concatenate([x, skip], axis=-1)))
        difference = conv(3, 3, kernel_init=_last_init(self.zero_init), name="difference")(x)
        return current_frame(blurred) + difference.astype(blurred.dtype)


def _last_init(zero: bool) -> Initializer:
    return nn.initializers.zeros if zero else nn.initializers.he_normal()

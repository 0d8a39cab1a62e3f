"""CARLO_NET: ten convolutions, ten transposed convolutions, long additive skips."""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
from flax import linen as nn
from flax.typing import Dtype

from jaxdeblur.models.layers import Conv, ConvTranspose, check_input


class CarloNet(nn.Module):
    """The convolutional auto-encoder of the CIFAR-10 experiment (2,663,555 parameters).

    Every layer keeps full resolution but for the border that 'VALID' convolutions lose and
    transposed ones give back. ReLU is the last operation too, so the output is not negative.

    Attributes:
      num_filters: channels of every layer but the last.
      he_init: start all kernels He-normal instead of Glorot-uniform, which halves what passes a
        layer with ReLU, and the output at grey, so that its ReLU does not die: training then stands
        larger learning rates. The published network does not.
      dtype: type of the arithmetic; parameters stay float32.

    References:
      "CARLO_NET" of Mancini & Simonati, "Deep Image Deblurring", University of Bologna, 2020
      (github.com/MarcelloSimonati/DeepImageDeblurring); for `he_init`, He et al., "Delving Deep
      into Rectifiers", ICCV 2015.
    """

    size_multiple: ClassVar[int] = 1
    minimum_size: ClassVar[int] = 21
    keeps_size: ClassVar[bool] = False  # 'VALID' convolutions lose a border

    num_filters: int = 128
    he_init: bool = False
    dtype: Dtype | None = None

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels before and after its own, along an axis, that a restored pixel depends on."""
        return 20, 20

    @nn.compact
    def __call__(self, blurred: jax.Array, train: bool = False) -> jax.Array:
        """Restores `[B, H, W, 3 or 9]` in [0, 1], H and W from 21, to `[B, H, W, 3]`."""
        del train
        check_input(blurred, "carlo_net", minimum=self.minimum_size)
        initializers = nn.initializers
        init = initializers.he_normal() if self.he_init else initializers.glorot_uniform()
        options = {"kernel_size": 3, "padding": "VALID", "kernel_init": init, "dtype": self.dtype}
        conv = functools.partial(Conv, **options)
        deconv = functools.partial(ConvTranspose, **options)

        x = blurred
        encoded = []
        for i in range(10):
            x = nn.relu(conv(self.num_filters, name=f"encoder_{i}")(x))  # [B, H-2i-2, W-2i-2, F]
            encoded.append(x)
        for i in range(9):
            x = nn.relu(deconv(self.num_filters, name=f"decoder_{i}")(x))  # [B, H-18+2i, ..., F]
            if i % 2 == 0:
                x = nn.relu(encoded[8 - i] + x)
        grey = {"kernel_init": initializers.zeros, "bias_init": initializers.constant(0.5)}
        last = deconv(3, name="decoder_9", **grey if self.he_init else {})
        restored = nn.relu(last(x))  # [B, H, W, 3]
        return restored.astype(blurred.dtype)

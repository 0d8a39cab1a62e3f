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
      dtype: type of the arithmetic; parameters stay float32.

    References:
      "CARLO_NET" of github.com/FrancescoBonzi/DeblurringDeepLearningProject.
    """

    size_multiple: ClassVar[int] = 1
    minimum_size: ClassVar[int] = 21

    num_filters: int = 128
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
        conv = functools.partial(Conv, kernel_size=3, padding="VALID", dtype=self.dtype)
        deconv = functools.partial(ConvTranspose, kernel_size=3, padding="VALID", dtype=self.dtype)

        x = blurred
        encoded = []
        for i in range(10):
            x = nn.relu(conv(self.num_filters, name=f"encoder_{i}")(x))  # [B, H-2i-2, W-2i-2, F]
            encoded.append(x)
        for i in range(9):
            x = nn.relu(deconv(self.num_filters, name=f"decoder_{i}")(x))  # [B, H-18+2i, ..., F]
            if i % 2 == 0:
                x = nn.relu(encoded[8 - i] + x)
        restored = nn.relu(deconv(3, name="decoder_9")(x))  # [B, H, W, 3]
        return restored.astype(blurred.dtype)

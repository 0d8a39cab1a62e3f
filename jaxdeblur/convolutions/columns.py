"""Convolution of stride 1 as one matrix product, for layers with few channels on one side.

The product goes on the thinner side. With few input channels, the K*K shifts of the input stand
side by side and are multiplied at once (`im2col`). With few output channels, the input is
multiplied by all K*K taps at once, and the products are shifted and added. Either way the one
temporary array has K*K times the thinner side's channels.
"""

from __future__ import annotations

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax

from jaxdeblur.convolutions.phases import merge_phases, split_phases

# Copying one element costs as much as this many products: 70 measured on a Zen 3; on a Zen 5, whose
# products are twice as fast, 120 or more would choose right. In between, since it stands for both.
_COPY_COST = 100


@dataclasses.dataclass(frozen=True)
class Columns:
    """The convolution by shifted copies; the methods are those of `winograd.Winograd`.

    Attributes:
      height: rows of the output.
      width: columns of the output.
      taps: of the kernel along each axis.
      dilation: pixels between taps.
    """

    height: int
    width: int
    taps: int
    dilation: int

    @property
    def tile_rows(self) -> int:
        """Output rows that are made together at least."""
        return 1

    def cost(self, batch: int, features_in: int, features_out: int) -> float:
        """The work, in products."""
        copied = batch * self.height * self.width * self.taps**2
        copies = _COPY_COST * min(features_in, features_out)
        return copied * (features_in * features_out + copies)

    def temporary_elements(self, features_in: int, features_out: int) -> int:
        """Elements of the shifted copies of one image."""
        return self.height * self.width * self.taps**2 * min(features_in, features_out)

    def transform_kernel(self, kernel: jax.Array) -> list[jax.Array]:
        """Returns the kernel, `[taps, S, taps, in, out]`, which needs no transform."""
        return [kernel]

    def restore_gradient(
        self, gradients: list[jax.Array], kernel_shape: tuple[int, ...]
    ) -> jax.Array:
        """The transpose of `transform_kernel`, of what `kernel_gradient` returns."""
        return split_phases(gradients[0], kernel_shape[1], 0)

    def convolve(
        self, x: jax.Array, transformed_kernel: list[jax.Array], out_first: bool
    ) -> jax.Array:
        """Convolves without padding.

        Args:
          x: float `[B, H, S, W, in]`; W is that of the output plus `(taps - 1) * dilation`, H that
            or more; S is 1 with `out_first`.
          transformed_kernel: float `[taps, S, taps, in, out]`, from `transform_kernel`.
          out_first: the kernel is `[taps, S, taps, out, in]`.

        Returns:
          `[B, height, S, width, out]`; S is 1 without `out_first`.
        """
        (kernel,) = transformed_kernel
        phases = kernel.shape[1] if out_first else 1
        kernel = merge_phases(kernel, 0)
        if out_first:
            kernel = kernel.swapaxes(2, 3)
        return split_phases(self._convolve(self._image(x), kernel), phases, 1)

    def _convolve(self, x, kernel):
        features_in, features_out = kernel.shape[2:]
        if features_in < features_out:
            return self._columns(x) @ kernel.reshape(-1, features_out)
        products = x @ kernel.transpose(2, 0, 1, 3).reshape(features_in, -1)
        products = products.reshape(*x.shape[:3], self.taps**2, features_out)
        shifts = [
            products[:, row : row + self.height, column : column + self.width, tap]
            for tap, (row, column) in enumerate(self._shifts())
        ]
        return functools.reduce(operator.add, shifts)

    def kernel_gradient(
        self, x: jax.Array, cotangent: jax.Array, out_first: bool
    ) -> list[jax.Array]:
        """The gradient of `convolve` for its transformed kernel."""
        gradient = self._kernel_gradient(self._image(x), merge_phases(cotangent, 1))
        return [gradient.swapaxes(2, 3) if out_first else gradient]

    def _kernel_gradient(self, x, cotangent):
        features_in, features_out = x.shape[-1], cotangent.shape[-1]
        if features_in < features_out:
            gradient = _sum_outer(self._columns(x), cotangent)
            return gradient.reshape(self.taps, self.taps, features_in, features_out)
        border = ((self.taps - 1) * self.dilation,) * 2
        wide = jnp.pad(cotangent, ((0, 0), border, border, (0, 0)))
        # An input pixel meets the cotangents of the outputs before it: the taps in reverse.
        gradient = _sum_outer(x, self._columns(wide))
        gradient = gradient.reshape(features_in, self.taps, self.taps, features_out)
        return gradient[:, ::-1, ::-1].transpose(1, 2, 0, 3)

    def _image(self, x) -> jax.Array:
        """`[B, H, S, W, C]` to `[B, H, W, S * C]`, as many rows as the kernel covers."""
        return merge_phases(x[:, : self.height + (self.taps - 1) * self.dilation], 1)

    def _shifts(self) -> list[tuple[int, int]]:
        """The pixel under each tap for output (0, 0), row-major over the kernel."""
        offsets = range(0, self.taps * self.dilation, self.dilation)
        return [(row, column) for row in offsets for column in offsets]

    def _columns(self, x) -> jax.Array:
        """`[B, H, W, C]` to what each output's kernel covers, `[B, h, w, taps*taps*C]`."""
        # One axis after the other, since a run of taps*C numbers moves faster than runs of C.
        for axis in (2, 1):
            size = x.shape[axis] - (self.taps - 1) * self.dilation
            shifts = [
                lax.slice_in_dim(x, offset, offset + size, axis=axis)
                for offset in range(0, self.taps * self.dilation, self.dilation)
            ]
            x = jnp.concatenate(shifts, axis=-1)
        return x


def _sum_outer(a: jax.Array, b: jax.Array) -> jax.Array:
    """Sums over all pixels the outer product of `[B, H, W, M]` and `[B, H, W, N]`: `[M, N]`."""
    if a.shape[-1] > b.shape[-1]:  # a product turns its first factor around: the thinner one
        return _sum_outer(b, a).T
    return jnp.einsum("bhwm,bhwn->mn", a, b)

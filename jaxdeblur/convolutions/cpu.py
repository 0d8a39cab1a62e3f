"""How a CPU convolves: every convolution of the networks as matrix products.

On a CPU, XLA's own convolution stays behind its matrix product, most of all in the gradient of a
kernel, with few channels and with strides. Here

- a stride becomes channels: a convolution of stride S is one of stride 1 over the S*S phases of
  the input (`phases`), and a transposed convolution makes the S*S phases of its output;
- a convolution of stride 1 is Winograd's (`winograd`) or, where that does not pay, a product over
  shifted copies (`columns`), or the compiler's own over wide images, whose columns it shares
  among the cores;
- large inputs are taken in parts, which bounds the temporary arrays of a layer.

`compiled` has the compiler's formulation, which the tests compare this one with.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdeblur.convolutions.columns import Columns
from jaxdeblur.convolutions.compiled import Border
from jaxdeblur.convolutions.phases import merge_phases, split_phases
from jaxdeblur.convolutions.winograd import MAX_TAPS, Winograd

# Most elements of a layer's temporary arrays for images taken whole (128 MB of float32), as many as
# fit, and for the bands that a larger image is cut into (32 MB): for less, the loop costs more than
# the cache saves.
_WHOLE_ELEMENTS = 32_000_000
_BAND_ELEMENTS = 8_000_000

# Where each core is a device of its own, a loop costs little: images of less are cut, too, into
# bands that the caches hold (2 MB, or eight times the kernel, which every band reads anew). A frame
# of 1280x720 on two devices took the 64-channel network 2.4 seconds instead of 3.1. Smaller images
# cut so were slower, KAIST_NET's inference of 256x256 by a tenth (two cores of a Zen 3).
_LARGE_ELEMENTS_OF_SEVERAL_DEVICES = 20_000_000
_BAND_ELEMENTS_OF_SEVERAL_DEVICES = 500_000
_KERNELS_OF_A_BAND = 8

# The compiler's convolution is for outputs at least this wide, since it shares out columns among
# the cores, and for at least so many channels on either side. Its products cost less there than
# those of the other forms, which read and write larger arrays: with 64 channels at 640x360 it was
# 1.3 to 4 times quicker (two cores of a Xeon with AVX-512). A device for each core has nothing to
# share out: without it the 64-channel network took 0.73 of the time for two images of 720x704 (two
# cores of a Zen 3).
_WIDE = 256
_DIRECT_FEATURES = 16
_DIRECT_COST = 0.65

# Kernels of this size over at most that many channels are done in square blocks of pixels, of the
# side that makes the least work.
_BLOCK_TAPS = 5
_BLOCK_FEATURES = 9  # three frames
_BLOCK_SIDES = (2, 4)


def convolve(
    x: jax.Array, kernel: jax.Array, border: Border, stride: int, dilation: int
) -> jax.Array:
    """Convolves `[B, H, W, in]` with `[K, K, in, out]`; of stride and dilation one is 1."""
    taps, _, features_in, _ = kernel.shape
    if stride > 1:
        return _convolve_phases(x, kernel, border, stride)
    if dilation == 1 and taps >= _BLOCK_TAPS and features_in <= _BLOCK_FEATURES:
        return _convolve_blocks(x, kernel, border)
    return _convolve(x[:, :, None], kernel[:, None], border, dilation, False)[:, :, 0]


def transposed_convolve(
    x: jax.Array, kernel: jax.Array, stride: int, crop: int, height: int, width: int
) -> jax.Array:
    """Spreads `[B, H, W, in]` by `[K, K, out, in]` over pixels `stride` apart.

    Returns `[B, height, width, out]`, the result without its first `crop` rows and columns.
    """
    steps = -(-kernel.shape[0] // stride)
    kernel = _kernel_phases(kernel, stride)[::-1, :, ::-1]
    border = (steps - 1, steps - 1)
    y = _convolve(x[:, :, None], kernel, (border, border), 1, True)
    return _whole_image(y)[:, crop : crop + height, crop : crop + width]


def _convolve_phases(x, kernel, border: Border, stride: int) -> jax.Array:
    """A convolution of a stride, over the phases of its input."""
    taps = kernel.shape[0]
    steps = -(-taps // stride)  # of each phase
    sizes = [(size - taps) // stride + steps for size in _padded_sizes(x, border)]
    x = _image_phases(_pad_to(x, border, [stride * size for size in sizes]), stride)
    return _convolve(x, _kernel_phases(kernel, stride), ((0, 0), (0, 0)), 1, False)[:, :, 0]


def _convolve_blocks(x, kernel, border: Border) -> jax.Array:
    """A large kernel over few channels, in blocks of pixels.

    A block of the output depends on little more of the input than a pixel: its shifted copies take
    a fraction of the memory, and the matrix product, though partly zeros, is wider.
    """
    taps = kernel.shape[0]
    height, width = (size - taps + 1 for size in _padded_sizes(x, border))

    def blocks(side):  # along each axis: that a block depends on, of the output
        return -(-(taps + side - 1) // side), -(-height // side), -(-width // side)

    def work(side):
        steps, rows, columns = blocks(side)
        features = [count * side**2 for count in kernel.shape[2:]]
        form = _cheapest(x.shape[0], rows, columns, steps, 1, features, x.dtype)
        return form.cost(x.shape[0], *features)

    side = min(_BLOCK_SIDES, key=work)
    steps, *sizes = blocks(side)
    x = _image_phases(_pad_to(x, border, [side * (size + steps - 1) for size in sizes]), side)
    zeros = side * steps - taps
    kernels = [  # of each pixel of an output block
        jnp.pad(kernel, ((row, zeros - row), (column, zeros - column), (0, 0), (0, 0)))
        for row in range(side)
        for column in range(side)
    ]
    kernel = _kernel_phases(jnp.concatenate(kernels, axis=-1), side)
    y = _convolve(x, kernel, ((0, 0), (0, 0)), 1, False)[:, :, 0]
    return _whole_image(split_phases(y, side, 1))[:, :height, :width]


def _kernel_phases(kernel, stride: int) -> jax.Array:
    """`[K, K, a, b]` to `[steps, S, steps, S * a, b]`, S the stride, zeros after the last tap."""
    taps, _, *features = kernel.shape
    steps = -(-taps // stride)
    missing = stride * steps - taps
    kernel = jnp.pad(kernel, ((0, missing), (0, missing), (0, 0), (0, 0)))
    return kernel.reshape(steps, stride, steps, stride * features[0], features[1])


def _image_phases(x, stride: int) -> jax.Array:
    """`[B, H * S, W * S, C]` to `[B, H, S, W, S * C]`, S the stride."""
    batch, height, width, features = x.shape
    return x.reshape(batch, height // stride, stride, width // stride, stride * features)


def _whole_image(x) -> jax.Array:
    """The inverse of `_image_phases`."""
    batch, height, stride, width, _ = x.shape
    return x.reshape(batch, height * stride, width * stride, -1)


def _convolve(
    x: jax.Array, kernel: jax.Array, border: Border, dilation: int, out_first: bool
) -> jax.Array:
    """The convolution of stride 1, `[B, H, S, W, in]` with `[K, S, K, in, out]`, see `phases`.

    Returns `[B, H, 1, W, out]`. With `out_first` the input is `[B, H, 1, W, in]`, the kernel
    `[K, S, K, out, in]` and the output `[B, H, S, W, out]`: to transpose a large kernel takes
    longer than to multiply by it as it lies.
    """
    return _with_gradients(x, kernel, border, dilation, out_first)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _with_gradients(x, kernel, border: Border, dilation: int, out_first: bool):
    if _is_direct(x, kernel, border, dilation, out_first):
        y = lax.conv_general_dilated(
            merge_phases(x, 1),
            merge_phases(kernel, 0),
            window_strides=(1, 1),
            padding=border,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWOI" if out_first else "HWIO", "NHWC"),
        )
        return split_phases(y, kernel.shape[1] if out_first else 1, 1)
    x = _pad(x, border)
    parts = _Parts.plan(x.shape, kernel.shape, dilation, out_first, x.dtype)
    transformed = parts.form.transform_kernel(kernel)
    return parts.map(lambda part: parts.form.convolve(part, transformed, out_first), x)


def _with_gradients_forward(x, kernel, border, dilation, out_first):
    return _with_gradients(x, kernel, border, dilation, out_first), (x, kernel)


def _with_gradients_backward(border, dilation, out_first, residuals, cotangent):
    x, kernel = residuals
    # The input's gradient is the convolution with the kernel turned by 180 degrees.
    reach = (kernel.shape[0] - 1) * dilation
    (top, bottom), (left, right) = border
    x_border = ((reach - top, reach - bottom), (reach - left, reach - right))
    turned = kernel[::-1, :, ::-1]
    x_gradient = _convolve(cotangent, turned, x_border, dilation, not out_first)
    x = _pad(x, border)
    parts = _Parts.plan(x.shape, kernel.shape, dilation, out_first, x.dtype)
    of_part = functools.partial(parts.form.kernel_gradient, out_first=out_first)
    gradient = parts.sum(of_part, x, cotangent)
    return x_gradient, parts.form.restore_gradient(gradient, kernel.shape)


_with_gradients.defvjp(_with_gradients_forward, _with_gradients_backward)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """How images are cut into bands for one convolution, all images of a batch alike.

    Not by images: where a batch is divided among devices, each works on bands of its own.

    Attributes:
      form: the convolution of one band.
      height: output rows of the whole image.
      bands: of an image.
      rows: output rows of a band.
      halo: input rows of a band beyond `rows`.
    """

    form: Winograd | Columns
    height: int
    bands: int
    rows: int
    halo: int

    @classmethod
    def plan(cls, x_shape, kernel_shape, dilation: int, out_first: bool, dtype) -> _Parts:
        """Plans for a padded input `[B, H, S, W, in]` and a kernel `[K, S, K, ...]`."""
        taps, features = kernel_shape[0], _features(kernel_shape, out_first)
        halo = (taps - 1) * dilation
        batch, height, width = x_shape[0], x_shape[1] - halo, x_shape[3] - halo
        form = _cheapest(batch, height, width, taps, dilation, features, dtype)
        elements = form.temporary_elements(*features)
        most = _most_elements(elements, math.prod(kernel_shape))
        if batch * elements <= most:
            return cls(form, height, 1, height, halo)
        tiles = height / form.tile_rows  # of a column
        fitting = max(int(tiles * most / (batch * elements)), 1)
        bands = math.ceil(tiles / fitting)
        rows = min(math.ceil(tiles / bands) * form.tile_rows, height)
        form = _cheapest(batch, rows, width, taps, dilation, features, dtype)
        return cls(form, height, math.ceil(height / rows), rows, halo)

    def map(self, function, x: jax.Array) -> jax.Array:
        """Applies a function to the bands of a padded input; returns the whole output."""
        if self.bands == 1:
            return function(x)

        def add_part(number, y):
            return lax.dynamic_update_slice(y, function(part(number)), self._start(number))

        def part(number):
            return self._input_part(x, number)

        shape = jax.eval_shape(function, part(0))
        y = jnp.zeros((x.shape[0], self.height, *shape.shape[2:]), shape.dtype)
        return lax.fori_loop(0, self.bands, add_part, y)

    def sum(self, function, x: jax.Array, cotangent: jax.Array) -> list[jax.Array]:
        """Sums the arrays that a function returns for bands of a padded input and a cotangent."""
        if self.bands == 1:
            return function(x, cotangent)

        def parts(number):
            # Rows that the last band shares with the one before count there.
            fresh = number * self.rows - self._start(number)[1]
            rows = lax.broadcasted_iota(jnp.int32, (1, self.rows, 1, 1, 1), 1)
            part = jnp.where(rows >= fresh, self._part(cotangent, number, 0), 0)
            return self._input_part(x, number), part

        def add_part(number, total):
            return jax.tree.map(jnp.add, total, function(*parts(number)))

        shapes = jax.eval_shape(function, *parts(0))
        zero = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        return lax.fori_loop(0, self.bands, add_part, zero)

    def _start(self, number) -> tuple[int, Any, int, int, int]:
        """Where a band's output begins; the last one ends with the image."""
        return 0, jnp.minimum(number * self.rows, self.height - self.rows), 0, 0, 0

    def _input_part(self, x, number) -> jax.Array:
        """A band of the padded input, and a row of zeros more, which nothing reads.

        What is padded is written to memory. Sums over a mere part of the image would read it there,
        element by element: the 64-channel network took 2.5 seconds for a frame on two devices
        instead of 2.2 (two cores of a Zen 3).
        """
        return _pad(self._part(x, number, self.halo), ((0, 1), (0, 0)))

    def _part(self, x, number, halo: int) -> jax.Array:
        """A band's `[B, rows + halo, S, W, C]` of `[B, H, S, W, C]`."""
        sizes = (x.shape[0], self.rows + halo, *x.shape[2:])
        return lax.dynamic_slice(x, self._start(number), sizes)


def _most_elements(of_image: int, kernel_size: int) -> int:
    """The most elements of temporary arrays at once, for images that take so many each."""
    large, band = _WHOLE_ELEMENTS, _BAND_ELEMENTS
    if jax.local_device_count() > 1:
        large = _LARGE_ELEMENTS_OF_SEVERAL_DEVICES
        band = max(_BAND_ELEMENTS_OF_SEVERAL_DEVICES, _KERNELS_OF_A_BAND * kernel_size)
    return _WHOLE_ELEMENTS if of_image <= large else band


def _is_direct(x, kernel, border: Border, dilation: int, out_first: bool) -> bool:
    """Whether the compiler's own convolution of stride 1 is the quickest."""
    taps, features = kernel.shape[0], _features(kernel.shape, out_first)
    sizes = x.shape[1] + sum(border[0]), x.shape[3] + sum(border[1])
    height, width = (size - (taps - 1) * dilation for size in sizes)
    if width < _WIDE or min(features) < _DIRECT_FEATURES or jnp.finfo(x.dtype).bits < 32:
        return False
    if jax.local_device_count() > 1:
        return False
    batch = x.shape[0]
    products = batch * height * width * taps**2 * features[0] * features[1]
    form = _cheapest(batch, height, width, taps, dilation, features, x.dtype)
    return _DIRECT_COST * products < form.cost(batch, *features)


def _features(kernel_shape, out_first: bool) -> tuple[int, int]:
    """Channels of the input and of the output, phases counted, of `[K, S, K, ...]`."""
    _, phases, _, first, second = kernel_shape
    return (second, phases * first) if out_first else (phases * first, second)


def _cheapest(batch, height, width, taps, dilation, features, dtype) -> Winograd | Columns:
    forms: list[Winograd | Columns] = [Columns(height, width, taps, dilation)]
    # The transforms of half precision would lose what it has.
    if 1 < taps <= MAX_TAPS and jnp.finfo(dtype).bits >= 32:
        forms += Winograd.choices(height, width, taps, dilation)
    return min(forms, key=lambda form: form.cost(batch, *features))


def _padded_sizes(x, border: Border) -> list[int]:
    return [size + sum(pads) for size, pads in zip(x.shape[1:3], border, strict=True)]


def _pad_to(x, border: Border, sizes: list[int]) -> jax.Array:
    """Adds zeros around `[B, H, W, C]`, before and, up to these sizes, after; may also crop."""
    (top, _), (left, _) = border
    border = (top, sizes[0] - top - x.shape[1]), (left, sizes[1] - left - x.shape[2])
    return _pad(x[:, :, None], border)[:, :, 0]


def _pad(x, border: Border) -> jax.Array:
    """Adds zeros around the pixels of `[B, H, S, W, C]`; negative numbers crop."""
    (top, bottom), (left, right) = border
    none = (0, 0, 0)
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, (none, (top, bottom, 0), none, (left, right, 0), none))

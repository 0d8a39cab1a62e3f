"""What a network costs: parameters, and multiplications with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdeblur.models.layers import Conv, ConvTranspose


def num_parameters(module: nn.Module, channels: int = 3) -> int:
    """Counts the parameters of a network with 3 or 9 channels of input."""
    image = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    return sum(x.size for x in jax.tree.leaves(params))


def multiply_adds(module: nn.Module, shape: tuple[int, int, int, int]) -> int:
    """Counts the multiplications of a network's convolutions, done directly, for a batch.

    Each comes with an addition; a FLOP is half of the pair. Whatever has no learned kernel is left
    out, also KAIST_NET's adaptive convolution, 75 for a pixel.

    Args:
      module: the network.
      shape: of its input, `[B, H, W, C]`; H and W are rounded up to what it takes.
    """
    batch, height, width, channels = shape
    multiple = module.size_multiple
    height, width = (-(-size // multiple) * multiple for size in (height, width))
    total = 0

    def count(layer, arguments, options, context):
        nonlocal total
        y = layer(*arguments, **options)
        if isinstance(context.module, Conv | ConvTranspose):
            (x,) = arguments
            # Each number of the kernel meets every pixel of the smaller side once: of the output,
            # of a transposed convolution the input.
            pixels = min(x.size // x.shape[-1], y.size // y.shape[-1])
            total += context.module.variables["params"]["kernel"].size * pixels
        return y

    with nn.intercept_methods(count):
        image = jax.ShapeDtypeStruct((batch, height, width, channels), jnp.float32)
        jax.eval_shape(module.init, jax.random.key(0), image)
    return total

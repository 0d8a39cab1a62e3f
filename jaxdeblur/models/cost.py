"""What a network costs: parameters, and multiplications with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdeblur.models.layers import Layer
from jaxdeblur.models.variables import needed


def num_parameters(module: nn.Module, channels: int = 3) -> int:
    """Counts the parameters of a network with 3 or 9 channels of input."""
    return sum(x.size for x in jax.tree.leaves(needed(module, channels)["params"]))


def multiply_adds(module: nn.Module, shape: tuple[int, int, int, int]) -> int:
    """Counts the multiplications of a network's layers, done directly, for a batch.

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
        if isinstance(context.module, Layer) and context.method_name == "__call__":
            total += context.module.products(arguments, y)
        return y

    image = jax.ShapeDtypeStruct((batch, height, width, channels), jnp.float32)
    variables = needed(module, channels)
    # Applied: a network that is told to compute less initialises all the same.
    with nn.intercept_methods(count):
        jax.eval_shape(module.apply, variables, image)
    return total

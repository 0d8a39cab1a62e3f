"""The networks as one writes them in Flax: `nn.Conv`, `nn.ConvTranspose`, patches extracted.

For images, without batch normalisation. Layers have the names and kernel layouts of the package's,
so the same parameters fit both.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from plain_maxim import PlainMaxim
from plain_nafnet import PlainNafNet

from jaxdeblur.models import AtrousNet, CarloNet, KaistNet, Maxim, NafNet

leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.3)


def plain_apply(network: nn.Module) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns the plain version of a network, a function of variables and images."""
    kinds: dict[type, type[nn.Module]] = {
        AtrousNet: PlainAtrous,
        CarloNet: PlainCarlo,
        KaistNet: PlainKaist,
        Maxim: PlainMaxim,
        NafNet: PlainNafNet,
    }
    kind = kinds[type(network)]
    names = {field.name for field in dataclasses.fields(kind)} - {"parent", "name"}
    plain = kind(**{name: getattr(network, name) for name in names if hasattr(network, name)})
    return functools.partial(plain.apply, method="final" if kind is PlainMaxim else None)


class PlainAtrous(nn.Module):
    """ATROUS_NET."""

    num_channels: int
    num_blocks: int
    dtype: Any = None

    @nn.compact
    def __call__(self, blurred: jax.Array) -> jax.Array:
        conv = functools.partial(nn.Conv, dtype=self.dtype)
        full, half, quarter = (self.num_channels // scale for scale in (1, 2, 4))
        skip = leaky_relu(conv(half, (9, 9), name="stem")(blurred))
        x = leaky_relu(conv(full, (3, 3), strides=2, name="down")(skip))
        for i in range(self.num_blocks):
            x = PlainAtrousBlock(full, self.dtype, name=f"block_{i}")(x)
        up = nn.ConvTranspose(
            half, (3, 3), strides=(2, 2), transpose_kernel=True, dtype=self.dtype, name="up"
        )
        x = jnp.concatenate([leaky_relu(up(x)), skip], axis=-1)
        x = leaky_relu(conv(quarter, (3, 3), name="mix")(x))
        return blurred + conv(3, (3, 3), name="difference")(x).astype(blurred.dtype)


class PlainAtrousBlock(nn.Module):
    """Four dilations side by side, merged, plus the input."""

    num_channels: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
        branches = [
            leaky_relu(conv(self.num_channels // 2, kernel_dilation=d, name=f"dilated_{d}")(x))
            for d in (1, 2, 3, 4)
        ]
        merge = conv(self.num_channels, name="merge")
        return x + leaky_relu(merge(jnp.concatenate(branches, axis=-1)))


class PlainCarlo(nn.Module):
    """CARLO_NET."""

    num_filters: int
    dtype: Any = None

    @nn.compact
    def __call__(self, blurred: jax.Array) -> jax.Array:
        options = {"kernel_size": (3, 3), "padding": "VALID", "dtype": self.dtype}
        conv = functools.partial(nn.Conv, **options)
        deconv = functools.partial(nn.ConvTranspose, transpose_kernel=True, **options)
        x = blurred
        encoded = []
        for i in range(10):
            x = nn.relu(conv(self.num_filters, name=f"encoder_{i}")(x))
            encoded.append(x)
        for i in range(9):
            x = nn.relu(deconv(self.num_filters, name=f"decoder_{i}")(x))
            if i % 2 == 0:
                x = nn.relu(encoded[8 - i] + x)
        return nn.relu(deconv(3, name="decoder_9")(x)).astype(blurred.dtype)


class PlainKaist(nn.Module):
    """KAIST_NET."""

    num_blocks: int
    num_inner_blocks: int
    num_channels: int
    dtype: Any = None

    @nn.compact
    def __call__(self, blurred: jax.Array) -> jax.Array:
        def conv(features, taps, name):
            return nn.Conv(features, (taps, taps), dtype=self.dtype, name=name)

        def stage(x, block, depth, name):
            for i in range(depth):
                x = block(x.shape[-1], self.dtype, name=f"{name}_{i}")(x)
            return x

        def upsample(x):
            batch, height, width, features = x.shape
            return jax.image.resize(x, (batch, 2 * height, 2 * width, features), "nearest")

        full, half, quarter = (self.num_channels * scale for scale in (1, 2, 4))
        x = leaky_relu(conv(full, 5, "stem")(blurred))
        x = full_skip = stage(x, PlainDownUp, self.num_blocks, "encoder_full")
        x = conv(half, 1, "to_half")(nn.avg_pool(x, (2, 2), (2, 2)))
        x = half_skip = stage(x, PlainDownUp, self.num_blocks, "encoder_half")
        x = conv(quarter, 1, "to_quarter")(nn.avg_pool(x, (2, 2), (2, 2)))
        x = stage(x, PlainDownUp, self.num_inner_blocks, "encoder_quarter")
        x = stage(x, PlainUpDown, self.num_inner_blocks, "decoder_quarter")
        x = conv(half, 1, "from_quarter")(jnp.concatenate([upsample(x), half_skip], axis=-1))
        x = stage(x, PlainUpDown, self.num_blocks, "decoder_half")

        image = leaky_relu(conv(half, 5, "image_half")(x))
        image = jnp.concatenate([upsample(image), full_skip], axis=-1)
        image = leaky_relu(conv(full, 5, "image_full")(conv(full, 1, "image_mix")(image)))
        residual = conv(3, 5, "residual")(image).astype(blurred.dtype)
        weight = nn.sigmoid(conv(1, 5, "weight")(image)).astype(blurred.dtype)
        kernels = leaky_relu(conv(half, 5, "kernels_half")(x))
        kernels = conv(25, 5, "kernels")(conv(full, 5, "kernels_full")(upsample(kernels)))

        patches = jax.lax.conv_general_dilated_patches(
            blurred, (5, 5), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).reshape(*blurred.shape, 25)
        filtered = jnp.einsum("bhwck,bhwk->bhwc", patches, kernels.astype(blurred.dtype))
        return weight * filtered + (1 - weight) * residual


class PlainDownUp(nn.Module):
    """A convolution to half the size, a transposed one back, plus the input."""

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        down = nn.Conv(2 * self.features, (5, 5), strides=2, dtype=self.dtype, name="down")
        up = nn.ConvTranspose(
            self.features, (4, 4), (2, 2), transpose_kernel=True, dtype=self.dtype, name="up"
        )
        return x + leaky_relu(up(leaky_relu(down(x))))


class PlainUpDown(nn.Module):
    """A transposed convolution to twice the size, a convolution back, plus the input."""

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        up = nn.ConvTranspose(
            self.features // 2, (4, 4), (2, 2), transpose_kernel=True, dtype=self.dtype, name="up"
        )
        down = nn.Conv(self.features, (5, 5), strides=2, dtype=self.dtype, name="down")
        return x + leaky_relu(down(leaky_relu(up(x))))

"""Parts joined along the channels, against Flax's own layers and a concatenation."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxdeblur.models.joining import Affine, Doubled, Joined, Plain, Resized


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_parts_are_joined_as_if_they_lay_beside_one_another():
    plain, small, large, below = (
        normal(2, *size, channels, seed=i)
        for i, (size, channels) in enumerate([((8, 4), 3), ((4, 2), 5), ((16, 8), 2), ((4, 2), 4)])
    )
    to_larger, to_smaller = (Affine(normal(n, 3, seed=n), normal(3, seed=9 * n)) for n in (5, 2))
    doubling = Affine(normal(2, 2, 4, 6, seed=20), normal(6, seed=21))
    kernel, bias = normal(1, 1, 15, 7, seed=22), normal(7, seed=23)

    def joined():
        parts = [
            Plain(plain),
            Resized(small, 2.0, to_larger),
            Resized(large, 0.5, to_smaller),
            Doubled(below, doubling),
        ]
        return Joined(7).apply({"params": {"kernel": kernel, "bias": bias}}, parts)

    def beside():
        def resized(x):
            return jax.image.resize(x, (2, 8, 4, x.shape[-1]), "bilinear", antialias=True)

        transposed = nn.ConvTranspose(6, (2, 2), strides=(2, 2))
        doubled = transposed.apply({"params": doubling._asdict()}, below)
        mapped = [
            resized(x) @ affine.kernel + affine.bias
            for x, affine in ((small, to_larger), (large, to_smaller))
        ]
        return jnp.concatenate([plain, *mapped, doubled], axis=-1) @ kernel[0, 0] + bias

    restored, expected = jax.jit(lambda: (joined(), beside()))()
    assert restored.shape == (2, 8, 4, 7)
    np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-4)

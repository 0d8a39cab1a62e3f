"""The 1x1 convolution and its gradients, against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdeblur.convolutions import pointwise_convolve


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (7, 3)], ids=str)
def test_product_and_gradients_are_those_of_torch(shape):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, kernel, cotangent = (
        rng.normal(size=size).astype(np.float32) for size in (shape, (3, 6), (*shape[:-1], 6))
    )
    product, vjp = jax.vjp(pointwise_convolve, x, kernel)
    x_torch, kernel_torch = (torch.tensor(array, requires_grad=True) for array in (x, kernel))
    expected = torch.nn.functional.linear(x_torch, kernel_torch.T)
    expected.backward(torch.tensor(cotangent))
    np.testing.assert_allclose(product, expected.detach().numpy(), atol=1e-5)
    for gradient, theirs in zip(vjp(cotangent), (x_torch.grad, kernel_torch.grad), strict=True):
        np.testing.assert_allclose(gradient, theirs.numpy(), atol=1e-5)


def test_half_precision_stays_half():
    x, kernel = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.bfloat16)
    product, vjp = jax.vjp(pointwise_convolve, x, kernel)
    assert {array.dtype for array in (product, *vjp(product))} == {jnp.dtype(jnp.bfloat16)}


def test_a_gpu_turns_no_factor_beforehand():
    def gradients(x, kernel):
        return jax.grad(lambda x, kernel: pointwise_convolve(x, kernel).sum(), (0, 1))(x, kernel)

    traced = jax.jit(gradients).trace(jnp.ones((5, 3)), jnp.ones((3, 4)))
    texts = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda")
    }
    assert "optimization_barrier" in texts["cpu"]
    assert "optimization_barrier" not in texts["cuda"]

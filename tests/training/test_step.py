import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from skimage.metrics import peak_signal_noise_ratio

from jaxdeblur import losses
from jaxdeblur.convolutions import SWITCH
from jaxdeblur.data.blur import make_pair
from jaxdeblur.models import AtrousNet
from jaxdeblur.training.state import create_state
from jaxdeblur.training.step import train_step


@pytest.fixture
def step_and_state():
    module = AtrousNet(num_channels=4, num_blocks=1)
    optimizer = optax.sgd(0.1)
    options = {"module": module, "optimizer": optimizer}
    init = functools.partial(create_state, **options, patch_size=16, channels=3, ema=True)
    step = functools.partial(train_step, **options, loss=losses.l1, ema_decay=0.9, max_sigma=1.0)
    return module, jax.jit(step), jax.jit(init)(jax.random.key(0))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
    return {"sharp": sharp, "sigma": rng.uniform(0, 1, 4).astype(np.float32)}


def test_train_step_moves_against_the_gradient_and_averages(step_and_state, batch):
    module, step, state = step_and_state
    blurred, sharp = jax.jit(make_pair, static_argnums=1)(batch, 1.0)

    def loss(params):
        restored = module.apply({"params": params}, blurred)
        return jnp.abs(restored - sharp).mean(), restored

    (value, restored), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.params)
    after, measured = step(state, batch)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
    # The first step averages with (1 + 0) / (10 + 0).
    average = jax.tree.map(lambda p, q: 0.1 * p + 0.9 * q, state.params, expected)
    for tree, reference in ((after.params, expected), (after.ema_params, average)):
        for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-6)
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(measured["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(measured["loss"], value, rtol=1e-5)
    psnr = peak_signal_noise_ratio(np.asarray(sharp), np.clip(restored, 0, 1), data_range=1)
    np.testing.assert_allclose(measured["psnr"], psnr, rtol=1e-5)
    assert int(after.step) == 1


def test_a_step_by_the_packages_convolutions_is_that_by_the_compilers(batch, monkeypatch):
    module = AtrousNet(num_channels=8, num_blocks=1)
    options = {"module": module, "optimizer": optax.sgd(0.1)}
    state = create_state(jax.random.key(0), **options, patch_size=16, channels=3, ema=False)
    step = functools.partial(train_step, **options, loss=losses.mse, ema_decay=0.0, max_sigma=1.0)
    results = {}
    for how in ("compiler", "own"):
        monkeypatch.setenv(SWITCH, how)
        jax.clear_caches()
        program = jax.jit(step).lower(state, batch)
        assert ("dot_general" in program.as_text()) == (how == "own")
        results[how] = program.compile()(state, batch)
    jax.clear_caches()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), *results.values())


def test_batch_statistics_are_carried_along(batch):
    module = AtrousNet(num_channels=4, num_blocks=1, batch_norm=True)
    optimizer = optax.sgd(0.1)
    options = {"module": module, "optimizer": optimizer}
    init = functools.partial(create_state, **options, patch_size=16, channels=3, ema=False)
    state = jax.jit(init)(jax.random.key(0))
    step = functools.partial(train_step, **options, loss=losses.l1, ema_decay=0.0, max_sigma=1.0)
    after, _ = jax.jit(step)(state, batch)
    before, now = (jax.tree.leaves(s.model_state["batch_stats"]) for s in (state, after))
    assert any((x != y).any() for x, y in zip(before, now, strict=True))
    assert after.ema_params is None


# Gradients of parts. A small network: the step knows nothing of what is in one.


class Small(nn.Module):
    batch_norm: bool = False

    @nn.compact
    def __call__(self, blurred, train=False):
        x = nn.Conv(4, (3, 3))(blurred)
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return blurred + nn.Conv(3, (3, 3))(nn.tanh(x))


def make_step(num_parts, *, batch_norm=False, loss=losses.l1):
    """Returns the jitted step, of plain gradient descent, and a first state."""
    options = {"module": Small(batch_norm), "optimizer": optax.sgd(0.1)}
    init = functools.partial(create_state, **options, patch_size=16, channels=3, ema=True)
    step = functools.partial(
        train_step,
        **options,
        loss=loss,
        ema_decay=0.9,
        max_sigma=1.0,
        grad_accum_steps=num_parts,
    )
    return jax.jit(step), jax.jit(init)(jax.random.key(0))


def make_batch(size):
    rng = np.random.default_rng(1)
    sharp = rng.integers(0, 256, (size, 16, 16, 3), np.uint8)
    return {"sharp": sharp, "sigma": rng.uniform(0, 1, size).astype(np.float32)}


@pytest.fixture(scope="module")
def whole():
    step, state = make_step(1)
    return step(state, make_batch(8))


@pytest.mark.parametrize("num_parts", [2, 4, 8])
def test_the_gradient_of_parts_is_that_of_the_whole_batch(whole, num_parts):
    step, state = make_step(num_parts)
    found = step(state, make_batch(8))
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
    for x, y in zip(jax.tree.leaves(whole[0].params), jax.tree.leaves(state.params), strict=True):
        assert abs(x - y).max() > 1e-4  # what is compared has moved


@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_the_parts_are_worked_through_one_at_a_time_and_of_equal_size(num_parts):
    shapes = []

    def loss(restored, sharp):
        shapes.append((restored.shape, sharp.shape))
        return losses.l1(restored, sharp)

    step, state = make_step(num_parts, loss=loss)
    jax.eval_shape(step, state, make_batch(8))
    assert set(shapes) == {((8 // num_parts, 16, 16, 3),) * 2}


@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_statistics_are_carried_from_part_to_part(num_parts):
    step, state = make_step(num_parts, batch_norm=True)
    after, _ = step(state, make_batch(8))
    blurred, _ = jax.jit(make_pair, static_argnums=1)(make_batch(8), 1.0)
    first = jax.jit(nn.Conv(4, (3, 3)).apply)
    images = np.asarray(first({"params": state.params["Conv_0"]}, blurred), np.float64)
    mean, var = np.zeros(4), np.ones(4)
    for part in range(num_parts):
        # Every device has some of its own images in every part.
        seen = images[part::num_parts].reshape(-1, 4)
        mean, var = (mean + seen.mean(0)) / 2, (var + seen.var(0)) / 2
    found = after.model_state["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["var"], var, rtol=1e-5)


def test_the_gradient_of_parts_with_statistics_is_the_mean_of_theirs():
    step, state = make_step(2, batch_norm=True)
    after, measured = step(state, make_batch(8))
    blurred, sharp = jax.jit(make_pair, static_argnums=1)(make_batch(8), 1.0)

    @jax.jit
    @jax.value_and_grad
    def of_part(params, blurred, sharp):
        variables = {"params": params, **state.model_state}
        restored, _ = Small(True).apply(variables, blurred, train=True, mutable=["batch_stats"])
        return jnp.abs(restored - sharp).mean()

    parts = [of_part(state.params, blurred[i::2], sharp[i::2]) for i in range(2)]
    np.testing.assert_allclose(measured["loss"], np.mean([x for x, _ in parts]), rtol=1e-6)
    expected = jax.tree.map(
        lambda p, *g: p - 0.1 * sum(g) / 2, state.params, *(g for _, g in parts)
    )
    for x, y in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)

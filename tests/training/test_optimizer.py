import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdeblur.configs import quickstart
from jaxdeblur.training import optimizer


def make_config(**values):
    config = quickstart.get_config()
    config.update(values)
    return config


def test_each_gradient_is_clipped_by_its_own_norm():
    grads = {"long": jnp.array([3.0, 4.0]), "short": jnp.array([0.3, 0.4]), "zero": jnp.zeros(2)}
    clipped, _ = optimizer.clip_each_by_norm(1.0).update(grads, optax.EmptyState())
    np.testing.assert_allclose(clipped["long"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(clipped["short"], [0.3, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(clipped["zero"], [0, 0])


def test_the_optimizer_is_adam_with_warm_up_and_cosine():
    torch = pytest.importorskip("torch")
    config = make_config(
        learning_rate=0.1,
        schedule="cosine",
        warmup_steps=2,
        grad_clip_norm=1.0,
        grad_clip="global",
        adam_b2=0.9,
    )
    adam = optimizer.make_optimizer(config, num_steps=10)
    params = {"w": jnp.array([1.0, -2.0, 3.0])}
    opt_state = adam.init(params)
    weight = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    reference = torch.optim.Adam([weight], lr=1.0, betas=(0.9, 0.9), eps=1e-8)
    rates = [0.0, 0.05, *(0.05 * (1 + np.cos(np.pi * i / 8)) for i in range(8))]
    for i, rate in enumerate(rates):
        grad = np.array([1.0, 2.0, -1.0]) * (i + 1)
        reference.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor(grad / max(1, np.linalg.norm(grad)), dtype=torch.float32)
        reference.step()
        updates, opt_state = adam.update({"w": jnp.array(grad)}, opt_state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], weight.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("grad_clip", ["each", "global"])
def test_clipping_is_as_configured_or_off(grad_clip):
    # Adam's steps hardly tell how long the gradients were; its average of them does.
    grads = {"a": jnp.array([30.0, 40.0]), "b": jnp.array([0.0, 120.0])}
    config = make_config(schedule="constant", warmup_steps=0, grad_clip=grad_clip)
    found = {}
    for norm in (0.0, 13.0):
        config.grad_clip_norm = norm
        adam = optimizer.make_optimizer(config, num_steps=10)
        _, state = adam.update(grads, adam.init(grads), grads)
        found[norm] = optax.tree_utils.tree_get(state, "mu")
    scales = {"each": {"a": 13 / 50, "b": 13 / 120}, "global": {"a": 0.1, "b": 0.1}}[grad_clip]
    for name, scale in scales.items():
        np.testing.assert_allclose(found[0.0][name], 0.1 * grads[name], rtol=1e-6)
        np.testing.assert_allclose(found[13.0][name], 0.1 * scale * grads[name], rtol=1e-6)


def test_a_warm_up_longer_than_the_run_is_no_error():
    config = make_config(warmup_steps=20, learning_rate=1.0, grad_clip_norm=0.0)
    adam = optimizer.make_optimizer(config, num_steps=10)
    params = {"w": jnp.ones(1)}
    state = adam.init(params)
    for i in range(10):
        updates, state = adam.update({"w": jnp.ones(1)}, state, params)
        np.testing.assert_allclose(updates["w"], [-i / 20], rtol=1e-5, atol=1e-7)


def adamw(params, grads, rates, b1, b2, decay):
    """The published algorithm in float64: the parameters after each step."""
    mean, square, after = 0, 0, []
    for i, (grad, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        mean, square = b1 * mean + (1 - b1) * grad, b2 * square + (1 - b2) * grad**2
        step = (mean / (1 - b1**i)) / (np.sqrt(square / (1 - b2**i)) + 1e-8)
        params = params - rate * (step + decay * params)
        after.append(params)
    return after


@pytest.mark.parametrize(("b1", "b2", "decay"), [(0.9, 0.9, 1e-3), (0.5, 0.99, 0.3), (0.0, 0.9, 0)])
def test_weights_decay_apart_from_the_gradients(b1, b2, decay):
    config = make_config(
        learning_rate=0.1, schedule="constant", warmup_steps=0, grad_clip_norm=0.0,
        adam_b1=b1, adam_b2=b2, weight_decay=decay, final_learning_rate=0.05,
    )  # fmt: skip
    adam = optimizer.make_optimizer(config, num_steps=6)
    grads = np.random.default_rng(0).normal(size=(6, 3))
    params = {"w": jnp.array([1.0, -2.0, 30.0])}
    state = adam.init(params)
    # At a constant rate, to which the final one means nothing.
    expected = adamw(np.array([1.0, -2.0, 30.0]), grads, [0.1] * 6, b1, b2, decay)
    for grad, after in zip(grads, expected, strict=True):
        updates, state = adam.update({"w": jnp.asarray(grad)}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], after, rtol=1e-5)


def steps_of(config, num_steps):
    """By how much a parameter moves in each step along a constant gradient: the rate."""
    adam = optimizer.make_optimizer(config, num_steps)
    params = {"w": jnp.ones(1)}
    state, moved = adam.init(params), []
    for _ in range(num_steps + 2):
        updates, state = adam.update({"w": jnp.ones(1)}, state, params)
        moved.append(-float(updates["w"][0]))
    return moved


def test_a_cosine_ends_at_the_final_rate():
    config = make_config(
        learning_rate=0.8, schedule="cosine", final_learning_rate=0.2, warmup_steps=2,
        grad_clip_norm=0.0,
    )  # fmt: skip
    cosine = [0.2 + 0.3 * (1 + np.cos(np.pi * i / 8)) for i in range(9)]
    np.testing.assert_allclose(steps_of(config, 10), [0, 0.4, *cosine, 0.2], rtol=1e-4)


def test_without_a_rate_nothing_moves():
    config = make_config(learning_rate=0.0, schedule="cosine", warmup_steps=0, weight_decay=0.1)
    np.testing.assert_array_equal(steps_of(config, 3), np.zeros(5))

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
from jaxdeblur.models import AtrousNet, Maxim
from jaxdeblur.training.state import create_state
from jaxdeblur.training.step import mixed_pairs, train_step


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


@pytest.mark.slow
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


# Networks of several pictures.


class Pyramid(nn.Module):
    """Two stages, of each a picture at a quarter, half and all of the size."""

    def __call__(self, blurred, train=False):
        return self.outputs(blurred, train)[-1][-1]

    @nn.compact
    def outputs(self, blurred, train=False):
        stages, picture = [], blurred
        for _ in range(2):
            picture = picture + nn.Conv(3, (3, 3))(picture)
            stages.append([picture[:, 2::4, 2::4], picture[:, 1::2, 1::2], picture])
        return stages


@pytest.mark.parametrize("num_parts", [1, 2])
def test_a_network_of_several_pictures_is_trained_on_all_of_them(num_parts):
    options = {"module": Pyramid(), "optimizer": optax.sgd(0.1)}
    init = functools.partial(create_state, **options, patch_size=16, channels=3, ema=False)
    state = jax.jit(init)(jax.random.key(0))
    step = functools.partial(train_step, **options, loss=losses.l1, ema_decay=0.0, max_sigma=1.0)
    after, measured = jax.jit(functools.partial(step, grad_accum_steps=num_parts))(
        state, make_batch(4)
    )
    blurred, sharp = jax.jit(make_pair, static_argnums=1)(make_batch(4), 1.0)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def by_hand(params):
        convolve = nn.Conv(3, (3, 3)).apply
        first = blurred + convolve({"params": params["Conv_0"]}, blurred)
        second = first + convolve({"params": params["Conv_1"]}, first)
        total = 0
        for picture in (first, second):
            # The sharp pixels that lie where those of the smaller pictures do.
            total += jnp.abs(picture - sharp).mean()
            total += jnp.abs(picture - sharp)[:, 1::2, 1::2].mean()
            total += jnp.abs(picture - sharp)[:, 2::4, 2::4].mean()
        return total, second

    (total, restored), grads = by_hand(state.params)
    np.testing.assert_allclose(measured["loss"], total, rtol=1e-5)
    psnr = peak_signal_noise_ratio(np.asarray(sharp), np.clip(restored, 0, 1), data_range=1)
    np.testing.assert_allclose(measured["psnr"], psnr, rtol=1e-5)  # of the last one alone
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
    for x, y in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_maxim_is_trained_on_the_three_pictures_of_each_stage():
    module = Maxim(num_features=4, num_stages=1, num_groups=1, num_bottleneck_blocks=1)
    options = {"module": module, "optimizer": optax.sgd(0.1)}
    init = functools.partial(create_state, **options, patch_size=64, channels=3, ema=True)
    sizes = []

    def loss(restored, sharp):
        assert restored.shape == sharp.shape
        sizes.append(restored.shape)
        return losses.charbonnier_frequency(restored, sharp)

    step = functools.partial(train_step, **options, loss=loss, ema_decay=0.9, max_sigma=1.0)
    batch = {
        "sharp": jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8),
        "sigma": jax.ShapeDtypeStruct((2,), jnp.float32),
    }
    state = jax.eval_shape(init, jax.random.key(0))
    after, measured = jax.eval_shape(functools.partial(step, mixup=0.5), state, batch)
    assert sizes == [(2, 16, 16, 3), (2, 32, 32, 3), (2, 64, 64, 3)]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert all(value.shape == () for value in measured.values())


# Mixed pairs.


def shares_of(mixed, images):
    """What each image has of its own, by its first value; the rest is of the one before."""
    own, before = images[:, 0, 0, 0], np.roll(images[:, 0, 0, 0], 1)
    return (np.asarray(mixed)[:, 0, 0, 0] - before) / (own - before)


def test_pairs_are_mixed_with_their_neighbour_blurred_and_sharp_alike():
    rng = np.random.default_rng(0)
    blurred, sharp = rng.random((6, 4, 5, 9)), rng.random((6, 4, 5, 3))
    mixed = mixed_pairs(jax.random.key(1), jnp.asarray(blurred), jnp.asarray(sharp), 1.0)
    shares = shares_of(mixed[0], blurred)
    assert ((shares > 0) & (shares < 1)).all()
    assert np.ptp(shares) > 0.1
    for images, found in zip((blurred, sharp), mixed, strict=True):
        own = shares[:, None, None, None]
        expected = own * images + (1 - own) * np.roll(images, 1, axis=0)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_a_chance_of_mixing_pairs_stay_as_they_are():
    pair = [jnp.asarray(x) for x in np.random.default_rng(0).random((2, 6, 4, 5, 3))]
    for before, after in zip(pair, mixed_pairs(jax.random.key(1), *pair, 0.0), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_shares_have_the_published_distribution(probability):
    images = np.arange(21_000.0).reshape(-1, 1, 1, 1) % 7  # neighbours differ
    mixed, _ = mixed_pairs(jax.random.key(2), *[jnp.asarray(images)] * 2, probability)
    shares = shares_of(mixed, images)
    chosen = shares[np.abs(shares - 1) > 1e-6]
    assert len(chosen) / len(shares) == pytest.approx(probability, abs=0.02)
    # Of Beta(a, a) the variance is 1 / (4 * (2 * a + 1)).
    assert chosen.mean() == pytest.approx(0.5, abs=0.02)
    assert chosen.var() == pytest.approx(1 / (4 * 3.4), abs=0.003)


def test_a_step_mixes_its_own_way_each_time():
    # Of one level each; their differences from the sharp ones are 10, 20, 30 and 40 levels.
    levels = np.arange(1, 5, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 8, 8, 3), np.uint8)
    batch = {"sharp": 50 * levels, "blurred": 40 * levels}

    class Same(nn.Module):
        @nn.compact
        def __call__(self, blurred, train=False):
            return blurred + self.param("bias", nn.initializers.zeros, (3,))

    options = {"module": Same(), "optimizer": optax.sgd(0.0)}
    state = create_state(jax.random.key(0), **options, patch_size=8, channels=3, ema=False)

    def losses_with(mixup):
        step = functools.partial(
            train_step, **options, loss=losses.l1, ema_decay=0.0, max_sigma=1.0, mixup=mixup
        )
        step, now, values = jax.jit(step), state, []
        for _ in range(3):
            now, measured = step(now, batch)
            values.append(255 * float(measured["loss"]))
        return values

    np.testing.assert_allclose(losses_with(0.0), [25, 25, 25], rtol=1e-5)
    mixed = losses_with(1.0)
    assert all(10 < value < 40 for value in mixed)
    assert len({round(value, 3) for value in [*mixed, 25]}) == 4
    assert losses_with(1.0) == mixed

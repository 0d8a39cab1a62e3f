import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import state_shapes

from jaxdeblur.configs import (
    atrous_cifar_small,
    atrous_reds,
    carlo_cifar,
    kaist_cifar,
)
from jaxdeblur.training.state import make_parts


@pytest.mark.parametrize(
    ("config", "channels", "count"),
    # As published.
    [(carlo_cifar, 3, 2_663_555), (kaist_cifar, 3, 11_590_813), (atrous_reds, 9, 24_433_539)],
)
def test_a_state_has_the_networks_parameters(config, channels, count):
    state = state_shapes(config.get_config(), channels)
    assert sum(x.size for x in jax.tree.leaves(state.params)) == count
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_first_state_is_what_was_told_of_it(decay):
    config = atrous_cifar_small.get_config()
    config.model_kwargs.num_channels, config.model_kwargs.num_blocks = 4, 1
    config.ema_decay, config.dtype = decay, "bfloat16"
    parts = make_parts(config, num_steps=10, channels=3)
    assert parts.module.dtype == jnp.bfloat16
    state = jax.jit(parts.init)(jax.random.key(0))
    told = state_shapes(config)
    assert jax.tree.structure(state) == jax.tree.structure(told)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(told), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
    assert state.step == 0
    # Parameters stay float32 whatever the arithmetic, and their average begins at them.
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.params))
    assert (state.ema_params is None) == (decay == 0)
    if decay:
        for x, y in zip(*map(jax.tree.leaves, (state.params, state.ema_params)), strict=True):
            np.testing.assert_array_equal(x, y)


def test_first_parameters_are_those_of_the_networks_init_however_they_are_drawn():
    config = atrous_cifar_small.get_config()
    config.model_kwargs.num_channels, config.model_kwargs.num_blocks = 4, 1
    parts = make_parts(config, num_steps=10, channels=3)
    key = jax.random.key(3)
    expected = jax.jit(parts.module.init)(key, jnp.zeros((1, 8, 8, 3)))["params"]
    assert np.std(expected["stem"]["kernel"]) > 0
    for draw in (jax.jit(parts.init), parts.init):
        params = draw(key).params
        assert jax.tree.structure(params) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, params, expected)

"""MAXIM: its stages, its sizes and its parts, against the published arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdeblur import convert
from jaxdeblur.errors import InputError
from jaxdeblur.models import Maxim, create_model, describe_model

# LLVM's optimisations take most of the time to compile.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

TINY = Maxim(num_features=4, num_stages=2, num_groups=1, num_bottleneck_blocks=1)


def shapes_of(module, x):
    return jax.eval_shape(module.init, jax.random.key(0), x)


@functools.cache
def tiny_shapes():
    """An image of three frames, and the variables that the network has with one stage's effort."""
    x = jax.ShapeDtypeStruct((1, 128, 64, 9), jnp.float32)
    return x, shapes_of(TINY.clone(effort=1), x)


@pytest.mark.parametrize(("effort", "stages"), [(None, 2), (1, 1)])
def test_each_stage_gives_a_picture_of_three_sizes(effort, stages):
    x, variables = tiny_shapes()
    apply = functools.partial(TINY.clone(effort=effort).apply, method="outputs")
    pictures = jax.eval_shape(apply, variables, x)
    sizes = [(1, 32, 16, 3), (1, 64, 32, 3), (1, 128, 64, 3)]
    assert [[picture.shape for picture in stage] for stage in pictures] == [sizes] * stages
    assert {x.dtype for x in jax.tree.leaves(pictures)} == {jnp.dtype("float32")}


def test_an_effort_needs_the_parameters_of_its_stages_alone():
    x, variables = tiny_shapes()
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    names = ["/".join(key.key for key in path) for path, _ in leaves]

    def names_used(module):
        program = jax.make_jaxpr(module.apply)(variables, x).jaxpr
        used = {variable for equation in program.eqns for variable in map(id, equation.invars)}
        inputs = zip(names, program.invars[: len(names)], strict=True)
        return {name for name, variable in inputs if id(variable) in used}, len(program.eqns)

    (all_used, everything), (used, fewer) = names_used(TINY), names_used(TINY.clone(effort=1))
    assert all_used == set(names)
    # What resizes is numbered through: 18 for each stage.
    first = {f"UpSampleRatio_{i}" for i in range(18)}
    expected = {name for name in names if name.startswith("stage_0") or name.split("/")[0] in first}
    assert used == expected
    assert fewer < everything / 2


@pytest.mark.slow
def test_effort_gives_the_picture_of_an_earlier_stage(parity):
    module, params = convert.from_maxim(parity / "maxim.checkpoint.npz")
    with np.load(parity / "maxim.npz") as expected:
        picture = expected["stage_0_scale_2"]
        restored = quick_jit(module.clone(effort=1).apply)({"params": params}, expected["input"])
    assert np.abs(restored - picture).max() <= 1e-4 * np.abs(picture).max()


@pytest.mark.parametrize("effort", [0, 3, -1])
def test_an_effort_that_the_network_has_not_is_named(effort):
    with pytest.raises(InputError, match=f"effort = {effort} must be from 1 to 2 for maxim"):
        shapes_of(TINY.clone(effort=effort), jnp.zeros((1, 64, 64, 3)))


def test_effort_is_no_part_of_a_networks_description():
    module = create_model("maxim", num_features=8, effort=1)
    name, fields = describe_model(module)
    assert "effort" not in fields
    assert create_model(name, **fields) == Maxim(num_features=8)


def test_a_stage_adds_to_the_nearest_pixels_of_the_current_frame():
    x = np.random.default_rng(0).random((1, 64, 64, 9), dtype=np.float32)
    module = TINY.clone(num_stages=1)
    shapes = shapes_of(module, x)
    apply = quick_jit(functools.partial(module.apply, method="outputs"))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    ((quarter, half, full),) = apply(zeros, x)
    current = x[..., 3:6]
    np.testing.assert_array_equal(full, current)
    # The pixel nearest to the middle of a square, of the four there are the one below and right.
    np.testing.assert_array_equal(half, current[:, 1::2, 1::2])
    np.testing.assert_array_equal(quarter, current[:, 2::4, 2::4])

    rng = np.random.default_rng(1)
    random = jax.tree.map(
        lambda s: jnp.asarray(0.2 * rng.uniform(-0.5, 1, s.shape), s.dtype), shapes
    )
    for picture in jax.tree.leaves(apply(random, x)):
        assert jnp.isfinite(picture).all()
        assert picture.std() > 0
    assert np.abs(picture - current).max() > 0.01

import os
import subprocess
import sys

import jax
import pytest

from jaxdeblur.convolutions import SWITCH, shares
from jaxdeblur.models import create_model

# Networks of both formulations of the convolutions, on one device and on three.
_DIVIDED = """
import functools, re, sys
import jax, numpy as np
from jaxdeblur.convolutions import SWITCH, shares
from jaxdeblur.models import create_model

def close(name, channels, **fields):
    module = create_model(name, **fields)
    images = np.random.default_rng(0).random((2, 24, 96, channels), dtype=np.float32)
    shape = jax.eval_shape(module.init, jax.random.key(0), images)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda s: 0.3 * rng.uniform(-0.5, 1, s.shape).astype("f"), shape)
    quick_jit = functools.partial(
        jax.jit, compiler_options={"xla_backend_optimization_level": 0}
    )
    expected = np.asarray(quick_jit(module.apply)(variables, images))
    placed = jax.device_put(images, shares.sharding(jax.devices()))
    call = quick_jit(shares.divided_apply(module, jax.devices())).lower(variables, placed).compile()
    restored = call(variables, placed)
    assert {shard.data.shape for shard in restored.addressable_shards} == {(2, 24, 32, 3)}
    np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-5 * abs(expected).max())
    assert not re.search("all-(gather|to-all|reduce)", call.as_text())

assert jax.device_count() == 3
close("kaist_net", 3, num_blocks=1, num_inner_blocks=1, num_channels=8)
close("atrous_net", 9, num_channels=8, num_blocks=1)
"""


@pytest.mark.parametrize("formulation", [pytest.param("own", marks=pytest.mark.slow), "compiler"])
def test_devices_restore_an_image_together(formulation):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "3", "JAX_PLATFORMS": "cpu"}
    environment[SWITCH] = formulation
    subprocess.run([sys.executable, "-c", _DIVIDED], env=environment, check=True)


@pytest.mark.parametrize(
    ("name", "width", "count", "expected"),
    [
        ("atrous_net", 128, 2, True),
        ("atrous_net", 128, 4, True),
        ("atrous_net", 126, 2, False),  # 63 columns start between the pixels of half the size
        ("atrous_net", 128, 3, False),
        ("atrous_net", 128, 8, False),  # too narrow
        ("kaist_net", 1280, 2, True),
        ("kaist_net", 1288, 2, False),  # 644 is no multiple of 8
        ("carlo_net", 1280, 2, False),  # its layers lose a border
    ],
)
def test_shares_are_equal_and_lie_on_the_grid(name, width, count, expected):
    assert shares.fit(create_model(name), width, count) == expected


def test_columns_that_do_not_divide_are_refused():
    apply = shares.divided_apply(create_model("carlo_net"), jax.devices()[:1])
    with pytest.raises(ValueError, match="40 columns do not divide among 1 for CarloNet"):
        apply({}, jax.ShapeDtypeStruct((1, 40, 40, 3), "float32"))

"""Whether arrays are those of a network."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdeblur.errors import InputError
from jaxdeblur.models import create_model
from jaxdeblur.models.variables import channels_of, check_shapes, needed

MODULES = {
    "atrous_net": create_model("atrous_net", num_channels=4, num_blocks=1),
    "nafnet": create_model("nafnet", width=4, encoder_blocks=(1,), decoder_blocks=(1,)),
}


def arrays(module, channels):
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 8, 8, channels)))
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@pytest.mark.parametrize("channels", [3, 9])
@pytest.mark.parametrize("name", MODULES)
def test_the_channels_of_the_input_are_known_by_the_shapes(name, channels):
    module = MODULES[name]
    variables = arrays(module, channels)
    assert channels_of(module, variables) == channels
    assert jax.tree.map(np.shape, variables) == jax.tree.map(
        lambda x: x.shape, needed(module, channels)
    )
    check_shapes(module, variables, channels, "net")
    with pytest.raises(InputError, match=r"^net: params/\w+/kernel has shape .*do not belong"):
        check_shapes(module, variables, 12 - channels, "net")


def test_asking_for_shapes_leaves_a_network_its_first_parameters():
    module = create_model("nafnet", width=4, encoder_blocks=(1,), decoder_blocks=(1,), window=7)
    needed(module, 3)
    first = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 64, 64, 3)))["params"]
    assert np.std(first["intro"]["kernel"]) > 0.01
    np.testing.assert_array_equal(first["decoder_0_0"]["norm1"]["scale"], np.ones(4))


def test_arrays_of_another_network_have_no_channels():
    module = MODULES["nafnet"]
    flat = flatten_dict(arrays(module, 3))
    for place, array in (
        (("params", "intro", "kernel"), np.zeros((3, 3, 6, 4))),  # of two frames
        (("params", "extra", "bias"), np.zeros(4)),
    ):
        wrong = unflatten_dict(flat | {place: array})
        assert channels_of(module, wrong) is None
        with pytest.raises(InputError, match=f"^net: {'/'.join(place)} has shape .*NafNet with 3"):
            check_shapes(module, wrong, 3, "net")
    del flat["params", "middle_0", "gamma"]
    assert channels_of(module, unflatten_dict(flat)) is None
    with pytest.raises(InputError, match=r"middle_0/gamma has shape None, but .* needs \(8,\)"):
        check_shapes(module, unflatten_dict(flat), 3, "net")

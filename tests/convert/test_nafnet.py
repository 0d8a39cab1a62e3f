import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from foreign_files import save_torch
from safetensors.numpy import save_file

from jaxdeblur import convert
from jaxdeblur.convert.torch_file import read_state_dict
from jaxdeblur.errors import InputError
from jaxdeblur.models import NafNet

# LLVM's optimisations take most of the time to compile.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture
def tensors(parity):
    return read_state_dict(parity / "nafnet.pth")


def assert_refused(path, match):
    with pytest.raises(InputError, match=match) as refusal:
        convert.from_nafnet(path)
    assert path.name in str(refusal.value)


def test_converted_network_gives_what_pytorch_gave(parity):
    module, params, source = convert.read(parity / "nafnet.pth")
    expected = NafNet(
        width=8, encoder_blocks=(1, 2), num_middle_blocks=1, decoder_blocks=(1, 1)
    )  # fmt: skip
    assert module == expected
    assert source == "NAFNet, nafnet.pth"
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    with np.load(parity / "nafnet.npz") as arrays:
        blurred, expected = arrays["input"], arrays["output"]
    restored = np.asarray(quick_jit(module.apply)({"params": params}, blurred))
    assert restored.shape == expected.shape
    assert np.abs(restored - expected).max() <= 1e-4


def test_safetensors_file_gives_the_same_parameters(parity, tensors, tmp_path):
    contiguous = {f"module.{name}": np.array(x, order="C") for name, x in tensors.items()}
    save_file(contiguous, tmp_path / "net")
    module, params = convert.from_nafnet(tmp_path / "net")
    expected_module, expected = convert.from_nafnet(str(parity / "nafnet.pth"))
    assert module == expected_module
    params, expected = flatten_dict(params), flatten_dict(expected)
    assert params.keys() == expected.keys()
    for place in params:
        np.testing.assert_array_equal(params[place], expected[place])


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("encoders.0.0.se.1.weight", "Baseline"),
        ("body.0.module.blk.sca.1.weight", "NAFSSR"),
        ("refinement.0.attn.qkv_dwconv.weight", "Restormer"),
        ("refinement.0.attn.to_hidden_dw.weight", "FFTformer"),
        ("module.stage3_orsnet.orb1.body.0.CA.conv_du.0.weight", "MPRNet"),
        ("skip_conv_1.0.weight", "HINet"),
        ("module.encoderlayer_0.blocks.0.norm1.weight", "Uformer"),
        ("FAM1.merge.main.0.weight", "MIMO-UNet"),
        ("module.Trans_block_1.attention_norm.weight", "Stripformer"),
        ("module.fpn.lateral0.weight", "DeblurGAN-v2"),
        ("conv.weight", "no network that is known"),
        ("encoders.0.0.conv6.weight", "no network that is known"),
    ],
)
def test_another_network_is_named(tmp_path, name, network):
    path = tmp_path / "other.pth"
    weight = np.zeros((3, 3), np.float32)
    save_torch(path, {"params": {"intro.weight": weight, name: weight}})
    assert_refused(path, f"{network}.*NafNet and MAXIM can be read")


@pytest.mark.parametrize(
    ("missing", "match"),
    [
        ("intro.weight", "a part of NAFNet"),
        ("downs.1", "a part of NAFNet"),
        ("ups.0", "a part of NAFNet"),
        ("middle_blks.0", "a part of NAFNet"),
        ("encoders.0", "a part of NAFNet"),
        ("encoders.1.0", "encoder_1_.* needs"),
        ("decoders.0.0.sca", "decoder_0_0/attention/.* needs"),
    ],
)
def test_network_that_lacks_tensors_is_refused(tensors, tmp_path, missing, match):
    path = tmp_path / "part.pth"
    save_torch(path, {name: x for name, x in tensors.items() if not name.startswith(missing)})
    assert_refused(path, match)


def test_tensor_of_another_shape_is_refused(tensors, tmp_path):
    path = tmp_path / "odd.pth"
    save_torch(path, {**tensors, "encoders.0.0.beta": np.zeros((1, 9, 1, 1), np.float32)})
    assert_refused(path, r"encoder_0_0/beta has shape \(9,\)")

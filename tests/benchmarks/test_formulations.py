import importlib
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdeblur.losses import l1
from jaxdeblur.models import Maxim, NafNet

MAXIM = Maxim(num_features=4, num_stages=2, num_groups=1, num_bottleneck_blocks=1)
NAFNET = NafNet(width=4, encoder_blocks=(3,), decoder_blocks=(1,))


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")


def case_of(network, shape):
    """Parameters by dotted name, with none as simple as a network's first, and images."""
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 64, 64, 3)))["params"]
    rng = np.random.default_rng(1)
    params = {
        name: rng.normal(0.1, np.prod(array.shape[:-1]) ** -0.5, array.shape).astype(np.float32)
        for name, array in flatten_dict(shapes, sep=".").items()
    }
    return params, images


def variables_of(params):
    return {"params": unflatten_dict(params, sep=".")}


def assert_same(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        pytest.param(MAXIM, (1, 64, 128, 3), marks=pytest.mark.slow),
        pytest.param(MAXIM.clone(effort=1), (2, 64, 64, 3), marks=pytest.mark.slow),
        (NAFNET, (2, 21, 34, 3)),
        (NAFNET.clone(window=24), (1, 21, 34, 3)),  # narrower than the image, but as high
        (NAFNET.clone(window=12), (1, 33, 38, 3)),
    ],
)
def test_plain_flax_computes_the_same(network, shape):
    plain_flax = importlib.import_module("plain_flax")
    params, images = case_of(network, shape)
    expected = jax.jit(network.apply)(variables_of(params), images)
    assert np.abs(expected - images).max() > 0.1
    assert_same(jax.jit(plain_flax.plain_apply(network))(variables_of(params), images), expected)


@pytest.mark.slow
def test_plain_maxim_is_the_published_one(shared_data):
    plain_maxim = importlib.import_module("plain_maxim")
    prefix = "opt/target/"
    arrays = dict(np.load(shared_data / "parity/maxim.checkpoint.npz"))
    named = {name.removeprefix(prefix): array for name, array in arrays.items() if prefix in name}
    variables = {"params": unflatten_dict(named, sep="/")}
    expected = np.load(shared_data / "parity/maxim.npz")
    network = plain_maxim.PlainMaxim(4, num_stages=2, num_groups=1, num_bottleneck_blocks=1)
    stages = jax.jit(network.apply)(variables, expected["input"])
    for i, stage in enumerate(stages):
        for j, restored in enumerate(stage):
            assert_same(restored, expected[f"stage_{i}_scale_{j}"])


@pytest.mark.parametrize(
    ("window", "layout"),
    [(384, "contiguous_format"), pytest.param(12, "channels_last", marks=pytest.mark.slow)],
)
def test_pytorch_nafnet_has_the_same_gradients(window, layout):
    torch = pytest.importorskip("torch")
    pytorch = importlib.import_module("pytorch")
    network = NAFNET.clone(window=window)
    params, blurred = case_of(network, (2, 21, 34, 3))
    sharp = blurred[::-1]

    @jax.jit
    def gradients_of(variables):
        def loss(variables):  # in training, three blocks and more are a loop
            return l1(network.apply(variables, blurred, train=True), sharp)

        return jax.grad(loss)(variables)

    expected = flatten_dict(gradients_of(variables_of(params))["params"], sep=".")
    layout = getattr(torch, layout)
    theirs = {
        name: pytorch.kernel_to_torch(array, layout).requires_grad_()
        for name, array in params.items()
    }
    images = (pytorch.to_torch(array, layout) for array in (blurred, sharp))
    restored, sharp = pytorch.torch_apply(network)(theirs, next(images)), next(images)
    torch.nn.functional.l1_loss(restored, sharp).backward()
    for name, parameter in theirs.items():
        ours = pytorch.kernel_to_torch(np.asarray(expected[name]), layout)
        assert_same(parameter.grad.numpy(), ours.numpy())


def test_a_network_without_a_pytorch_version_is_told():
    pytest.importorskip("torch")
    pytorch = importlib.import_module("pytorch")
    with pytest.raises(TypeError, match="Maxim has no PyTorch version"):
        pytorch.torch_apply(MAXIM)


def test_a_case_may_be_a_preset_with_other_fields():
    speed = importlib.import_module("speed")
    module = speed.parse_case("maxim_effort1:inference:1x64x64").module()
    assert module == Maxim(effort=1, dtype="float32")

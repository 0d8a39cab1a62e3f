import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxdeblur.convolutions import SWITCH
from jaxdeblur.errors import InputError
from jaxdeblur.models import PRESETS, AtrousBlock, create_model, describe_model

# Small fields of each network, and its smallest image.
SMALL = {
    "carlo_net": {"num_filters": 8},
    "kaist_net": {"num_blocks": 1, "num_inner_blocks": 1, "num_channels": 8},
    "atrous_net": {"num_channels": 8, "num_blocks": 1},
    "maxim": {"num_features": 4, "num_stages": 1, "num_groups": 1, "num_bottleneck_blocks": 1},
    "nafnet": {"width": 4, "encoder_blocks": (1,), "decoder_blocks": (1,)},
}
SMALLEST = {"carlo_net": 21, "kaist_net": 8, "atrous_net": 2, "maxim": 64, "nafnet": 1}
MULTIPLE = {"carlo_net": 1, "kaist_net": 8, "atrous_net": 2, "maxim": 64, "nafnet": 1}

# LLVM's optimisations take most of the time to compile.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def family(name):
    return next(network for network in SMALL if name.startswith(network))


def image(*shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(0).uniform(size=shape), dtype)


def shapes_of(module, x):
    return jax.eval_shape(module.init_with_output, jax.random.key(0), x)


def random_variables(module, x):
    """Random values; the initialisers would take longer to compile than the network."""
    rng = np.random.default_rng(1)
    _, variables = shapes_of(module, x)
    return jax.tree.map(
        lambda s: jnp.asarray(0.2 * rng.uniform(-0.5, 1, s.shape), s.dtype), variables
    )


@functools.cache
def preset_shapes(name, channels):
    """What a preset makes of two of its smallest images, and its variables."""
    side, multiple = SMALLEST[family(name)], MULTIPLE[family(name)]
    x = jax.ShapeDtypeStruct((2, side, side + 2 * multiple, channels), jnp.float32)
    return x, *shapes_of(PRESETS[name], x)


def count(variables):
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("name", "channels", "expected"),
    [
        ("carlo_net", 3, 2_663_555),
        ("carlo_net", 9, 2_663_555 + 3 * 3 * 6 * 128),
        ("kaist_net", 3, 11_590_813),
        ("kaist_net", 9, 11_595_613),
        ("atrous_net", 3, 12_571_011),
        ("atrous_net", 9, 12_633_219),
        ("atrous_net_reds", 3, 24_371_331),
        ("atrous_net_reds", 9, 24_433_539),
        ("nafnet", 3, 17_111_907),
        ("nafnet", 9, 17_111_907 + 9 * 6 * 32),
        ("nafnet_64", 3, 67_888_835),
        ("maxim_s1", 3, 6_139_561),  # of this one and the next tests/models/test_cost.py counts
        ("maxim_s2", 3, 14_176_178),
        pytest.param("maxim", 3, 22_212_795, marks=pytest.mark.slow),
    ],
)
def test_parameters_are_as_many_as_published(name, channels, expected):
    _, _, variables = preset_shapes(name, channels)
    assert count(variables) == expected
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


# Of MAXIM, which takes seconds to trace, a small one has nine channels (test_maxim.py).
@pytest.mark.parametrize(
    ("name", "channels"),
    [(name, n) for name in PRESETS for n in (3, 9) if n == 3 or family(name) != "maxim"],
)
def test_every_preset_restores_three_channels_of_the_same_size(name, channels):
    x, restored, _ = preset_shapes(name, channels)
    assert restored.shape == (*x.shape[:3], 3)
    assert restored.dtype == jnp.float32


@pytest.mark.parametrize("channels", [3, 9])
@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"maxim"}))  # of it see test_maxim.py
def test_smallest_image_is_restored_to_finite_values(name, channels):
    x = image(1, SMALLEST[name], SMALLEST[name], channels)
    module = create_model(name, **SMALL[name])
    restored = quick_jit(module.apply)(random_variables(module, x), x)
    assert restored.shape == (*x.shape[:3], 3)
    assert jnp.isfinite(restored).all()
    assert restored.std() > 0


@pytest.mark.parametrize("name", SMALL)
def test_init_and_apply_agree_on_the_variables(name):
    module = create_model(name, **SMALL[name])
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    _, variables = shapes_of(module, x)
    assert set(variables) == {"params"}
    assert jax.eval_shape(module.apply, variables, x).shape == x.shape
    trained = jax.eval_shape(lambda v, x: module.apply(v, x, train=True), variables, x)
    assert trained.shape == x.shape


@pytest.mark.parametrize(
    ("name", "size"),
    [("nafnet", (8, 12)), pytest.param("maxim", (64, 64), marks=pytest.mark.slow)],
)
def test_gradients_are_finite_and_reach_every_parameter(name, size):
    module = create_model(name, **SMALL[name])
    x = image(1, *size, 3)
    variables = random_variables(module, x)
    method = "outputs" if name == "maxim" else None  # whose smaller pictures are trained as well

    def loss(variables):
        pictures = module.apply(variables, x, train=True, method=method)
        return sum(jnp.square(picture).mean() for picture in jax.tree.leaves(pictures))

    for place, gradient in flatten_dict(quick_jit(jax.grad(loss))(variables)).items():
        assert jnp.isfinite(gradient).all(), place
        if "channel_attention" not in place:  # whose only unit with a ReLU may be off
            assert jnp.abs(gradient).max() > 0, place


@pytest.mark.parametrize("name", SMALL)
def test_too_small_image_is_refused_with_the_smallest_size(name):
    side = SMALLEST[name] - 1
    with pytest.raises(InputError, match=rf"\({side}, 64\).*{name}.*{SMALLEST[name]} pixels"):
        shapes_of(create_model(name, **SMALL[name]), jnp.zeros((1, side, 64, 3)))


@pytest.mark.parametrize("name", SMALL)
def test_integers_are_refused(name):
    module = create_model(name, **SMALL[name])
    with pytest.raises(InputError, match=rf"type uint8; {name} takes floats in \[0, 1\]"):
        shapes_of(module, jnp.zeros((1, 64, 64, 3), jnp.uint8))


@pytest.mark.parametrize(
    ("name", "size"), [("kaist_net", (64, 60)), ("atrous_net", (31, 64)), ("maxim", (128, 96))]
)
def test_image_off_the_size_grid_is_refused_with_the_fix(name, size):
    message = re.escape(f"{size} is not a multiple of {MULTIPLE[name]}") + ".*pad"
    with pytest.raises(InputError, match=message):
        shapes_of(create_model(name, **SMALL[name]), jnp.zeros((1, *size, 3)))


@pytest.mark.parametrize("shape", [(1, 32, 32, 4), (1, 32, 32, 1), (32, 32, 3), (1, 1, 32, 32, 3)])
@pytest.mark.parametrize("name", SMALL)
def test_wrong_shape_is_refused_with_the_right_one(name, shape):
    with pytest.raises(InputError, match=re.escape(str(shape)) + r".*\[B, H, W, C\]"):
        shapes_of(create_model(name, **SMALL[name]), jnp.zeros(shape))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_arithmetic_keeps_parameters_and_the_type_of_the_input(name, dtype):
    module = create_model(name, **SMALL[name], dtype=jnp.bfloat16)
    batch = 11  # which tells features from parameters
    x = jax.ShapeDtypeStruct((batch, 64, 64, 3), dtype)
    restored, variables = shapes_of(module, x)
    assert restored.dtype == dtype
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def inner(variables, x):
        return module.apply(variables, x, capture_intermediates=True)[1]["intermediates"]

    layers = flatten_dict(jax.eval_shape(inner, variables, x), sep="/")
    features = {
        layer: leaf.dtype
        for layer, outputs in layers.items()
        for leaf in jax.tree.leaves(outputs)
        if layer != "__call__" and leaf.ndim == 4 and leaf.shape[0] == batch
    }
    assert len(features) > 8
    assert {layer: kind for layer, kind in features.items() if kind != jnp.bfloat16} == {}


def zeros_like_init(module, x):
    _, variables = shapes_of(module, x)
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), variables)


@pytest.mark.parametrize("channels", [3, 9])
def test_atrous_net_adds_to_the_current_frame(channels):
    x = image(1, 4, 6, channels)
    module = create_model("atrous_net", **SMALL["atrous_net"])
    variables = zeros_like_init(module, x)
    run = quick_jit(module.apply)
    current = x if channels == 3 else x[..., 3:6]
    np.testing.assert_array_equal(run(variables, x), current)
    variables["params"]["difference"]["bias"] = jnp.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(run(variables, x), current + jnp.array([0.5, 1.0, 2.0]))


def test_kaist_net_mixes_a_residual_with_the_filtered_current_frame():
    x = image(1, 8, 16, 9)
    current = np.asarray(x[..., 3:6])
    module = create_model("kaist_net", **SMALL["kaist_net"])
    run = quick_jit(module.apply)
    variables = zeros_like_init(module, x)
    params = variables["params"]
    params["residual"]["bias"] = jnp.array([0.1, 0.2, 0.3])

    params["weight"]["bias"] = jnp.array([-100.0])
    np.testing.assert_allclose(run(variables, x), np.broadcast_to([0.1, 0.2, 0.3], current.shape))

    # The kernel's row 1, column 4 is the pixel one above and two to the right.
    params["weight"]["bias"] = jnp.array([100.0])
    params["kernels"]["bias"] = jnp.zeros(25).at[1 * 5 + 4].set(2.0)
    above_right = np.zeros_like(current)
    above_right[:, 1:, :-2] = current[:, :-1, 2:]
    np.testing.assert_allclose(run(variables, x), 2 * above_right, atol=1e-6)

    params["weight"]["bias"] = jnp.array([0.0])
    half = above_right + np.array([0.05, 0.1, 0.15], np.float32)
    np.testing.assert_allclose(run(variables, x), half, atol=1e-6)


def test_carlo_net_is_never_negative():
    x = image(1, 21, 22, 3)
    module = create_model("carlo_net", **SMALL["carlo_net"])
    variables = zeros_like_init(module, x)
    variables["params"]["decoder_9"]["bias"] = jnp.array([-1.0, 0.0, 1.0])
    restored = quick_jit(module.apply)(variables, x)
    np.testing.assert_array_equal(restored, np.broadcast_to([0.0, 0.0, 1.0], x.shape))


def test_atrous_block_sees_eleven_by_eleven_pixels():
    x = image(1, 25, 27, 4)
    block = AtrousBlock(num_channels=4)
    run = quick_jit(block.apply)
    variables = random_variables(block, x)
    difference = run(variables, x) - run(variables, x.at[0, 12, 14].add(1.0))
    changed = np.abs(difference) > 1e-5 * np.abs(difference).max()  # more than rounding
    rows, columns = np.nonzero(np.asarray(changed).any(axis=(0, 3)))
    assert (rows.min(), rows.max()) == (12 - 5, 12 + 5)
    assert (columns.min(), columns.max()) == (14 - 5, 14 + 5)


@functools.cache
def batch_norm_run():
    """A network with batch normalisation, and what one batch does while training and not."""
    x = 0.5 + image(4, 8, 8, 3)
    module = create_model("atrous_net", **SMALL["atrous_net"], batch_norm=True)
    variables = random_variables(module, x)
    for name, stats in variables["batch_stats"]["block_0"].items():
        stats["var"] = 1 + stats["var"]
        scale = variables["params"]["block_0"][name]["scale"]
        variables["params"]["block_0"][name]["scale"] = jnp.ones_like(scale)

    def run(variables, x):
        options = {"mutable": ["batch_stats"], "capture_intermediates": True}
        return [module.apply(variables, x, train=train, **options) for train in (True, False)]

    return x, variables, quick_jit(run)(variables, x)


@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_batch_norm_normalises_the_convolution_before_its_activation(dilation):
    _, variables, ((_, state), _) = batch_norm_run()
    block = state["intermediates"]["block_0"]
    bias = variables["params"]["block_0"][f"norm_{dilation}"]["bias"]
    convolved = block[f"dilated_{dilation}"]["__call__"][0]
    normalised = block[f"norm_{dilation}"]["__call__"][0]
    centred = convolved - convolved.mean(axis=(0, 1, 2))
    expected = centred / np.sqrt(np.square(centred).mean(axis=(0, 1, 2)) + 1e-5) + bias
    np.testing.assert_allclose(normalised, expected, rtol=1e-3, atol=1e-3)


def test_batch_norm_moves_its_statistics_only_while_training():
    _, variables, ((_, training), (restored, evaluating)) = batch_norm_run()
    old = variables["batch_stats"]["block_0"]
    new = training["batch_stats"]["block_0"]
    jax.tree.map(np.testing.assert_array_equal, evaluating["batch_stats"]["block_0"], old)
    assert jnp.isfinite(restored).all()
    for dilation in (1, 2, 3, 4):
        convolved = training["intermediates"]["block_0"][f"dilated_{dilation}"]["__call__"][0]
        # Flax's running statistics forget 1 % a step.
        expected = 0.99 * old[f"norm_{dilation}"]["mean"] + 0.01 * convolved.mean(axis=(0, 1, 2))
        np.testing.assert_allclose(new[f"norm_{dilation}"]["mean"], expected, rtol=1e-4, atol=1e-6)
        assert (new[f"norm_{dilation}"]["var"] != old[f"norm_{dilation}"]["var"]).all()


def test_batch_norm_stays_inside_the_blocks():
    module = create_model("atrous_net", **SMALL["atrous_net"], batch_norm=True)
    _, variables = shapes_of(module, jnp.zeros((1, 8, 8, 3)))
    assert set(variables["batch_stats"]) == {"block_0"}
    plain = create_model("atrous_net", **SMALL["atrous_net"])
    _, without = shapes_of(plain, jnp.zeros((1, 8, 8, 3)))
    added = flatten_dict(variables["params"]).keys() - flatten_dict(without["params"]).keys()
    assert {path[0] for path in added} == {"block_0"}
    assert {path[-1] for path in added} == {"scale", "bias"}


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("atrous_nett", {}, "'atrous_nett' is unknown.*'atrous_net'"),
        ("zzz", {}, "'zzz' is unknown; choose from .*carlo_net.*kaist_net"),
        ("atrous_net", {"num_blokcs": 5}, "'num_blokcs'.*'num_blocks'"),
        ("carlo_net", {"num_blocks": 5}, "carlo_net has no field 'num_blocks'"),
        ("atrous_net", {"num_blocks": "5"}, "num_blocks = '5'.*int"),
        ("atrous_net", {"num_blocks": 5.0}, "num_blocks = 5.0.*int"),
        ("atrous_net", {"num_blocks": True}, "num_blocks = True.*int"),
        ("atrous_net", {"batch_norm": 1}, "batch_norm = 1 .*bool"),
        ("kaist_net", {"num_inner_blocks": 0}, "num_inner_blocks = 0.*at least 1"),
        ("carlo_net", {"num_filters": -1}, "num_filters = -1.*at least 1"),
        ("atrous_net", {"num_channels": 6}, "num_channels = 6.*multiple of 4"),
        ("kaist_net", {"num_channels": 0}, "num_channels = 0.*at least 1"),
        ("nafnet", {"encoder_blocks": (1, 0)}, r"encoder_blocks = \(1, 0\).*at least 1"),
        ("nafnet", {"encoder_blocks": (1, 2.5)}, r"encoder_blocks = \(1, 2.5\).*at least 1"),
        ("nafnet", {"encoder_blocks": 4}, "encoder_blocks = 4 .*tuple"),
        ("nafnet", {"effort": 1}, "nafnet has no field 'effort'"),
        ("maxim", {"num_stages": 0}, "num_stages = 0.*at least 1"),
        ("maxim", {"efort": 1}, "maxim has no field 'efort'; did you mean 'effort'"),
    ],
)
def test_wrong_name_or_field_is_refused_by_name(name, fields, message):
    with pytest.raises(InputError, match=message):
        create_model(name, **fields)


@pytest.mark.parametrize("name", PRESETS)
def test_description_of_a_network_makes_it_again(name):
    module = create_model(name, dtype=jnp.bfloat16)
    described, fields = describe_model(module)
    assert family(described) == family(name)
    assert not {"dtype", "effort"} & fields.keys()
    assert create_model(described, **fields, dtype=jnp.bfloat16) == module
    assert create_model(described, **fields) == PRESETS[name]


def test_a_list_serves_as_a_tuple_as_a_file_of_json_has_it():
    module = create_model("nafnet", width=8, encoder_blocks=[1, 2], decoder_blocks=[2, 1])
    assert module == create_model("nafnet", width=8, encoder_blocks=(1, 2), decoder_blocks=(2, 1))
    assert hash(module) is not None


def test_created_network_does_not_change_the_preset():
    create_model("atrous_net", num_blocks=1, num_channels=8)
    assert PRESETS["atrous_net"].num_blocks == 5
    assert PRESETS["atrous_net"].num_channels == 256


@pytest.mark.parametrize("name", ["atrous_net", pytest.param("kaist_net", marks=pytest.mark.slow)])
def test_remat_computes_blocks_again_for_the_same_gradients(name):
    blurred = jnp.asarray(np.random.default_rng(0).random((1, 16, 16, 3)), jnp.float32)
    variables = quick_jit(create_model(name, **SMALL[name]).init)(jax.random.key(0), blurred)

    def gradient(remat):
        module = create_model(name, **SMALL[name], remat=remat)
        return jax.grad(lambda variables: jnp.square(module.apply(variables, blurred)).sum())

    def convolutions_on_a_gpu(remat):
        traced = jax.jit(gradient(remat)).trace(variables)
        return traced.lower(lowering_platforms=("cuda",)).as_text().count("stablehlo.convolution")

    # A block's own convolutions once more; the barriers keep the compiler from merging them.
    assert convolutions_on_a_gpu(True) > convolutions_on_a_gpu(False)
    for expected, result in zip(
        jax.tree.leaves(quick_jit(gradient(False))(variables)),
        jax.tree.leaves(quick_jit(gradient(True))(variables)),
        strict=True,
    ):
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)


def test_kaist_net_can_start_as_the_identity():
    blurred = jnp.asarray(np.random.default_rng(0).random((1, 16, 16, 9)), jnp.float32)
    module = create_model("kaist_net", **SMALL["kaist_net"], zero_init=True)
    restored, variables = quick_jit(module.init_with_output)(jax.random.key(0), blurred)
    np.testing.assert_array_equal(restored, blurred[..., 3:6])
    layers = flatten_dict(variables["params"], sep="/")
    zero = {name for name, x in layers.items() if name.endswith("kernel") and not x.any()}
    blocks = {f"{n}/kernel" for n in ("residual", "weight", "kernels")}
    for name in layers:
        if "coder_" in name and name.endswith("kernel"):
            last = "up" if name.startswith("encoder") else "down"
            blocks |= {name} if f"/{last}/" in name else set()
    assert zero == blocks


def test_carlo_net_can_start_at_grey_with_activations_that_do_not_shrink():
    blurred = jnp.asarray(np.random.default_rng(0).random((1, 32, 32, 3)), jnp.float32)

    def deepest(he_init):
        """What the encoder makes of a picture, and what the network does."""
        module = create_model("carlo_net", num_filters=64, he_init=he_init)
        variables = quick_jit(module.init)(jax.random.key(0), blurred)
        kept = {"capture_intermediates": True, "mutable": "intermediates"}
        restored, layers = quick_jit(functools.partial(module.apply, **kept))(variables, blurred)
        first, last = (layers["intermediates"][f"encoder_{i}"]["__call__"][0] for i in (0, 9))
        return float(last.std() / first.std()), restored

    kept, restored = deepest(True)
    np.testing.assert_array_equal(restored, 0.5)
    assert 0.3 < kept < 3
    assert deepest(False)[0] < 0.1


def test_zero_init_starts_as_the_identity():
    blurred = jnp.asarray(np.random.default_rng(0).random((1, 8, 8, 9)), jnp.float32)
    module = create_model("atrous_net", **SMALL["atrous_net"], zero_init=True)
    restored, variables = quick_jit(module.init_with_output)(jax.random.key(0), blurred)
    np.testing.assert_array_equal(restored, blurred[..., 3:6])
    for name, layer in variables["params"].items():
        zero = name == "difference" or name.startswith("block")
        kernel = layer["merge"]["kernel"] if name.startswith("block") else layer["kernel"]
        assert (np.abs(kernel).max() == 0) == zero, name


@pytest.mark.parametrize(
    ("name", "fields", "size"),
    [
        ("atrous_net", {"num_channels": 4, "num_blocks": 1}, 64),
        ("atrous_net", {"num_channels": 4, "num_blocks": 3}, 128),
        ("carlo_net", {"num_filters": 2}, 64),
        ("kaist_net", {"num_channels": 4, "num_blocks": 1, "num_inner_blocks": 1}, 160),
        pytest.param(
            *("kaist_net", {"num_channels": 4, "num_blocks": 2, "num_inner_blocks": 1}, 176),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("kaist_net", {"num_channels": 4, "num_blocks": 1, "num_inner_blocks": 2}, 192),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_reach_is_how_far_a_pixel_is_felt(monkeypatch, name, fields, size):
    # What is not a number stays none through every operation. Not through the CPU's formulation,
    # though, whose tiles add and subtract what cancels.
    monkeypatch.setenv(SWITCH, "compiler")
    jax.clear_caches()
    module = create_model(name, **fields)
    variables = quick_jit(module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    apply = quick_jit(module.apply)
    before = after = 0
    for phase in range(module.size_multiple):
        centre = size // 2 // module.size_multiple * module.size_multiple + phase
        image = np.zeros((1, size, size, 3), np.float32)
        image[0, centre, centre] = np.nan
        felt = np.argwhere(np.isnan(apply(variables, image))[0].any(-1))
        assert felt.min() > 0
        assert felt.max() < size - 1
        before = max(before, felt.max() - centre)  # a later pixel sees an earlier one
        after = max(after, centre - felt.min())
    jax.clear_caches()
    assert module.reach == (before, after)

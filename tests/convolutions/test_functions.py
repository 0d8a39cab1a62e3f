import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_vjp

from jaxdeblur.convolutions import (
    SWITCH,
    adaptive_convolve,
    compiled,
    convolve,
    depthwise_convolve,
    transposed_convolve,
)
from jaxdeblur.errors import InputError

pytestmark = pytest.mark.own_convolutions

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# Each example compiles anew, which is most of the time; LLVM's optimisations are most of that.
few_examples = settings(max_examples=12, deadline=None, derandomize=True)
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def plain_convolve(x, kernel, stride, dilation, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=DIMENSIONS,
    )


def output_and_gradients(function, x, kernel):
    """The result, and the gradients of a random weighting of it."""
    output, vjp = jax.vjp(function, x, kernel)
    return (output, *vjp(normal(*output.shape, seed=2, dtype=output.dtype)))


def assert_same(function, reference, x, kernel):
    """Compares results and gradients; returns the result."""
    both = quick_jit(
        lambda x, k: (output_and_gradients(function, x, k), output_and_gradients(reference, x, k))
    )
    results, expected = both(x, kernel)
    for result, reference_result in zip(results, expected, strict=True):
        assert_close(result, reference_result)
    return results[0]


def assert_close(result, expected, tolerance=1e-4):
    result, expected = np.asarray(result), np.asarray(expected)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@st.composite
def convolution_arguments(draw, widening):
    taps = draw(st.integers(1, 5))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    stride = draw(st.sampled_from([1, 1, 2]))
    dilation = draw(st.integers(1, 4)) if stride == 1 else 1
    if padding == "VALID":
        dilation = min(dilation, 10 // max(taps - 1, 1))
    smallest = (taps - 1) * dilation + 1 if padding == "VALID" else 1
    height, width = draw(st.integers(smallest, 12)), draw(st.integers(smallest, 12))
    few, many = draw(st.integers(1, 3)), draw(st.integers(4, 8))
    channels = (few, many) if widening else (many, few)
    x = normal(draw(st.integers(1, 3)), height, width, channels[0])
    kernel = normal(taps, taps, *channels, seed=1)
    return x, kernel, stride, dilation, padding


def assert_convolve_is_plain(x, kernel, stride, dilation, padding):
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    assert_same(
        functools.partial(convolve, **options),
        functools.partial(plain_convolve, **options),
        x,
        kernel,
    )


@few_examples
@given(convolution_arguments(widening=True))
def test_convolve_from_few_to_many_channels_is_the_plain_convolution(arguments):
    assert_convolve_is_plain(*arguments)


@few_examples
@given(convolution_arguments(widening=False))
def test_convolve_from_many_to_few_channels_is_the_plain_convolution(arguments):
    assert_convolve_is_plain(*arguments)


def test_stride_and_dilation_exclude_each_other():
    with pytest.raises(ValueError, match="stride=2 and dilation=3"):
        convolve(normal(1, 9, 9, 2), normal(3, 3, 2, 2), stride=2, dilation=3)


def program(platform, function, *arguments):
    """The program that is built for a platform, here or not."""
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("function", [convolve, transposed_convolve])
def test_a_cpu_multiplies_matrices_where_a_gpu_convolves(function):
    arguments = normal(1, 9, 7, 4), normal(3, 3, 4, 4, seed=1)
    gradients = functools.partial(output_and_gradients, function)
    assert "stablehlo.convolution" not in program("cpu", gradients, *arguments)
    assert "stablehlo.dot_general" in program("cpu", gradients, *arguments)
    assert program("cuda", gradients, *arguments).count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in program("cuda", gradients, *arguments)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"padding": "VALID"}])
def test_a_cpu_can_have_the_compilers_convolution(options):
    x, kernel = normal(2, 9, 8, 3), normal(3, 3, 3, 4, seed=1)
    function = functools.partial(convolve, own=False, **options)
    gradients = functools.partial(output_and_gradients, function)
    assert program("cpu", gradients, x, kernel).count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in program("cpu", gradients, x, kernel)
    plain = {"stride": 1, "dilation": 1, "padding": "SAME"} | options
    assert_same(function, functools.partial(plain_convolve, **plain), x, kernel)


@st.composite
def transposed_arguments(draw):
    stride = draw(st.sampled_from([1, 2, 2, 3]))
    taps = draw(st.integers(1, 5))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    size = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    features_in, features_out = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    x = normal(draw(st.integers(1, 2)), *size, features_in)
    return x, normal(taps, taps, features_out, features_in, seed=1), stride, padding


def transpose_of_plain(x, kernel, stride, padding):
    """TensorFlow's `conv2d_transpose`: what maps a convolution's cotangent to its input."""
    border = max(kernel.shape[0] - stride, 0) if padding == "VALID" else 0
    size = [length * stride + border for length in x.shape[1:3]]
    wide = jax.ShapeDtypeStruct((x.shape[0], *size, kernel.shape[2]), x.dtype)
    transpose = jax.linear_transpose(lambda y: plain_convolve(y, kernel, stride, 1, padding), wide)
    return transpose(x)[0]


@few_examples
@given(transposed_arguments())
def test_transposed_convolve_is_the_linear_transpose(arguments):
    x, kernel, stride, padding = arguments
    assert_same(
        lambda x, k: transposed_convolve(x, k, stride, padding),
        lambda x, k: transpose_of_plain(x, k, stride, padding),
        x,
        kernel,
    )


@few_examples
@given(transposed_arguments())
def test_the_compilers_formulation_is_the_linear_transpose(arguments):
    """What a GPU gets, tried on whatever there is."""
    x, kernel, stride, padding = arguments
    overlap = max(kernel.shape[0] - stride, 0)
    crop = overlap // 2 if padding == "SAME" else 0
    border = overlap if padding == "VALID" else 0
    height, width = (size * stride + border for size in x.shape[1:3])
    assert_same(
        lambda x, k: compiled.transposed_convolve(x, k, stride, crop, height, width),
        lambda x, k: transpose_of_plain(x, k, stride, padding),
        x,
        kernel,
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (4, 2), (3, 2), (2, 2), (5, 2), (5, 3)])
def test_transposed_convolve_is_that_of_torch(taps, stride, padding):
    torch = pytest.importorskip("torch")
    x, kernel = normal(2, 5, 4, 3), normal(taps, taps, 6, 3, seed=1)
    function = functools.partial(transposed_convolve, stride=stride, padding=padding)
    output, *gradients = quick_jit(functools.partial(output_and_gradients, function))(x, kernel)

    x_torch = torch.tensor(np.asarray(x), requires_grad=True)
    kernel_torch = torch.tensor(np.asarray(kernel), requires_grad=True)
    full = torch.nn.functional.conv_transpose2d(
        x_torch.permute(0, 3, 1, 2), kernel_torch.permute(3, 2, 0, 1), stride=stride
    ).permute(0, 2, 3, 1)
    if padding == "SAME":  # the odd pixel of the overlap is cut off at the end
        before = (taps - stride) // 2
        full = full[:, before : before + 5 * stride, before : before + 4 * stride]
    full.backward(torch.tensor(np.asarray(normal(*output.shape, seed=2))))

    assert_close(output, full.detach().numpy())
    assert_close(gradients[0], x_torch.grad.numpy())
    assert_close(gradients[1], kernel_torch.grad.numpy())


def depthwise_with_numpy(x, kernel):
    taps = kernel.shape[0]
    border = (taps // 2, taps // 2)
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), border, border, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps), axis=(1, 2))
    return np.einsum("bhwcij,ijc->bhwc", windows, np.asarray(kernel, np.float64)[:, :, 0])


@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    st.sampled_from([1, 3, 5]),
    st.integers(1, 2),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 5),
)
def test_depthwise_convolve_filters_each_channel_by_itself(taps, batch, height, width, depth):
    x, kernel = normal(batch, height, width, depth), normal(taps, taps, 1, depth, seed=1)
    options = {"feature_group_count": depth, "dimension_numbers": DIMENSIONS}
    plain = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", **options
    )
    filtered = assert_same(depthwise_convolve, plain, x, kernel)
    expected = depthwise_with_numpy(x, kernel)
    assert_close(filtered, expected)
    assert_close(compiled.depthwise_convolve(x, kernel), expected)


@pytest.mark.parametrize("function", [depthwise_convolve, compiled.depthwise_convolve])
def test_depthwise_convolve_is_that_of_torch(function):
    torch = pytest.importorskip("torch")
    x, kernel = normal(2, 5, 4, 3), normal(3, 3, 1, 3, seed=1)
    results = quick_jit(functools.partial(output_and_gradients, function))(x, kernel)
    x_torch = torch.tensor(np.asarray(x), requires_grad=True)
    kernel_torch = torch.tensor(np.asarray(kernel), requires_grad=True)
    filtered = torch.nn.functional.conv2d(
        x_torch.permute(0, 3, 1, 2), kernel_torch.permute(3, 2, 0, 1), padding=1, groups=3
    ).permute(0, 2, 3, 1)
    filtered.backward(torch.tensor(np.asarray(normal(*x.shape, seed=2))))
    for result, expected in zip(
        results, (filtered.detach(), x_torch.grad, kernel_torch.grad), strict=True
    ):
        assert_close(result, expected.numpy())


def test_a_cpu_sums_products_where_a_gpu_convolves_each_channel():
    arguments = normal(1, 9, 7, 4), normal(3, 3, 1, 4, seed=1)
    gradients = functools.partial(output_and_gradients, depthwise_convolve)
    assert "stablehlo.convolution" not in program("cpu", gradients, *arguments)
    assert program("cuda", gradients, *arguments).count("stablehlo.convolution") == 3


def filtered_with_numpy(image, kernels):
    taps = int(kernels.shape[-1] ** 0.5)
    border = (taps // 2, taps // 2)
    padded = np.pad(np.asarray(image), ((0, 0), border, border, (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps), axis=(1, 2))
    windows = np.asarray(kernels).reshape(*kernels.shape[:3], taps, taps)
    return np.einsum("bhwcij,bhwij->bhwc", patches, windows)


def filtered_by_patches(image, kernels):
    """The same in JAX, for its gradients: a gather of every patch."""
    taps = int(kernels.shape[-1] ** 0.5)
    border = (taps // 2, taps // 2)
    padded = jnp.pad(image, ((0, 0), border, border, (0, 0)))
    rows, columns = (np.arange(n)[:, None] + np.arange(taps) for n in image.shape[1:3])
    patches = padded[:, rows[:, None, :, None], columns[None, :, None, :]]
    patches = patches.reshape(*image.shape[:3], taps**2, image.shape[3])
    return (patches * kernels[..., None]).sum(3)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.sampled_from([1, 3, 5]),
    st.integers(1, 2),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
)
def test_adaptive_convolve_weights_the_patch_around_each_pixel(taps, batch, height, width, depth):
    image = normal(batch, height, width, depth)
    kernels = normal(batch, height, width, taps**2, seed=1)
    filtered = assert_same(adaptive_convolve, filtered_by_patches, image, kernels)
    assert_close(filtered, filtered_with_numpy(image, kernels))


@pytest.mark.parametrize(
    ("function", "kernel_shape"),
    [
        (functools.partial(convolve, dilation=2), (3, 3, 2, 4)),
        (functools.partial(convolve, padding="VALID"), (3, 3, 2, 1)),
        (functools.partial(convolve, stride=2), (5, 5, 2, 3)),
        (functools.partial(transposed_convolve, stride=2), (4, 4, 3, 2)),
        (functools.partial(transposed_convolve, stride=1, padding="VALID"), (3, 3, 3, 2)),
        (adaptive_convolve, (1, 5, 6, 9)),
        (depthwise_convolve, (3, 3, 1, 2)),
    ],
)
def test_gradients_are_those_of_finite_differences(function, kernel_shape):
    x, kernel = normal(1, 5, 6, 2), normal(*kernel_shape, seed=1)

    def vjp(x, kernel):
        backward = quick_jit(lambda cotangent: jax.vjp(function, x, kernel)[1](cotangent))
        return quick_jit(function)(x, kernel), backward

    check_vjp(quick_jit(function), vjp, (x, kernel), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("function", "kernel_shape"),
    [
        (convolve, (3, 3, 2, 4)),
        (convolve, (3, 3, 2, 1)),
        (functools.partial(convolve, stride=2), (5, 5, 2, 3)),
        (functools.partial(transposed_convolve, stride=2), (4, 4, 3, 2)),
        (adaptive_convolve, (1, 5, 6, 9)),
        (depthwise_convolve, (3, 3, 1, 2)),
    ],
)
def test_bfloat16_stays_bfloat16(function, kernel_shape):
    x, kernel = normal(1, 5, 6, 2), normal(*kernel_shape, seed=1)
    exact = quick_jit(functools.partial(output_and_gradients, function))(x, kernel)
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    half = quick_jit(functools.partial(output_and_gradients, function))(x, kernel)
    for result, expected in zip(half, exact, strict=True):
        assert result.dtype == jnp.bfloat16
        assert_close(result.astype(jnp.float32), expected, tolerance=0.05)


def test_adaptive_convolve_promotes_the_types_of_its_arguments():
    image, kernels = normal(1, 3, 3, 2), normal(1, 3, 3, 9, dtype=jnp.bfloat16)
    assert adaptive_convolve(image, kernels).dtype == jnp.float32


def test_the_switch_gives_a_cpu_the_compilers_convolution(monkeypatch):
    x, kernel = normal(1, 16, 16, 8), normal(3, 3, 8, 8, seed=1)

    def program():
        jax.clear_caches()  # what is traced stays as it is
        return jax.jit(convolve).lower(x, kernel).as_text()

    own = program()
    monkeypatch.setenv(SWITCH, "compiler")
    of_compiler = program()
    assert "platform_index" in own or "case" in own
    assert of_compiler.count("stablehlo.convolution") == 1
    assert "stablehlo.dot_general" not in of_compiler
    monkeypatch.setenv(SWITCH, "none")
    with pytest.raises(InputError, match=f"{SWITCH} = 'none' must be 'own' or 'compiler'"):
        program()
    jax.clear_caches()

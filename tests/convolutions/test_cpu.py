import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdeblur.convolutions import cpu
from jaxdeblur.convolutions.columns import Columns
from jaxdeblur.convolutions.winograd import Winograd

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def output_and_gradients(function, x, kernel):
    output, vjp = jax.vjp(function, x, kernel)
    return (output, *vjp(normal(*output.shape, seed=2)))


def assert_plain(x, kernel, border, stride, dilation):
    """Compares results and both gradients with the compiler's convolution."""

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            border,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    ours = functools.partial(cpu.convolve, border=border, stride=stride, dilation=dilation)
    both = quick_jit(
        lambda x, k: (output_and_gradients(ours, x, k), output_and_gradients(plain, x, k))
    )
    for result, expected in zip(*both(x, kernel), strict=True):
        assert result.shape == expected.shape
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("batch", "size", "taps", "features", "expected"),
    [
        (16, 32, 3, (128, 128), Winograd),
        (16, 32, 5, (64, 64), Winograd),
        (16, 32, 3, (128, 3), Columns),  # so few products that the transforms would outweigh
        (16, 32, 9, (3, 128), Columns),
        (16, 32, 1, (64, 64), Columns),
        (1, 4, 3, (512, 512), Columns),  # the kernel is larger than the image
    ],
)
def test_the_cheaper_form_is_taken(batch, size, taps, features, expected):
    shape = (batch, size + taps - 1, 1, size + taps - 1, features[0])
    parts = cpu._Parts.plan(shape, (taps, 1, taps, *features), 1, False, jnp.float32)
    assert type(parts.form) is expected


@pytest.mark.parametrize(
    ("width", "features", "dtype", "expected"),
    [
        (640, (64, 32), jnp.float32, True),
        (640, (256, 128), jnp.float32, False),  # Winograd's saves too much
        (640, (64, 3), jnp.float32, False),
        (128, (64, 32), jnp.float32, False),
        (640, (64, 32), jnp.bfloat16, False),
    ],
    ids=str,
)
def test_wide_images_of_few_channels_are_convolved_by_the_compiler(
    width, features, dtype, expected
):
    x = jax.ShapeDtypeStruct((1, 360, width, features[0]), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, *features), dtype)
    program = jax.jit(lambda x, k: cpu.convolve(x, k, ((1, 1), (1, 1)), 1, 1)).lower(x, kernel)
    assert ("stablehlo.convolution" in program.as_text()) == expected


@pytest.fixture
def _always_direct(monkeypatch):
    monkeypatch.setattr(cpu, "_WIDE", 1)
    monkeypatch.setattr(cpu, "_DIRECT_FEATURES", 1)
    monkeypatch.setattr(cpu, "_DIRECT_COST", 0)


@pytest.mark.usefixtures("_always_direct")
@pytest.mark.parametrize("dilation", [1, 3])
def test_the_compilers_convolution_is_the_sum_over_taps(dilation):
    x, kernel = normal(2, 13, 15, 4), normal(3, 3, 4, 5, seed=1)
    border = ((dilation, 2), (1, dilation))
    assert_plain(x, kernel, border, 1, dilation)
    padded = np.pad(x, ((0, 0), *border, (0, 0)))
    height, width = (size - 2 * dilation for size in padded.shape[1:3])
    expected = sum(
        padded[:, row * dilation :, column * dilation :][:, :height, :width]
        @ np.asarray(kernel[row, column])
        for row in range(3)
        for column in range(3)
    )
    output = cpu.convolve(x, kernel, border, 1, dilation)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("_always_direct")
def test_strides_go_by_the_compilers_convolution_too():
    x, kernel = normal(2, 13, 15, 4), normal(3, 3, 4, 5, seed=1)
    assert_plain(x, kernel, ((0, 1), (1, 1)), 2, 1)
    # Of a stride-2 convolution, transposed: `[K, K, out, in]` is its kernel as it lies.
    y = normal(2, 6, 7, 5, seed=3)

    def convolution(z):
        return jax.lax.conv_general_dilated(
            z, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    shape = jax.ShapeDtypeStruct((2, 13, 15, 4), jnp.float32)
    (expected,) = jax.linear_transpose(convolution, shape)(y)
    spread = cpu.transposed_convolve(y, kernel, 2, 0, 13, 15)
    np.testing.assert_allclose(spread, expected, rtol=0, atol=1e-4)


def test_half_precision_is_not_transformed():
    shapes = ((16, 34, 1, 34, 128), (3, 1, 3, 128, 128))
    assert isinstance(cpu._Parts.plan(*shapes, 1, False, jnp.float32).form, Winograd)
    assert isinstance(cpu._Parts.plan(*shapes, 1, False, jnp.bfloat16).form, Columns)


@pytest.mark.parametrize(
    "features", [(24, 20), (3, 8), pytest.param((8, 3), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("limit", [20_000, 3_000], ids=["few bands", "many"])
@pytest.mark.parametrize("transform_cost", [0, 10**6], ids=["winograd", "columns"])
def test_parts_make_the_same_whole(monkeypatch, features, dilation, limit, transform_cost):
    monkeypatch.setattr(cpu, "_WHOLE_ELEMENTS", limit)
    monkeypatch.setattr(cpu, "_BAND_ELEMENTS", limit)
    monkeypatch.setattr("jaxdeblur.convolutions.winograd._TRANSFORM_COST", transform_cost)
    x, kernel = normal(4, 11, 9, features[0]), normal(3, 3, *features, seed=1)
    assert_plain(x, kernel, ((dilation, dilation), (dilation, dilation)), 1, dilation)


@pytest.mark.parametrize("features", [(256, 256), (3, 128), (128, 3)], ids=str)
@pytest.mark.parametrize("shape", [(64, 16, 16), (1, 720, 1280)], ids=str)
def test_no_part_holds_more_than_the_limit(shape, features):
    batch, height, width = shape
    padded = (batch, height + 2, 1, width + 2, features[0])
    parts = cpu._Parts.plan(padded, (3, 1, 3, *features), 1, False, jnp.float32)
    at_once = batch * parts.form.temporary_elements(*features)
    fits = parts.bands == 1 or height < 720  # an image by itself does
    assert at_once <= (cpu._WHOLE_ELEMENTS if fits else cpu._BAND_ELEMENTS)
    assert (parts.bands - 1) * parts.rows < height <= parts.bands * parts.rows


def test_devices_of_one_core_take_bands_that_the_caches_hold(monkeypatch):
    def plan(images, features):
        shape = (*images, features[0])
        return cpu._Parts.plan(shape, (3, 1, 3, *features), 1, False, jnp.float32)

    frame, patches = (1, 362, 1, 322), (32, 18, 1, 18)
    assert plan(frame, (64, 32)).bands == 1
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    parts = plan(frame, (64, 32))
    assert parts.form.temporary_elements(64, 32) <= 500_000
    assert parts.bands * parts.rows >= 360
    wide = plan(frame, (256, 128)).form  # or eight times the kernel
    assert 500_000 < wide.temporary_elements(256, 128) <= 8 * 3 * 3 * 256 * 128
    assert plan(patches, (64, 32)).bands == 1


_DIVIDED = """
import jax, jax.numpy as jnp, numpy as np
from jaxdeblur.convolutions import cpu

mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
sharding = jax.NamedSharding(mesh, jax.P("data"))
x = jax.ShapeDtypeStruct((2, 360, 640, 64), jnp.float32, sharding=sharding)
kernel = jax.ShapeDtypeStruct((3, 3, 64, 32), jnp.float32)
call = jax.jit(lambda x, kernel: cpu.convolve(x, kernel, ((1, 1), (1, 1)), 1, 1))
print(call.lower(x, kernel).compile().as_text())
"""


def test_devices_work_on_bands_of_their_own_images():
    run = subprocess.run(
        [sys.executable, "-c", _DIVIDED],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert " while(" in run.stdout
    assert "all-gather" not in run.stdout
    assert " convolution(" not in run.stdout  # which shares columns among the cores


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.integers(2, 3),
    st.integers(1, 5),
    st.tuples(st.integers(6, 11), st.integers(6, 11)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_a_stride_is_a_convolution_over_phases(stride, taps, size, pads):
    x, kernel = normal(2, *size, 5), normal(taps, taps, 5, 4, seed=1)
    assert_plain(x, kernel, (pads, pads), stride, 1)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.integers(5, 9),
    st.tuples(st.integers(5, 12), st.integers(5, 12)),
    st.tuples(st.integers(2, 4), st.integers(2, 4)),
    st.sampled_from([3, 9]),
)
def test_a_large_kernel_over_few_channels_goes_by_blocks(taps, size, pads, features):
    x, kernel = normal(2, *size, features), normal(taps, taps, features, 4, seed=1)
    assert_plain(x, kernel, (pads, pads), 1, 1)


def test_an_image_is_its_phases_as_they_lie():
    x = normal(2, 6, 9, 5)
    phases = cpu._image_phases(x, 3)
    assert phases.shape == (2, 2, 3, 3, 3 * 5)
    np.testing.assert_array_equal(phases[0, 1, 2, 1], np.ravel(x[0, 5, 3:6]))
    np.testing.assert_array_equal(cpu._whole_image(phases), x)

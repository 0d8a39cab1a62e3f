import jax.numpy as jnp
import numpy as np

from jaxdeblur.convolutions.phases import merge_phases, split_phases

STRIDE = 3


def test_an_image_as_it_lies_becomes_its_phases_side_by_side():
    image = np.arange(2 * 6 * 9 * 5).reshape(2, 6, 9, 5)
    as_it_lies = jnp.asarray(image.reshape(2, 2, STRIDE, 3, STRIDE * 5))
    merged = merge_phases(as_it_lies, 1)
    phases = [image[:, i::STRIDE, j::STRIDE] for i in range(STRIDE) for j in range(STRIDE)]
    np.testing.assert_array_equal(merged, np.concatenate(phases, axis=-1))
    np.testing.assert_array_equal(split_phases(merged, STRIDE, 1), as_it_lies)


def test_a_kernel_as_it_lies_becomes_its_phases_side_by_side():
    kernel = np.arange(6 * 6 * 4 * 7).reshape(6, 6, 4, 7)
    as_it_lies = jnp.asarray(kernel.reshape(2, STRIDE, 2, STRIDE * 4, 7))
    merged = merge_phases(as_it_lies, 0)
    phases = [kernel[i::STRIDE, j::STRIDE] for i in range(STRIDE) for j in range(STRIDE)]
    np.testing.assert_array_equal(merged, np.concatenate(phases, axis=2))
    np.testing.assert_array_equal(split_phases(merged, STRIDE, 0), as_it_lies)

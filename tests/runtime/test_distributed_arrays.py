import jax
import numpy as np

from jaxdeblur.runtime import distributed


def test_devices_get_the_whole_batch():
    batch = {"sharp": np.arange(4 * 27, dtype=np.uint8).reshape(4, 3, 3, 3), "index": np.arange(4)}
    placed = distributed.parts_to_devices(batch, distributed.shardings()[1])
    assert all(isinstance(x, jax.Array) for x in placed.values())
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(placed), batch)

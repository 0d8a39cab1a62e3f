"""Arrays on the devices of a job, and what its processes agree on.

One mesh over all devices. Batches are divided along it; parameters are whole on every device, or
divided as well (`state_shardings`). Process 0 alone reads and writes the run's folder: the others
are told what it found.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxdeblur.errors import InputError
from jaxdeblur.runtime import signals

_MESSAGE_BYTES = 1024


def is_main() -> bool:
    """Whether this is the process that reads and writes the run's folder, and talks."""
    return jax.process_index() == 0


def mesh() -> jax.sharding.Mesh:
    """All devices in one row, those of one process beside each other."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return jax.sharding.Mesh(np.array(devices), ("data",))


def shardings() -> tuple[jax.NamedSharding, jax.NamedSharding]:
    """Returns the shardings "whole on every device" and "divided along the first axis"."""
    return jax.NamedSharding(mesh(), jax.P()), jax.NamedSharding(mesh(), jax.P("data"))


def state_shardings(state: Any, *, divided: bool) -> Any:
    """Returns a sharding for every array of a training state.

    Args:
      state: a tree of arrays or of their shapes.
      divided: whether to divide each array along its longest axis that the number of devices
        divides, as "fully sharded data parallelism" does; the compiler then gathers parameters
        where they are used, and scatters gradients. Arrays without such an axis stay whole.
    """
    whole, num_devices = jax.NamedSharding(mesh(), jax.P()), jax.device_count()

    def sharding(x):
        axes = [axis for axis, size in enumerate(x.shape) if size % num_devices == 0]
        if not (divided and axes):
            return whole
        longest = max(axes, key=lambda axis: x.shape[axis])
        return jax.NamedSharding(mesh(), jax.P(*[None] * longest, "data"))

    return jax.tree.map(sharding, state)


def gathered(tree: Any) -> Any:
    """Makes every array whole on every device."""
    whole = jax.NamedSharding(mesh(), jax.P())
    return jax.tree.map(lambda x: x if x.is_fully_replicated else _copied(x, whole), tree)


def to_main(tree: Any) -> Any:
    """Copies arrays to the memory of process 0, each gathered by itself; None elsewhere.

    Every process must call it.
    """

    def copy(x):
        whole = gathered(x)
        return np.array(whole) if is_main() else None

    copies = jax.tree.map(copy, tree)
    return copies if is_main() else None


def on_own_devices(tree: Any) -> Any:
    """Copies arrays that are whole on every device to this process's devices alone."""
    own = jax.NamedSharding(jax.sharding.Mesh(jax.local_devices(), ("data",)), jax.P())
    return jax.device_put(jax.tree.map(np.asarray, tree), own)


def _copied(x: jax.Array, sharding: jax.sharding.Sharding) -> jax.Array:
    return jax.jit(lambda x: x, out_shardings=sharding)(x)


def broadcast(tree: Any) -> Any:
    """Gives every process the numpy arrays of process 0, bit for bit.

    Args:
      tree: of arrays, on every process of the same shapes and types.
    """
    if jax.process_count() == 1:
        return tree

    def from_main(x):
        # Sent as bytes: what sums numbers over the processes would lose the sign of a zero.
        data = np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8)
        received = np.asarray(multihost_utils.broadcast_one_to_all(data), np.uint8)
        return np.frombuffer(received.tobytes(), x.dtype).reshape(x.shape)

    return jax.tree.map(from_main, tree)


def to_devices(tree: Any, shardings: Any) -> Any:
    """Places numpy arrays that every process has as global arrays.

    Args:
      tree: of arrays.
      shardings: one for each array, or one for all.
    """

    def place(x, sharding):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    if isinstance(shardings, jax.sharding.Sharding):
        return jax.tree.map(lambda x: place(x, shardings), tree)
    return jax.tree.map(place, tree, shardings)


def parts_to_devices(parts: Any, sharding: jax.sharding.Sharding) -> Any:
    """Places each process's part of numpy arrays on its devices, as one global array each."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), parts)


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Joins the rows of all processes, in their order; each may have another number of them."""
    if jax.process_count() == 1:
        return rows
    counts = multihost_utils.process_allgather(np.int32(len(rows)))
    padded = np.zeros((counts.max(), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    everything = multihost_utils.process_allgather(padded)
    return np.concatenate([part[:n] for part, n in zip(everything, counts, strict=True)])


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Makes an `InputError` of one process that of all, so that none waits for another in vain.

    Raises:
      InputError: that of the first process that has one, marked as `common`.
    """
    error = None
    try:
        yield
    except InputError as own:
        error = own
    if jax.process_count() == 1:
        if error is not None:
            raise error
        return
    message = str(error).encode()[:_MESSAGE_BYTES] if error else b""
    padded = np.zeros(_MESSAGE_BYTES, np.uint8)
    padded[: len(message)] = np.frombuffer(message, np.uint8)
    messages = multihost_utils.process_allgather(padded)
    for process, row in enumerate(messages):
        if row.any():
            text = bytes(row).rstrip(b"\0").decode(errors="replace")
            shared = InputError(f"process {process}: {text}" if process else text)
            shared.common = True
            raise shared from error


class Preemption:
    """Tells when the job has been asked to end (SIGTERM to any of its processes).

    A context manager, which listens from its beginning to its end.
    """

    def __init__(self) -> None:
        self._asked = False
        self._calls = 0
        self._previous: Any = None

    def __enter__(self) -> Self:
        # With several processes JAX itself listens. Python allows handlers in the main thread.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, *_: object) -> None:
        self._asked = True

    def asked(self) -> bool:
        """Whether to save and end now: on all processes at the same call.

        Every process must call it at the same points of its program.
        """
        signals.check()
        self._calls += 1
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._asked

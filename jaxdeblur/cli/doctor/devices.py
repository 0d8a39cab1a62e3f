"""Whether devices compute: tried in another process, since a driver can end or hang its own.

That one runs this file, and prints its lines as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxdeblur.cli.doctor.common import Line, reason, size, until_failure
from jaxdeblur.runtime import startup
from jaxdeblur.workdir import remote

_LIMIT = 120.0  # seconds; on a TPU pod a lone process waits for the others
_MOST_MESSAGES = 3


def lines() -> Iterator[Line]:
    printed, ending = _run()
    messages = []
    for text in printed.decode(errors="replace").splitlines():
        try:
            yield Line(*json.loads(text))
        except (ValueError, TypeError):
            messages += [text[:300]] if text.strip() else []
    for message in messages[-_MOST_MESSAGES:]:
        yield Line("message", message)
    if ending:
        yield Line("failed", ending, broken=True)


def _run() -> tuple[bytes, str]:
    """Returns what the other process has printed, and how it has ended if not well."""
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a training beside this one keeps its memory
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-P", "-m", "jaxdeblur.cli.doctor.devices"]
    out, err = subprocess.PIPE, subprocess.STDOUT
    try:
        done = subprocess.run(command, env=environment, stdout=out, stderr=err, timeout=_LIMIT)
    except subprocess.TimeoutExpired as error:
        return error.stdout or b"", f"no answer within {_LIMIT:.0f} s"
    status = done.returncode
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    return done.stdout, f"the process that tried them ended with {name}" if status else ""


def _tried() -> Iterator[Line]:
    import jax

    yield Line("cache", _cache())
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is to be timed
    yield Line("backend", jax.default_backend())
    devices = jax.local_devices()
    kinds = Counter(device.device_kind for device in devices)
    yield Line("devices", ", ".join(f"{count} x {kind}" for kind, count in kinds.items()))
    statistics = None
    with contextlib.suppress(NotImplementedError, RuntimeError):  # not every plugin counts
        statistics = devices[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        yield Line("memory", f"{size(statistics['bytes_limit'])}, of the first")
    yield _product(devices[0])


def _cache() -> str:
    folder = startup.compilation_cache_folder()
    if folder is None:
        return "none, since there is no home folder (XDG_CACHE_HOME can name another)"
    if remote.is_remote(folder):
        return folder
    if not os.path.isdir(folder):
        return f"{folder}, does not exist"
    try:
        sizes = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
    except OSError as error:  # such as a program that another process has just removed
        return f"{folder}, {reason(error)}"
    remark = "" if os.access(folder, os.W_OK) else ", cannot be written"
    return f"{folder}, {size(sum(sizes))} in {len(sizes)} files{remark}"


def _product(device: Any) -> Line:
    """Multiplies two matrices, and compares a part of the result with numpy's."""
    import jax
    import numpy as np

    side = 2048 if device.platform == "cpu" else 8192
    # Of whole numbers so small that every precision computes the same.
    matrix = np.random.default_rng(0).integers(-2, 3, (side, side)).astype(np.float32)
    there = jax.device_put(matrix, device).block_until_ready()
    product = jax.jit(jax.numpy.matmul)
    start = time.perf_counter()
    result = product(there, there).block_until_ready()
    compiled = time.perf_counter()
    product(there, there).block_until_ready()
    first, then = compiled - start, time.perf_counter() - compiled
    if not np.array_equal(np.asarray(result[:2]), matrix[:2] @ matrix):
        return Line("matrix product", f"{device} computes wrong numbers", broken=True)
    rate = f"{2 * side**3 / then / 1e9:.0f} GFLOP/s"
    text = f"{side}x{side}, float32: {first:.3g} s with compiling, then {then:.3g} s, {rate}"
    return Line("matrix product", text)


if __name__ == "__main__":
    for line in until_failure(_tried, needed=True):
        print(json.dumps(line), flush=True)  # each at once: the next may end the process

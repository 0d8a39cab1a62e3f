"""One variant of one network on one batch, in a process of its own.

A process each gives each variant a peak of memory that is its own, and keeps the thread pools of
the frameworks from waking while another's step is timed.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from jaxdeblur.errors import InputError
from jaxdeblur.restoring.restore import compiler_options
from jaxdeblur.runtime.startup import keep_freed_memory, training_options

OURS = "jaxdeblur"
SHARDED = "jaxdeblur sharded"
PLAIN = "plain Flax"
TORCH = ("PyTorch", "PyTorch channels_last", "PyTorch compiled")
VARIANTS = (OURS, SHARDED, PLAIN, *TORCH)
# Networks that are a preset with other fields.
ALTERED: dict[str, tuple[str, dict[str, Any]]] = {"maxim_effort1": ("maxim", {"effort": 1})}
PRECISIONS = ("float32", "tf32", "bfloat16")

LEARNING_RATE = 1e-4
# A variant is called for so long before it is another's turn, and so often at least: a single call
# in several was met that took twice its time. Calls so long that a few fill a minute are fewer.
TURN_SECONDS = 0.5
TURN_CALLS = 3
LONGEST_TURN_SECONDS = 60.0
PRODUCT_SIZE = {"cpu": 2048, "gpu": 8192}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
      network: a preset's name, or one of `ALTERED`.
      work: training (forward, L1 loss, gradients, Adam's update) or inference.
      batch: images.
      height: of an image, in pixels.
      width: of an image, in pixels.
      precision: of the arithmetic.
    """

    network: str
    work: str
    batch: int
    height: int
    width: int
    precision: str = "float32"

    @classmethod
    def parse(cls, text: str, precision: str) -> Case:
        """Reads `NETWORK:WORK:BATCHxHEIGHTxWIDTH`; raises ValueError where it is not that."""
        network, work, size = text.split(":")
        batch, height, width = (int(number) for number in size.split("x"))
        if work not in ("training", "inference") or min(batch, height, width) < 1:
            raise ValueError(text)
        return cls(network, work, batch, height, width, precision)

    def __str__(self) -> str:
        return f"{self.network}:{self.work}:{self.batch}x{self.height}x{self.width}"

    def module(self, dtype: str = "float32") -> Any:
        """Returns the package's network."""
        from jaxdeblur.models import create_model

        preset, fields = ALTERED.get(self.network, (self.network, {}))
        return create_model(preset, dtype=dtype).clone(**fields)


class Worker:
    """A process that runs one variant of a case when asked to."""

    def __init__(self, variant: str, case: Case, inputs: Path, device: str):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, variant, case, inputs, device)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, request: str | None, timeout: float | None = None) -> Any:
        """Returns the answer, of no request the first calls'; else RuntimeError, TimeoutError."""
        try:
            if request is not None:
                self._connection.send(request)
            if not self._connection.poll(timeout):
                raise TimeoutError
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError("its process ended; out of memory?") from None
        if isinstance(answer, Exception):
            raise RuntimeError(" ".join(str(answer).split())[:200] or type(answer).__name__)
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def in_own_process(function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function in a new process, so that the frameworks that it imports stay there."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__} failed with status {process.exitcode}")


def write_inputs(case: Case, path: Path) -> None:
    """Writes parameters and a batch for every variant of a case, and the FLOPs of a call."""
    _choose_device("cpu", "float32")
    import jax
    from flax.traverse_util import flatten_dict

    from jaxdeblur.models.cost import multiply_adds

    network = case.module()
    shape = (case.batch, case.height, case.width, 3)
    rng = np.random.default_rng(0)
    blurred, sharp = rng.random((2, *shape), dtype=np.float32)
    # Parameters do not depend on the image's size.
    side = max(network.minimum_size, network.size_multiple)
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)["params"]
    # Not those that a network begins with: factors of zero hide what they multiply.
    params = {
        name: _random_parameter(rng, array.shape)
        for name, array in flatten_dict(shapes, sep=".").items()
    }
    # Each convolution has two gradients, as large as itself.
    flops = 2 * multiply_adds(network, shape) * (3 if case.work == "training" else 1)
    np.savez(path, blurred=blurred, sharp=sharp, flops=flops, **params)


def _random_parameter(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel that keeps the size of what it is given, or a bias or scale of about 0.1."""
    deviation = np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 0.1
    return rng.normal(0, deviation, shape).astype(np.float32)


def versions() -> dict[str, str]:
    """The versions of what is compared."""
    from importlib import metadata

    found = {}
    for package in ("jax", "flax", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _serve(connection: Connection, variant: str, case: Case, inputs: Path, device: str) -> None:
    keep_freed_memory()  # which helps PyTorch's allocator as it does XLA's
    try:
        _choose_device(device, case.precision)
        if variant == SHARDED:
            _choose_sharding(device)
        runner = (_Torch if variant in TORCH else _Jax)(variant, case, inputs, device)
        start = time.perf_counter()
        runner.call()
        elapsed = time.perf_counter() - start
        # The second loss is that after an update, so it tells of the gradients too.
        connection.send({"first_seconds": elapsed, "result": runner.result(runner.call())})
        answers: dict[str, Callable[[], Any]] = {
            "calls": functools.partial(_successive_seconds, runner.call),
            "peak": runner.peak,
            "memory": runner.memory,
        }
        while True:
            request = connection.recv()
            connection.send(answers[request]())
    except EOFError:
        return
    except Exception as error:  # told to the parent, which shows it in the table
        connection.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _successive_seconds(call: Callable[[], Any]) -> list[float]:
    """Seconds of calls one after the other, as a training or a server makes them.

    Without the first, which finds caches and memory full of what ran before, unless it is all that
    there is time for.
    """
    seconds: list[float] = []

    def enough() -> bool:
        counted = seconds[1:]
        return sum(counted) >= TURN_SECONDS and len(counted) >= TURN_CALLS

    while not enough() and sum(seconds) < LONGEST_TURN_SECONDS:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[1:] or seconds


def _choose_device(device: str, precision: str) -> None:
    """Sets what JAX reads when it is imported and first used."""
    os.environ["JAX_PLATFORMS"] = "cpu" if device == "cpu" else "cuda"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    products = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}
    jax.config.update("jax_default_matmul_precision", products[precision])


def _choose_sharding(device: str) -> None:
    """Makes a device of each core of a CPU."""
    import jax

    if device == "cpu":
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    if jax.device_count() == 1:
        raise InputError("needs several devices, not 1")


def divide(case: Case, network: Any) -> tuple[Callable[..., Any], Any]:
    """Decides how all devices divide a case: its batch, or the columns of a single image.

    Returns:
      The network's function of variables and images, and the sharding of the images.

    Raises:
      InputError: they divide neither.
    """
    import jax

    from jaxdeblur.convolutions import shares
    from jaxdeblur.runtime import distributed

    devices = jax.devices()
    if case.batch % len(devices) == 0:
        return network.apply, distributed.shardings()[1]
    if case.work == "inference" and shares.fit(network, case.width, len(devices)):
        return shares.divided_apply(network, devices), shares.sharding(devices)
    raise InputError(f"{case} needs several images, or wider ones, for {len(devices)} devices")


def _load(inputs: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    arrays = dict(np.load(inputs))
    blurred, sharp, _ = (arrays.pop(name) for name in ("blurred", "sharp", "flops"))
    return arrays, blurred, sharp


class _Jax:
    """A Linen module, the package's or the plain one."""

    def __init__(self, variant: str, case: Case, inputs: Path, device: str):
        import jax
        import optax
        from flax.traverse_util import unflatten_dict
        from plain_flax import plain_apply

        from jaxdeblur.losses import l1
        from jaxdeblur.runtime import distributed

        self._jax, self._case, self._device = jax, case, device
        self._resident = _resident_bytes()
        arrays, blurred, sharp = _load(inputs)
        dtype = "bfloat16" if case.precision == "bfloat16" else "float32"
        network = case.module(dtype)
        apply, divided = divide(case, network)
        train = functools.partial(apply, train=True)
        if variant == PLAIN:
            train = apply = plain_apply(network)
        optimizer = optax.adam(LEARNING_RATE)
        whole, _ = distributed.shardings()

        @functools.partial(
            jax.jit,
            donate_argnums=(0, 1),
            out_shardings=whole,
            compiler_options=training_options(),
        )
        def step(params, optimizer_state, blurred, sharp):
            def loss(params):
                return l1(train({"params": params}, blurred), sharp)

            value, gradients = jax.value_and_grad(loss)(params)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
            return optax.apply_updates(params, updates), optimizer_state, value

        self._step = step
        self._restore = jax.jit(
            apply, compiler_options=None if variant == PLAIN else compiler_options(network)
        )
        self._batch = jax.device_put((blurred, sharp), divided)
        self._params = jax.device_put(unflatten_dict(arrays, sep="."), whole)
        if case.work == "training":
            self._optimizer_state = jax.device_put(optimizer.init(self._params), whole)

    def call(self) -> Any:
        """One step, returning the loss before it, or one restored batch."""
        if self._case.work == "inference":
            variables = {"params": self._params}
            return self._jax.block_until_ready(self._restore(variables, self._batch[0]))
        results = self._step(self._params, self._optimizer_state, *self._batch)
        self._params, self._optimizer_state, loss = self._jax.block_until_ready(results)
        return loss

    def result(self, output: Any) -> Any:
        """What is compared of a call's output."""
        return float(output) if self._case.work == "training" else _sample(np.asarray(output))

    def peak(self) -> float:
        """FLOP/s of a large matrix product."""
        size = PRODUCT_SIZE[self._device]
        dtype = "bfloat16" if self._case.precision == "bfloat16" else "float32"
        matrix = self._jax.numpy.ones((size, size), dtype)
        product = self._jax.jit(self._jax.numpy.matmul)
        return _fastest(lambda: self._jax.block_until_ready(product(matrix, matrix)), size)

    def memory(self) -> int:
        """Most bytes in use, of the device or of the process beyond its libraries."""
        if self._device == "gpu":
            return self._jax.devices()[0].memory_stats()["peak_bytes_in_use"]
        return peak_resident_bytes() - self._resident


class _Torch:
    """The network in PyTorch, eager in one of two layouts, or compiled."""

    def __init__(self, variant: str, case: Case, inputs: Path, device: str):
        import pytorch
        import torch

        self._torch, self._case, self._device = torch, case, device
        self._target = "cuda" if device == "gpu" else "cpu"
        torch.set_num_threads(os.cpu_count() or 1)
        torch.backends.cuda.matmul.allow_tf32 = case.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = case.precision == "tf32"
        torch.backends.cudnn.benchmark = True
        self._resident = _resident_bytes()
        layout = torch.contiguous_format if variant == TORCH[0] else torch.channels_last
        arrays, *images = _load(inputs)
        self._params = {
            name: pytorch.kernel_to_torch(array, layout).to(self._target).requires_grad_()
            for name, array in arrays.items()
        }
        self._blurred, self._sharp = (pytorch.to_torch(x, layout).to(self._target) for x in images)
        apply = pytorch.torch_apply(case.module())
        self._apply = torch.compile(apply) if variant == TORCH[2] else apply
        if case.work == "training":
            # Fused is PyTorch's fastest update, several times faster than its default on a CPU.
            values = self._params.values()
            self._optimizer = torch.optim.Adam(values, lr=LEARNING_RATE, fused=True)

    def call(self) -> Any:
        """One step, returning the loss before it, or one restored batch."""
        torch = self._torch
        half = torch.autocast(
            self._target, torch.bfloat16, enabled=self._case.precision == "bfloat16"
        )
        if self._case.work == "inference":
            with torch.no_grad(), half:
                restored = self._apply(self._params, self._blurred)
            self._wait()
            return restored
        self._optimizer.zero_grad()
        with half:
            restored = self._apply(self._params, self._blurred)
        loss = torch.nn.functional.l1_loss(restored, self._sharp)
        loss.backward()
        self._optimizer.step()
        self._wait()
        return loss

    def result(self, output: Any) -> Any:
        """What is compared of a call's output."""
        if self._case.work == "training":
            return output.item()
        return _sample(output.permute(0, 2, 3, 1).float().cpu().numpy())

    def peak(self) -> float:
        """FLOP/s of a large matrix product."""
        size = PRODUCT_SIZE[self._device]
        dtype = self._torch.bfloat16 if self._case.precision == "bfloat16" else None
        matrix = self._torch.ones((size, size), dtype=dtype, device=self._target)

        def product():
            self._torch.mm(matrix, matrix)
            self._wait()

        return _fastest(product, size)

    def memory(self) -> int:
        """Most bytes in use, of the device or of the process beyond its libraries."""
        if self._device == "gpu":
            return self._torch.cuda.max_memory_allocated()
        return peak_resident_bytes() - self._resident

    def _wait(self) -> None:
        if self._device == "gpu":
            self._torch.cuda.synchronize()


def _sample(images: Any) -> Any:
    """The corners and the middle of images `[B, H, W, C]`, little enough to send and compare."""
    height, width = images.shape[1:3]
    return images[:, :: max(1, height // 16), :: max(1, width // 16)]


def _fastest(call: Callable[[], Any], size: int, calls: int = 5) -> float:
    call()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def _resident_bytes() -> int:
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> int:
    return _status_bytes("VmHWM")


def _status_bytes(key: str) -> int:
    """A size from the process's status, or 0 where the system has none (only Linux does)."""
    try:
        lines: Sequence[str] = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

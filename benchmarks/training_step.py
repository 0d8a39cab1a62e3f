"""Times one training step of a network against plain Flax and PyTorch, on the CPU.

  python benchmarks/training_step.py --model atrous_net --batch 16 --size 32 --rounds 5

needs the installed package with its `train` extra; PyTorch is optional. A step is the forward
pass, the L1 loss, the gradients and Adam's update, all in float32, of

  naive Linen            the network as one writes it with `nn.Conv` and `nn.ConvTranspose`
  jaxdeblur              the package's module
  PyTorch                eager, NCHW tensors in their default layout
  PyTorch channels_last  eager, in the NHWC layout

All start from the same weights and see the same batch. Before anything is timed, their outputs
must agree, and their losses once weights have been updated. Each round times one step of every
variant of a framework in turn and a few matrix products, so that other load on the machine meets
all alike; PyTorch's rounds follow JAX's, since alternating steps of two thread pools slow each
other down. The table gives medians over the rounds, beside them the fastest step, and takes the
fastest product as the machine's peak.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxdeblur.errors import InputError, reported
from jaxdeblur.losses import l1
from jaxdeblur.models import PRESETS, AtrousNet, CarloNet, create_model

try:
    import torch
    import torch.nn.functional as F  # noqa: N812
except ImportError:
    torch = None

NAIVE = "naive Linen"
OURS = "jaxdeblur"
TORCH = {"PyTorch": False, "PyTorch channels_last": True}

LEARNING_RATE = 1e-4
WARM_UP_STEPS = 2
OUTPUT_TOLERANCE = 1e-4
# Adam's first update is nearly the sign of the gradient, which rounding can flip where it is tiny.
LOSS_TOLERANCE = 1e-3
PRODUCT_SIZE = 2048
PRODUCTS_PER_ROUND = 3

leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.3)


# The networks in plain Linen. Layers have the names and kernel layouts of the package's, so the
# same parameters fit both.


class NaiveAtrous(nn.Module):
    """ATROUS_NET for images, without batch normalisation."""

    num_channels: int
    num_blocks: int

    @nn.compact
    def __call__(self, blurred: jax.Array) -> jax.Array:
        full, half, quarter = (self.num_channels // scale for scale in (1, 2, 4))
        skip = leaky_relu(nn.Conv(half, (9, 9), name="stem")(blurred))
        x = leaky_relu(nn.Conv(full, (3, 3), strides=2, name="down")(skip))
        for i in range(self.num_blocks):
            x = NaiveAtrousBlock(full, name=f"block_{i}")(x)
        up = nn.ConvTranspose(half, (3, 3), strides=(2, 2), transpose_kernel=True, name="up")
        x = jnp.concatenate([leaky_relu(up(x)), skip], axis=-1)
        x = leaky_relu(nn.Conv(quarter, (3, 3), name="mix")(x))
        return blurred + nn.Conv(3, (3, 3), name="difference")(x)


class NaiveAtrousBlock(nn.Module):
    """Four dilations side by side, merged, plus the input."""

    num_channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        half = self.num_channels // 2
        branches = [
            leaky_relu(nn.Conv(half, (3, 3), kernel_dilation=d, name=f"dilated_{d}")(x))
            for d in (1, 2, 3, 4)
        ]
        merge = nn.Conv(self.num_channels, (3, 3), name="merge")
        return x + leaky_relu(merge(jnp.concatenate(branches, axis=-1)))


class NaiveCarlo(nn.Module):
    """CARLO_NET."""

    num_filters: int

    @nn.compact
    def __call__(self, blurred: jax.Array) -> jax.Array:
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding="VALID")
        deconv = functools.partial(
            nn.ConvTranspose, kernel_size=(3, 3), padding="VALID", transpose_kernel=True
        )
        x = blurred
        encoded = []
        for i in range(10):
            x = nn.relu(conv(self.num_filters, name=f"encoder_{i}")(x))
            encoded.append(x)
        for i in range(9):
            x = nn.relu(deconv(self.num_filters, name=f"decoder_{i}")(x))
            if i % 2 == 0:
                x = nn.relu(encoded[8 - i] + x)
        return nn.relu(deconv(3, name="decoder_9")(x))


# The same in PyTorch, as functions of NCHW images and of parameters by dotted name.


def torch_atrous(network: AtrousNet, params: Mapping[str, torch.Tensor], blurred: torch.Tensor):
    """ATROUS_NET for images, without batch normalisation."""
    activate = functools.partial(F.leaky_relu, negative_slope=0.3)

    def conv(x, name, apply=F.conv2d, **options):
        return apply(x, params[f"{name}.kernel"], params[f"{name}.bias"], **options)

    skip = activate(conv(blurred, "stem", padding=4))
    # TensorFlow's 'SAME' at stride 2 and even sizes: one zero, at the end. The transposed
    # convolution, its gradient, loses its last row and column.
    x = activate(conv(F.pad(skip, (0, 1, 0, 1)), "down", stride=2))
    for i in range(network.num_blocks):
        branches = [
            activate(conv(x, f"block_{i}.dilated_{d}", padding=d, dilation=d)) for d in (1, 2, 3, 4)
        ]
        x = x + activate(conv(torch.cat(branches, dim=1), f"block_{i}.merge", padding=1))
    x = activate(conv(x, "up", F.conv_transpose2d, stride=2)[..., :-1, :-1])
    x = activate(conv(torch.cat([x, skip], dim=1), "mix", padding=1))
    return blurred + conv(x, "difference", padding=1)


def torch_carlo(network: CarloNet, params: Mapping[str, torch.Tensor], blurred: torch.Tensor):
    """CARLO_NET."""
    del network  # The parameters tell the width.

    def layer(apply, x, name):
        return F.relu(apply(x, params[f"{name}.kernel"], params[f"{name}.bias"]))

    x = blurred
    encoded = []
    for i in range(10):
        x = layer(F.conv2d, x, f"encoder_{i}")
        encoded.append(x)
    for i in range(9):
        x = layer(F.conv_transpose2d, x, f"decoder_{i}")
        if i % 2 == 0:
            x = F.relu(encoded[8 - i] + x)
    return layer(F.conv_transpose2d, x, "decoder_9")


def naive_version(network: nn.Module) -> nn.Module:
    """Returns the plain Linen module of the same network and width."""
    if isinstance(network, AtrousNet):
        return NaiveAtrous(network.num_channels, network.num_blocks)
    if isinstance(network, CarloNet):
        return NaiveCarlo(network.num_filters)
    known = [name for name, preset in PRESETS.items() if isinstance(preset, AtrousNet | CarloNet)]
    raise InputError(
        f"{type(network).__name__} has no plain version to compare with; "
        f"choose --model from {', '.join(known)}"
    )


class JaxTrainer:
    """Trains a Linen module on one batch, a step per call."""

    def __init__(self, network: nn.Module, params: Any, blurred: np.ndarray, sharp: np.ndarray):
        self._apply = jax.jit(lambda params, x: network.apply({"params": params}, x))
        optimizer = optax.adam(LEARNING_RATE)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, optimizer_state, blurred, sharp):
            def loss(params):
                return l1(network.apply({"params": params}, blurred), sharp)

            value, gradients = jax.value_and_grad(loss)(params)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
            return optax.apply_updates(params, updates), optimizer_state, value

        self._step = step
        self._batch = (jnp.asarray(blurred), jnp.asarray(sharp))
        # A copy, since the first step takes the memory over.
        self._params = jax.tree.map(jnp.array, params)
        self._optimizer_state = optimizer.init(self._params)

    def output(self) -> np.ndarray:
        """Returns the restored batch, NHWC."""
        return np.asarray(self._apply(self._params, self._batch[0]))

    def __call__(self) -> float:
        """Makes one step and returns the loss before it."""
        results = self._step(self._params, self._optimizer_state, *self._batch)
        self._params, self._optimizer_state, loss = jax.block_until_ready(results)
        return float(loss)


class TorchTrainer:
    """The same in PyTorch, eager."""

    def __init__(
        self,
        network: nn.Module,
        params: Any,
        blurred: np.ndarray,
        sharp: np.ndarray,
        channels_last: bool,
    ):
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def to_torch(array, axes):
            tensor = torch.from_numpy(np.array(array).transpose(axes))
            return tensor.contiguous(memory_format=layout)

        # [K, K, in, out] to [out, in, K, K]; transposed convolutions have in and out exchanged on
        # both sides.
        self._params = {
            name: to_torch(value, (3, 2, 0, 1)) if value.ndim == 4 else torch.tensor(value)
            for name, value in flatten_dict(jax.tree.map(np.asarray, params), sep=".").items()
        }
        for parameter in self._params.values():
            parameter.requires_grad_()
        self._blurred, self._sharp = (to_torch(x, (0, 3, 1, 2)) for x in (blurred, sharp))
        apply = torch_atrous if isinstance(network, AtrousNet) else torch_carlo
        self._apply = functools.partial(apply, network)
        # Fused is PyTorch's fastest update on a CPU, several times faster than its default.
        self._optimizer = torch.optim.Adam(self._params.values(), lr=LEARNING_RATE, fused=True)

    def output(self) -> np.ndarray:
        """Returns the restored batch, NHWC."""
        with torch.no_grad():
            return self._apply(self._params, self._blurred).permute(0, 2, 3, 1).numpy()

    def __call__(self) -> float:
        """Makes one step and returns the loss before it."""
        self._optimizer.zero_grad()
        loss = F.l1_loss(self._apply(self._params, self._blurred), self._sharp)
        loss.backward()
        self._optimizer.step()
        return loss.item()


def create_trainers(network: nn.Module, batch: int, size: int) -> tuple[dict[str, Any], int]:
    """Returns one trainer per variant, by name, and the FLOPs of a forward pass."""
    naive = naive_version(network)
    random = np.random.default_rng(0)
    blurred, sharp = random.random((2, batch, size, size, 3), dtype=np.float32)
    params = jax.jit(network.init)(jax.random.key(0), blurred)["params"]
    trainers: dict[str, Any] = {
        NAIVE: JaxTrainer(naive, params, blurred, sharp),
        OURS: JaxTrainer(network, params, blurred, sharp),
    }
    if torch is None:
        print("PyTorch is not installed: skipped.")
    else:
        torch.set_num_threads(os.cpu_count() or 1)
        for name, channels_last in TORCH.items():
            trainers[name] = TorchTrainer(network, params, blurred, sharp, channels_last)
    return trainers, forward_flops(naive, params, blurred)


def forward_flops(naive: nn.Module, params: Any, blurred: np.ndarray) -> int:
    """Sums `2 * K * K * in * out * pixels` over the convolutions.

    The pixels are those of the output, of a transposed convolution those of the input.
    """
    total = 0

    def count(layer, arguments, options, context):
        nonlocal total
        (x,) = arguments
        y = layer(*arguments, **options)
        if isinstance(context.module, nn.Conv | nn.ConvTranspose):
            # Whichever side is the smaller one: only transposed convolutions enlarge.
            pixels = min(x.size // x.shape[-1], y.size // y.shape[-1])
            total += 2 * context.module.variables["params"]["kernel"].size * pixels
        return y

    with nn.intercept_methods(count):
        jax.eval_shape(naive.apply, {"params": params}, blurred)
    return total


def check_equal(trainers: Mapping[str, Any]) -> None:
    """Warms all variants up; raises RuntimeError unless they compute the same thing."""
    outputs = {name: trainer.output() for name, trainer in trainers.items()}
    losses = {
        name: [trainer() for _ in range(WARM_UP_STEPS)][-1] for name, trainer in trainers.items()
    }
    for name in trainers:
        error = np.abs(outputs[name] - outputs[OURS]).max() / np.abs(outputs[OURS]).max()
        if not error <= OUTPUT_TOLERANCE:
            raise RuntimeError(f"the output of {name} differs by {error:.1e} from {OURS}'s")
        error = abs(losses[name] / losses[OURS] - 1)
        if not error <= LOSS_TOLERANCE:
            raise RuntimeError(f"after a step the loss of {name} differs by {error:.1e}")


def measure(steps: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict, float]:
    """Returns the seconds of each variant, a list over the rounds, and the peak in FLOP/s."""
    matrix = jnp.ones((PRODUCT_SIZE, PRODUCT_SIZE))
    product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    fastest_product = float("inf")
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(timed(step))
        for _ in range(PRODUCTS_PER_ROUND):
            elapsed = timed(lambda: product(matrix, matrix).block_until_ready())
            fastest_product = min(fastest_product, elapsed)
    return seconds, 2 * PRODUCT_SIZE**3 / fastest_product


def timed(call: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summarize(seconds: Mapping[str, list[float]], flops: int, peak: float) -> list[dict[str, Any]]:
    """Returns one row per variant: medians, their ratios, and the rate of arithmetic."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    best_torch = min((medians[name] for name in TORCH if name in medians), default=None)
    return [
        {
            "variant": name,
            "milliseconds": median * 1e3,
            "fastest_milliseconds": min(seconds[name]) * 1e3,
            "time_to_naive": median / medians[NAIVE],
            "time_to_best_pytorch": median / best_torch if best_torch else None,
            "gflop_per_second": flops / median / 1e9,
            "share_of_peak": flops / median / peak,
            "all_milliseconds": [elapsed * 1e3 for elapsed in seconds[name]],
        }
        for name, median in medians.items()
    ]


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table; a ratio below 1 is a faster step."""
    lines = [
        "| variant | ms per step | fastest | time / naive Linen | time / best PyTorch "
        "| GFLOP/s | of peak |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        to_torch = row["time_to_best_pytorch"]
        cells = (
            row["variant"],
            f"{row['milliseconds']:.1f}",
            f"{row['fastest_milliseconds']:.1f}",
            f"{row['time_to_naive']:.2f}",
            "" if to_torch is None else f"{to_torch:.2f}",
            f"{row['gflop_per_second']:.0f}",
            f"{row['share_of_peak']:.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def describe_machine() -> dict[str, Any]:
    """Returns what the numbers depend on besides the arguments."""
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "torch": torch.__version__ if torch else None,
    }


def cpu_model() -> str:
    """Returns the processor's name, from Linux where it is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def run(arguments: argparse.Namespace) -> None:
    """Measures, prints the table, writes the file."""
    if arguments.output and not arguments.output.absolute().parent.is_dir():
        raise InputError(f"the folder of --output {str(arguments.output)!r} does not exist")
    trainers, flops = create_trainers(
        create_model(arguments.model), arguments.batch, arguments.size
    )
    check_equal(trainers)
    seconds: dict[str, list[float]] = {}
    peak = 0.0
    for group in ((NAIVE, OURS), TORCH):
        steps = {name: trainers[name] for name in group if name in trainers}
        if steps:
            measured, fastest = measure(steps, arguments.rounds)
            seconds |= measured
            peak = max(peak, fastest)
    step_flops = 3 * flops  # Each convolution has two gradients, as large as itself.
    header = {
        **describe_machine(),
        "model": arguments.model,
        "batch": arguments.batch,
        "size": arguments.size,
        "rounds": arguments.rounds,
        "gflop_per_step": round(step_flops / 1e9, 3),
        "peak_gflop_per_second": round(peak / 1e9, 1),
    }
    rows = summarize(seconds, step_flops, peak)
    for name, value in header.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print(
        f"(FLOPs: 3 forward passes of 2*K*K*in*out*pixels per convolution; peak: float32 product "
        f"of {PRODUCT_SIZE}x{PRODUCT_SIZE} matrices in JAX)\n"
    )
    print(format_table(rows))
    if arguments.output:
        arguments.output.write_text(json.dumps({**header, "rows": rows}, indent=2) + "\n")


def positive(text: str) -> int:
    """Reads an argument that must be an integer from 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="atrous_net", help="preset (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=16, help="images (default: %(default)s)")
    parser.add_argument("--size", type=positive, default=32, help="pixels (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="default: %(default)s")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the numbers")
    arguments = parser.parse_args()
    # PyTorch runs on the CPU, so JAX must too.
    jax.config.update("jax_platforms", "cpu")
    with reported():
        run(arguments)


if __name__ == "__main__":
    main()

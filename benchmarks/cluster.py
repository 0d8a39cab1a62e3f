"""What training on many devices costs in communication: on paper, in the program, measured.

  python benchmarks/cluster.py paper       # bytes and times a step on 1, 8, 64 and 512 GPUs
  python benchmarks/cluster.py program     # what the compiled step sends, on 2 and 8 devices
  python benchmarks/cluster.py measure     # two processes against one with two devices, here

Prints Markdown. `measure` trains the small CIFAR network on photographs that scikit-image ships.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxdeblur import training
from jaxdeblur.configs import atrous_cifar_small
from jaxdeblur.convolutions import SWITCH
from jaxdeblur.models import create_model
from jaxdeblur.models.cost import multiply_adds
from jaxdeblur.runtime import distributed
from jaxdeblur.training.state import make_parts

ROOT = Path(__file__).resolve().parents[1]

# Of one H100 SXM, from NVIDIA's data sheets: dense bfloat16 operations and bytes a second. Among
# the 8 of a machine NVLink 4, one direction; to other machines one 400 Gb/s port each.
PEAK, NVLINK, NETWORK = 989e12, 450e9, 50e9
UTILISATION = 0.5  # of the peak, which is assumed

SETTINGS = {
    "CIFAR-10, 5 blocks, 32 of 32x32": ("atrous_cifar", 32),
    "REDS, 10 blocks, 4 of 256x256": ("atrous_reds", 4),
}
_BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "u8": 1, "pred": 1}
_COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)


def paper() -> None:
    """Prints compute and communication of a step, with the batch growing with the devices."""
    print(
        "| a device | devices | operations, TFLOP | compute, ms | sent, MB | sending, ms | share |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for title, (name, images) in SETTINGS.items():
        operations, parameters = step_operations(name, images)
        for count in (1, 8, 64, 512):
            sent = 2 * (count - 1) / count * 4 * parameters  # a ring sums float32 gradients
            compute = operations / (UTILISATION * PEAK)
            sending = sent / (NVLINK if count <= 8 else NETWORK)
            print(
                f"| {title} | {count} | {operations / 1e12:.2f} | {1e3 * compute:.2f} | "
                f"{sent / 1e6:.1f} | {1e3 * sending:.2f} | {sending / (compute + sending):.0%} |"
            )


def step_operations(name: str, images: int) -> tuple[float, int]:
    """Floating-point operations of a training step on one device, and the parameters' number."""
    config = importlib.import_module(f"jaxdeblur.configs.{name}").get_config()
    module = create_model(config.model, **config.model_kwargs)
    shape = (images, config.patch_size, config.patch_size, 3)  # a video's 9 change little
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
    parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
    # A multiplication and an addition each; gradients take twice the forward pass.
    return 3 * 2 * multiply_adds(module, shape), parameters


def use_compilers_convolutions() -> None:
    """Builds the networks as for a GPU."""
    os.environ[SWITCH] = "compiler"


def program() -> None:
    """Prints what the compiled steps send."""
    print("| state | devices | parameters, MB | sent or received in a step, MB |")
    print("|---|--:|--:|---|")
    for divided in (False, True):
        for count in (2, 8):
            flags = f"--xla_force_host_platform_device_count={count}"
            environment = os.environ | {"XLA_FLAGS": flags}
            command = [sys.executable, __file__, "compile", *(["--divided"] if divided else [])]
            subprocess.run(command, check=True, env=environment)


def compile_step(divided: bool) -> None:
    """Prints what one compiled step of the small CIFAR network sends."""
    use_compilers_convolutions()
    config = atrous_cifar_small.get_config()
    parts = make_parts(config, num_steps=1, channels=3)
    state = jax.eval_shape(parts.init, jax.random.key(0))
    layout = distributed.state_shardings(state, divided=divided)
    size, images = config.patch_size, config.batch_size
    batch = {
        "sharp": jax.ShapeDtypeStruct((images, size, size, 3), jnp.uint8),
        "sigma": jax.ShapeDtypeStruct((images,), jnp.float32),
        "index": jax.ShapeDtypeStruct((images,), jnp.int32),
    }
    text = training.jit_step(config, parts, layout).lower(state, batch).compile()
    sent = collections.Counter()
    for result, kind in _COLLECTIVE.findall(text.as_text()):
        sent[kind] += sum(array_bytes(*array) for array in re.findall(r"(\w+)\[([\d,]*)\]", result))
    parameters = 4 * sum(x.size for x in jax.tree.leaves(state.params))
    told = ", ".join(f"{kind} {size / 1e6:.2f}" for kind, size in sent.most_common())
    name = "divided" if divided else "whole"
    print(f"| {name} | {jax.device_count()} | {parameters / 1e6:.2f} | {told} |", flush=True)


def array_bytes(kind: str, shape: str) -> int:
    """Size of an array as the compiler writes its type, `f32[3,4]`."""
    size = _BYTES.get(kind, 0)
    for length in shape.split(","):
        size *= int(length or 1)
    return size


def measure(rounds: int) -> None:
    """Prints images a second of the same training on the same cores, differently divided."""
    speeds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in ("1 process, 1 device", "1 process, 2 devices", "2 processes, 1 device each"):
            speeds.setdefault(name, []).append(images_per_second(name))
    base = statistics.median(speeds["1 process, 2 devices"])
    print("| | images a second | time against 1 process with 2 devices |")
    print("|---|--:|--:|")
    for name, found in speeds.items():
        middle, spread = statistics.median(found), f"{min(found):.0f} to {max(found):.0f}"
        print(f"| {name} | {middle:.0f} ({spread}) | {base / middle:.2f} |")


def images_per_second(name: str) -> float:
    """Trains for a hundred steps and returns the median of the log's lines but the first."""
    settings = {
        "dataset": "skimage",
        "num_steps": 100,
        "eval_every_steps": 100,
        "eval_batch_size": 2,
        "checkpoint_every_steps": 100,
        "log_every_steps": 10,
    }
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py")]
        command += [f"--config={ROOT}/configs/atrous_cifar_small.py", *flags, f"--workdir={folder}"]
        commands = [command]
        if name.startswith("2"):
            address = f"--coordinator_address=127.0.0.1:{free_port()}"
            commands = [
                [*command, address, "--num_processes=2", f"--process_id={i}"] for i in range(2)
            ]
        elif name.endswith("2 devices"):
            environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        jobs = [subprocess.Popen(command, env=environment, **quiet) for command in commands]
        if any(job.wait() for job in jobs):
            raise SystemExit(f"the training of {name} failed")
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line).get("images_per_second") for line in lines]
    return statistics.median([speed for speed in found if speed][1:])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["paper", "program", "measure", "compile"])
    parser.add_argument("--rounds", type=int, default=3, help="of measure (default: %(default)s)")
    parser.add_argument("--divided", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "compile":
        compile_step(arguments.divided)
    elif arguments.what == "measure":
        measure(arguments.rounds)
    else:
        {"paper": paper, "program": program}[arguments.what]()


if __name__ == "__main__":
    main()

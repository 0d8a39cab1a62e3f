"""Shows where the time of one training step or one inference goes, operation by operation.

  python benchmarks/operations.py atrous_net_small:inference:1x256x256

runs a case of `speed.py` (training without the optimizer) under the compiler's profiler, and adds
up what the operations of one call took: by layer, layers that repeat (`block_0`, `block_1`, ...)
taken together, and by whether they are products, the compiler's convolutions among them, or the
rest (transforms, copies, ...). Operations that run beside each other count in full, so that the sum
may exceed the call; one that several cores share counts once. With several devices
(`JAX_NUM_CPU_DEVICES=2`) they divide the batch or the columns of a single image, and the operations
of all are counted.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import re
import tempfile
import time
from pathlib import Path

import numpy as np
from runners import Case, divide
from speed import parse_case

from jaxdeblur.errors import reported
from jaxdeblur.runtime.startup import keep_freed_memory, training_options

# `%name = shape op(...), metadata={op_name="jit(call)/AtrousNet/block_0/merge/dot_general" ...}`
_INSTRUCTION = re.compile(r'%([\w.-]+) = [^\n]*op_name="([^"]*)"')
_LOOP = "while"  # its operations have events of their own
_PRODUCTS = ("dot_general", "conv_general_dilated")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", metavar="NETWORK:WORK:BxHxW")
    parser.add_argument("--top", type=int, default=15, help="rows (default: %(default)s)")
    with reported():
        arguments = parser.parse_args()
        print(table(*measure(parse_case(arguments.case)), arguments.top))


def measure(case: Case) -> tuple[dict[tuple[str, str], float], float]:
    """Returns the seconds of one call by layer and kind of operation, and of the whole call."""
    keep_freed_memory()
    import jax

    call, arguments = compile_call(case)
    names = dict(_INSTRUCTION.findall(call.as_text()))
    for _ in range(3):
        jax.block_until_ready(call(*arguments))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            jax.block_until_ready(call(*arguments))
            elapsed = time.perf_counter() - start
        (trace,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(trace))
    seconds: dict[tuple[str, str], float] = collections.Counter()
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in names and not event.name.startswith(_LOOP):
                    seconds[describe(names[event.name])] += event.duration_ns / 1e9
    return seconds, elapsed


def compile_call(case: Case):
    """Returns the case's compiled program, without the optimizer, and its arguments."""
    import jax

    from jaxdeblur.losses import l1
    from jaxdeblur.restoring.restore import compiler_options
    from jaxdeblur.runtime import distributed

    whole, _ = distributed.shardings()
    network = case.module()
    apply, divided = divide(case, network)
    shape = (case.batch, case.height, case.width, 3)
    blurred, sharp = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    side = max(network.minimum_size, network.size_multiple)
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    variables = network.lazy_init(jax.random.key(0), image)  # not compiled: a thousand arrays

    def restore(variables, blurred, sharp):
        return apply(variables, blurred)

    def loss(variables, blurred, sharp):
        return l1(apply(variables, blurred), sharp)

    arguments = (jax.device_put(variables, whole), *jax.device_put((blurred, sharp), divided))
    if case.work == "training":
        step = jax.value_and_grad(loss)
        call = jax.jit(step, out_shardings=whole, compiler_options=training_options())
    else:
        call = jax.jit(restore, compiler_options=compiler_options(network))
    return call.lower(*arguments).compile(), arguments


def describe(name: str) -> tuple[str, str]:
    """Returns the layer and the kind of an operation, from its source as JAX names it."""
    *layers, primitive = re.split(
        r"(?:AtrousNet|KaistNet|CarloNet|NafNet|Maxim)\)*/(?:Sequential_\d+/|Maxim\.\w+/)*", name
    )[-1].split("/")
    layers = list(itertools.takewhile(lambda part: re.fullmatch(r"[a-z_\d]+", part), layers))
    layer = re.sub(r"_\d+\b", "_*", "/".join(layers)) or "outside the layers"
    if "transpose(" in name:
        layer += ", gradient"
    return layer, "products" if primitive in _PRODUCTS else "sums and copies"


def table(seconds: dict[tuple[str, str], float], elapsed: float, top: int) -> str:
    """Returns the longest operations as a Markdown table."""
    lines = ["| layer | operation | ms | share |", "|---|---|--:|--:|"]
    total = sum(seconds.values())
    rows = sorted(seconds.items(), key=lambda item: -item[1])
    rest = sum(value for _, value in rows[top:])
    kinds: dict[str, float] = collections.Counter()
    for (_, kind), value in rows:
        kinds[kind] += value
    sums = [(("all layers", kind), value) for kind, value in kinds.items()]
    for (layer, kind), value in [*rows[:top], (("other layers", ""), rest), *sums]:
        lines.append(f"| {layer} | {kind} | {value * 1e3:.1f} | {value / total:.0%} |")
    lines.append(f"| the whole call | | {elapsed * 1e3:.1f} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

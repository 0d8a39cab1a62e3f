"""`jaxdeblur models`: lists the networks."""

from __future__ import annotations

import argparse


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("models", help="list the networks, their sizes and fields")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    del arguments
    import jax
    import jax.numpy as jnp

    from jaxdeblur.models import PRESETS, describe_model

    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    print(f"{'name':18} {'parameters':>12}  {'image size':16} fields")
    for name, module in PRESETS.items():
        params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
        count = sum(x.size for x in jax.tree.leaves(params))
        size = f"{module.size_multiple}k, from {module.minimum_size}"
        fields = ", ".join(f"{k}={v}" for k, v in describe_model(module)[1].items())
        print(f"{name:18} {count:12,}  {size:16} {fields}")

"""`jaxdeblur models`: lists the networks and the weights that are shipped."""

from __future__ import annotations

import argparse


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("models", help="list the networks and the shipped weights")
    parser.add_argument("--verbose", action="store_true", help="the weights' cards in full")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from jaxdeblur.weights import shipped

    cards = shipped()
    print("trained weights (jaxdeblur.load, jaxdeblur deblur --model):")
    for name, card in cards.items():
        print(f"  {name:18} {card['summary']}")
        for key, value in card.items() if arguments.verbose else ():
            print(f"    {key}: {value}")
    print("\nnetworks (jaxdeblur.create_model):")
    _print_networks()


def _print_networks() -> None:
    import jax
    import jax.numpy as jnp

    from jaxdeblur.models import PRESETS, describe_model

    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    print(f"  {'name':18} {'parameters':>12}  {'image size':14} {'field of view':13}  fields")
    for name, module in PRESETS.items():
        params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
        count = sum(x.size for x in jax.tree.leaves(params))
        size = f"{module.size_multiple}k, from {module.minimum_size}"
        side = sum(module.reach) + 1
        fields = ", ".join(f"{k}={v}" for k, v in describe_model(module)[1].items())
        print(f"  {name:18} {count:12,}  {size:14} {f'{side}x{side}':13}  {fields}")

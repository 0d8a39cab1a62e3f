"""`jaxdeblur convert`: writes weights of other origin as a file that `jaxdeblur.load` takes."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("convert", help="convert weights to a safetensors file")
    origins = parser.add_subparsers(required=True, metavar="ORIGIN")
    keras = origins.add_parser("keras", help="weights of the original Keras networks")
    keras.add_argument("model_json", metavar="MODEL.json", help="file of model.to_json()")
    keras.add_argument("weights_h5", metavar="WEIGHTS.h5", help="file of model.save_weights()")
    keras.add_argument("output", metavar="OUT.safetensors")
    keras.set_defaults(run=run_keras)
    run = origins.add_parser("run", help="the best checkpoint of a training run")
    run.add_argument("checkpoint", metavar="WORKDIR", help="or WORKDIR/checkpoints/STEP")
    run.add_argument("output", metavar="OUT.safetensors")
    run.set_defaults(run=run_training_run)
    file = origins.add_parser("file", help="official weights of NAFNet or MAXIM, or of Keras")
    file.add_argument(
        "source", metavar="FILE", help=".pth, checkpoint.npz, .tgz, .keras, or a folder"
    )
    file.add_argument("output", metavar="OUT.safetensors")
    file.set_defaults(run=run_file)
    for origin in (keras, run, file):
        origin.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run_keras(arguments: argparse.Namespace) -> None:
    from jaxdeblur.convert import from_keras

    module, params = from_keras(arguments.model_json, arguments.weights_h5)
    _write_converted(module, params, f"Keras, {Path(arguments.weights_h5).name}", arguments)


def run_file(arguments: argparse.Namespace) -> None:
    from jaxdeblur.convert import read

    module, params, source = read(arguments.source)
    _write_converted(module, params, source, arguments)


def run_training_run(arguments: argparse.Namespace) -> None:
    from jaxdeblur.weights import load

    deblurrer = load(arguments.checkpoint)
    _write(deblurrer, arguments)
    print(f"{arguments.output}: {deblurrer.card['trained_on']}")


def _write_converted(module, params, source: str, arguments: argparse.Namespace) -> None:
    import jax

    from jaxdeblur.models.variables import channels_of
    from jaxdeblur.weights import Deblurrer

    card = {"channels": channels_of(module, {"params": params}), "source": source}
    _write(Deblurrer(module, params, card), arguments)
    count = sum(x.size for x in jax.tree.leaves(params))
    print(f"{arguments.output}: {type(module).__name__}, {count:,} parameters")


def _write(deblurrer, arguments: argparse.Namespace) -> None:
    from jaxdeblur.errors import InputError
    from jaxdeblur.runtime import paths
    from jaxdeblur.weights import save

    if paths.local(arguments.output, "OUT.safetensors").exists() and not arguments.overwrite:
        raise InputError(f"{arguments.output!r} exists; give --overwrite or another name")
    save(arguments.output, deblurrer)

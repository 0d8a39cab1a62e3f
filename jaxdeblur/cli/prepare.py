"""`jaxdeblur prepare`: writes a dataset in the form that training reads."""

from __future__ import annotations

import argparse


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("prepare", help="prepare a dataset for training")
    datasets = parser.add_subparsers(required=True, metavar="DATASET")
    cifar10 = datasets.add_parser(
        "cifar10", help="CIFAR-10 as tensorflow-datasets stores it, without TensorFlow"
    )
    cifar10.add_argument(
        "--data-dir", default="~/tensorflow_datasets", help="TFDS folder (default: %(default)s)"
    )
    cifar10.add_argument(
        "--archive", help="cifar-10-binary.tar.gz, if it is at hand (default: download it)"
    )
    cifar10.set_defaults(run=run_cifar10)


def run_cifar10(arguments: argparse.Namespace) -> None:
    from jaxdeblur.data import cifar

    print(cifar.prepare(arguments.data_dir, arguments.archive))

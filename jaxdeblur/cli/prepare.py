"""`jaxdeblur prepare`: checks datasets, and writes them in the form that training reads."""

from __future__ import annotations

import argparse


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("prepare", help="check or prepare a dataset for training")
    datasets = parser.add_subparsers(required=True, metavar="WHAT")
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

    check = datasets.add_parser("check", help="say what a folder of clips holds and what is wrong")
    check.add_argument("folder", metavar="DIR", help="folder of clips, or a store of frames")
    frames = datasets.add_parser(
        "frames",
        help="copy a folder of clips to a store that training reads many times as fast",
        description="Copies a folder of clips, without loss, to a store that training reads many "
        "times as fast and that takes up to half as much room again as PNG files. If it is "
        "interrupted, the same command goes on.",
    )
    frames.add_argument("folder", metavar="DIR", help="folder of clips")
    frames.add_argument("store", metavar="OUT", help="folder of the store; made where missing")
    for command in (check, frames):
        command.add_argument(
            "--variant",
            default="blur",
            metavar="NAME",
            help="the blurred frames, such as blur_jpeg or blur_gamma (default: %(default)s)",
        )
    check.set_defaults(run=run_check)
    frames.set_defaults(run=run_frames)


def run_cifar10(arguments: argparse.Namespace) -> None:
    from jaxdeblur.data import cifar

    print(cifar.prepare(arguments.data_dir, arguments.archive))


def run_check(arguments: argparse.Namespace) -> None:
    from jaxdeblur.data.clips import check
    from jaxdeblur.errors import InputError

    problems = check.check(arguments.folder, arguments.variant, print)
    if problems:
        raise InputError(f"{problems} problems in {arguments.folder}, listed above")


def run_frames(arguments: argparse.Namespace) -> None:
    from jaxdeblur.data.clips import folders, store
    from jaxdeblur.runtime.progress import ProgressLine

    clips = folders.open_folder(arguments.folder, arguments.variant)
    for remark in folders.remarks(clips):
        print(remark)
    total = 2 * sum(len(clip.frames) for clip in clips)
    with ProgressLine("frames", total) as progress:
        store.write(clips, arguments.store, arguments.variant, progress.update)
    print(f"{arguments.store}: {len(clips)} clips, {total} frames")

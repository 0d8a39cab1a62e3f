"""`jaxdeblur prepare`: checks datasets, and writes them in the form that training reads."""

from __future__ import annotations

import argparse

from jaxdeblur.errors import InputError, printable


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

    problems = check.check(arguments.folder, arguments.variant, lambda line: print(printable(line)))
    if problems:
        raise InputError(f"{problems} problems in {arguments.folder}, listed above")


def run_frames(arguments: argparse.Namespace) -> None:
    from jaxdeblur.data.clips import folders, store, storing
    from jaxdeblur.runtime import paths
    from jaxdeblur.runtime.progress import ProgressLine

    found = folders.find_clips(paths.local(arguments.folder, "DIR"), arguments.variant)
    if not found.clips and found.problems:
        raise InputError("; ".join(found.problems[:3]))
    for remark in folders.remarks(found.clips):
        print(printable(remark))
    problems = [InputError(problem) for problem in found.problems]
    total = 2 * sum(len(clip.frames) for clip in found.clips)
    with ProgressLine("frames", total) as progress:
        for problem in problems:
            progress.print(f"error: {problem}")

        def tell(error: InputError) -> None:
            problems.append(error)
            progress.print(f"error: {error}")

        storing.write(
            found.clips,
            arguments.store,
            arguments.variant,
            progress.update,
            failed=tell,
            unusable=len(found.problems),
        )
    index = store.open_store(arguments.store, arguments.variant)
    frames = 2 * sum(len(clip.frames) for clip in index.clips)
    print(printable(f"{arguments.store}: {len(index.clips)} clips, {frames} frames"))
    if problems:
        raise SystemExit(1)

"""`jaxdeblur deblur`: restores photographs, folders of them, and videos."""

from __future__ import annotations

import argparse

from jaxdeblur.cli.restorer import STREAM, Restorer
from jaxdeblur.errors import InputError
from jaxdeblur.runtime import paths

DEFAULT_MODEL = "atrous-photo"


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "deblur",
        help="restore photographs, folders and videos",
        description="Restores photographs, all those of a folder, and videos. photo.jpg becomes "
        "photo.deblurred.jpg with the same size, depth and metadata; results that exist are left "
        "as they are, so that an interrupted run goes on. Under srun, mpirun or a pod the "
        "processes divide the files.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, folder, or - (a photo)")
    parser.add_argument("-o", "--output", help="folder, or a file's name for a single input")
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME_OR_PATH",
        help="shipped or fetched weights, a weights file, also of NAFNet or MAXIM, workdir or "
        "checkpoint (default: %(default)s)",
    )
    parser.add_argument(
        "--effort",
        type=int,
        metavar="N",
        help="of maxim, stages to compute: 1 (a quarter of the time) to 3 (best, the default)",
    )
    parser.add_argument(
        "--tile", default="auto", help="auto, off, or pixels of a tile's side (default: auto)"
    )
    parser.add_argument(
        "--self-ensemble", action="store_true", help="mean over 8 flips and turns; 8 times as long"
    )
    parser.add_argument(
        "--strength", type=float, default=1.0, help="0 (as it was) to 1 (restored, the default)"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument(
        "--compare", metavar="SHARP", help="sharp original, or folder of them: print PSNR and SSIM"
    )
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="also write photo.jpg.comparison.png: blurred, restored (and sharp)",
    )
    parser.add_argument(
        "--quality", type=int, default=18, help="of H.264, 0 (best) to 51 (default: %(default)s)"
    )
    parser.add_argument(
        "--frames", action="store_true", help="write a video as a folder of PNG files"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from jaxdeblur.runtime import startup

    startup.keep_freed_memory()  # before JAX starts threads
    startup.use_compilation_cache()
    _check(arguments)
    from jaxdeblur.media import files
    from jaxdeblur.runtime import cluster

    restorer = Restorer(arguments)
    with restorer.log_told():
        if STREAM in arguments.inputs:
            restorer.stream()
            return
        jobs, problems = files.find(arguments.inputs, arguments.output, frames=arguments.frames)
        index, count = cluster.share()
        failed = restorer.all(jobs[index::count])
    for problem in problems if index == 0 else ():
        restorer.report(f"error: {problem}")
    if failed or problems:
        raise SystemExit(1)


def _check(arguments: argparse.Namespace) -> None:
    """Refuses wrong arguments before anything is loaded; makes `tile` what a call takes."""
    from jaxdeblur.restoring.restore import Options

    if arguments.tile not in ("auto", "off"):
        if not arguments.tile.isdecimal():
            raise InputError(f"--tile {arguments.tile!r} must be auto, off or a number of pixels")
        arguments.tile = int(arguments.tile)
    Options(arguments.tile, arguments.self_ensemble, arguments.strength)
    if not 0 <= arguments.quality <= 51:
        raise InputError(f"--quality {arguments.quality} must be between 0 and 51")
    if STREAM in arguments.inputs:
        for name in ("compare", "side_by_side", "frames"):
            if getattr(arguments, name):
                raise InputError(f"--{name.replace('_', '-')} needs an input that is a file")
        if len(arguments.inputs) > 1:
            raise InputError("- (standard input) must be the only input")
    for name, value in (
        ("-o", arguments.output),
        ("--model", arguments.model),
        ("--compare", arguments.compare),
    ):
        if value == "":
            raise InputError(f"{name} '' names nothing; leave it out or name something")
    if arguments.compare:
        arguments.compare = paths.local(arguments.compare, "--compare")
        if not arguments.compare.exists():
            raise InputError(f"--compare {str(arguments.compare)!r} does not exist")

"""`jaxdeblur fetch`: lists official weights of others, and gets them."""

from __future__ import annotations

import argparse
import contextlib
import typing
from collections.abc import Callable, Iterator

from jaxdeblur.errors import InputError, printable

if typing.TYPE_CHECKING:
    from jaxdeblur import catalogue


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "fetch",
        help="list official weights of others, or get them",
        description="Downloads official weights of others, checks and converts them, and keeps "
        "them for `jaxdeblur deblur --model NAME`. Without a name it lists what can be had. If it "
        "is interrupted, the same command goes on.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="as listed (default: list them)")
    parser.add_argument(
        "--from", dest="source", metavar="FILE", help="weights at hand (default: download them)"
    )
    parser.add_argument("--overwrite", action="store_true", help="get weights that are there again")
    parser.add_argument("--verbose", action="store_true", help="list all that is known")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if arguments.name is not None:
        _fetch(arguments)
    elif arguments.source is not None:
        raise InputError(f"--from {arguments.source}: give the NAME of the weights as well")
    elif arguments.verbose:
        _list_entries()
    else:
        _list()


def _fetch(arguments: argparse.Namespace) -> None:
    from jaxdeblur.fetching import fetch

    with _reporting(arguments.name) as (progress, tell):
        path = fetch(
            arguments.name,
            source=arguments.source,
            overwrite=arguments.overwrite,
            progress=progress,
            tell=tell,
        )
    print(f"{path}: use it with `jaxdeblur deblur photo.jpg --model {arguments.name}`")


@contextlib.contextmanager
def _reporting(
    name: str,
) -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """Gives functions that show a download's progress and a line; a bar on a terminal alone."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        TextColumn(name),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(name, total=None, visible=False)
    tenths = 0  # that were told

    def tell(line: str) -> None:
        line = printable(line)
        console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def progress(done: int, total: int) -> None:
        nonlocal tenths
        bar.update(task, completed=done, total=total, visible=True)
        if not console.is_terminal and 10 * done // total > tenths:
            tenths = 10 * done // total
            tell(f"{name}: {10 * tenths}% of {total / 1e6:,.1f} MB")

    with bar:
        yield progress, tell


def _list() -> None:
    from jaxdeblur import catalogue

    rows = [("name", "size", "licence", "", "published", "good for")]
    rows += [_row(name, entry) for name, entry in catalogue.ENTRIES.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    try:
        where = f"keeps them in {catalogue.folder()}"
    except InputError as error:
        where = f"would keep them, but {error}"
    print(
        f"\n`jaxdeblur fetch NAME` {where}; --verbose tells more.\n"
        "All learned motion blur; for blur of another kind try the shipped atrous-photo."
    )


def _row(name: str, entry: catalogue.Entry) -> tuple[str, ...]:
    from jaxdeblur import catalogue

    figure = entry.published[0]
    return (
        name,
        _megabytes(4 * entry.parameters),  # float32, as they are kept
        entry.licence.partition(";")[0],
        "here" if name in catalogue.fetched() else "download" if entry.copies else "by hand",
        f"{figure.data} {figure.psnr:.2f} dB",
        entry.summary,
    )


def _list_entries() -> None:
    from jaxdeblur import catalogue

    for name, entry in catalogue.ENTRIES.items():
        print(name)
        for key, value in _facts(name, entry):
            print(f"  {key}: {value}")


def _facts(name: str, entry: catalogue.Entry) -> Iterator[tuple[str, str]]:
    from jaxdeblur import catalogue

    yield "good for", entry.summary
    yield "network", f"{entry.network}, {entry.parameters:,} parameters"
    yield "licence", entry.licence
    yield "source", entry.source
    for figure in entry.published:
        yield "published", f"{figure.data}: {figure.psnr} dB, SSIM {figure.ssim}"
    for copy in entry.copies:
        known = all(file.sha256 for file in copy.files)
        size = _megabytes(sum(file.size or 0 for file in copy.files)) if known else "size unknown"
        check = "checked by sha256" if known else "sha256 unknown, kept at the first download"
        yield "download", f"{size}, {check}: {' or '.join(copy.addresses)}"
    yield "by hand", f"{entry.by_hand.name}, {entry.where}"
    if entry.by_hand.sha256:
        yield f"sha256 of {entry.by_hand.name}", entry.by_hand.sha256
    yield "here", str(catalogue.fetched().get(name, "no"))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"

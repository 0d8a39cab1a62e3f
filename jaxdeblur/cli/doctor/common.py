"""What the sections share: lines, and how to word errors and sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from jaxdeblur.errors import InputError, MissingPackageError, naming_extra


class Line(NamedTuple):
    """What is told of one thing, and whether it keeps training from working."""

    name: str
    value: str
    broken: bool = False


def until_failure(lines: Callable[[], Iterator[Line]], needed: bool) -> Iterator[Line]:
    """Gives lines, and if making them fails one that says why; broken if they are needed."""
    try:
        with naming_extra():
            yield from lines()
    except Exception as error:
        yield Line("failed", reason(error), needed)


def reason(error: Exception) -> str:
    text = str(error)[:300]
    told = isinstance(error, InputError | MissingPackageError)
    return text if told else f"{type(error).__name__}: {text}"


def size(num_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"

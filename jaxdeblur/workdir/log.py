"""`metrics.jsonl` of a workdir: what a run has measured, a JSON object a line.

It is strict JSON, which has no infinity: the PSNR of images that are equal is null. Reading, the
words `Infinity` and `NaN`, which Python's JSON has, are taken as well.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdeblur.errors import InputError

FILE = "metrics.jsonl"
_PSNR = "eval/psnr"


def line(values: Mapping[str, Any]) -> str:
    """Returns a line of the log, with its end; what is not finite is null."""
    strict = json.loads(json.dumps(values), parse_constant=lambda _: None)
    return json.dumps(strict, allow_nan=False) + "\n"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a workdir's `metrics.jsonl` that a run wrote, without any that was cut off.

    Raises:
      InputError: the file is there and cannot be read.
    """
    return [values for values in _objects(workdir) if _step(values) is not None]


def validation_psnr(workdir: Path) -> dict[int, float]:
    """The PSNR that a run's validations have measured, by step; infinite where the log has null.

    Raises:
      InputError: see `read_metrics`.
    """
    measured = {values["step"]: values.get(_PSNR, math.nan) for values in _with_psnr(workdir)}
    return {
        step: math.inf if psnr is None else float(psnr)
        for step, psnr in measured.items()
        if psnr is None or (type(psnr) in (int, float) and not math.isnan(psnr))
    }


def without_later(workdir: Path, last_step: int) -> str:
    """The log as it was after a step, the lines that others have added to it among it.

    Raises:
      InputError: see `read_metrics`.
    """
    return "".join(
        line(values)
        for values in _objects(workdir)
        if (step := _step(values)) is None or step <= last_step
    )


def _with_psnr(workdir: Path) -> Iterator[dict[str, Any]]:
    return (values for values in read_metrics(workdir) if _PSNR in values)


def _step(values: Mapping[str, Any]) -> int | None:
    step = values.get("step")
    return step if type(step) is int and step >= 0 else None


def _objects(workdir: Path) -> Iterator[dict[str, Any]]:
    path = workdir / FILE
    try:
        text = path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); move it away, or use another workdir"
        ) from error
    for written in text.split("\n"):
        try:
            values = json.loads(written)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict):
            yield values

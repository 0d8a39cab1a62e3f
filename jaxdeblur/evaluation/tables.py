"""Tables of results: CSV files to which evaluations are added.

The columns are the fields of `Row`. Each evaluation is a row, and one more for every part of its
range of sigmas. A new evaluation takes the place of the earlier one of the same weights, data and
protocol.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxdeblur.errors import InputError
from jaxdeblur.runtime import atomic, locks, paths


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one evaluation, or of one part of its range of sigmas.

    Attributes:
      weights: the name of shipped weights, else network and file; "" for the blurred images alone.
      model: the network's name; "" where there is none.
      params: the number of its parameters.
      data: dataset and split.
      protocol: how the images were blurred and measured.
      part: None for the whole evaluation; r, from 1, for its images whose sigma is from the r-th of
        R equal parts (`eval_repeats`).
      min_sigma: pixels, of the whole range or of the part; None for clips.
      max_sigma: likewise.
      num_images: how many were measured, each as often as it was blurred.
      unchanged: the share of them that the blur left as they were.
      psnr: of the restored images, dB, the mean of those that are not infinite; None, as the next
        three, without a network.
      ssim: the mean.
      mse: the mean, of values in [0, 1].
      least_gain: of all images, the least PSNR above that of the blurred one, dB.
      blurred_psnr: of the blurred images, and likewise the next two.
      blurred_ssim: the mean.
      blurred_mse: the mean.
      date: of the evaluation.
    """

    weights: str
    model: str
    params: int | None
    data: str
    protocol: str
    part: int | None
    min_sigma: float | None
    max_sigma: float | None
    num_images: int
    unchanged: float
    psnr: float | None = None
    ssim: float | None = None
    mse: float | None = None
    least_gain: float | None = None
    blurred_psnr: float
    blurred_ssim: float
    blurred_mse: float
    date: datetime.date

    @property
    def evaluation(self) -> tuple[str, str, str]:
        """Which evaluation it is of: weights, data and protocol."""
        return self.weights, self.data, self.protocol


_FIELDS = dataclasses.fields(Row)
_COLUMNS = [field.name for field in _FIELDS]
_PARSERS = {"str": str, "int": int, "float": float, "datetime.date": datetime.date.fromisoformat}


def read(path: str | Path) -> list[Row]:
    """Reads a table; one that does not exist has no rows.

    Raises:
      InputError: the file cannot be read, or is no whole table of results.
    """
    name = f"table = {str(path)!r}"
    try:
        with paths.local(path, "table").open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} cannot be read as CSV ({error}); give another name") from error
    if header != _COLUMNS:
        raise InputError(
            f"{name} is no table of results: its first line is {','.join(header)[:80]!r}; "
            "give another name"
        )
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            values = [_parse(field, text) for field, text in zip(_FIELDS, line, strict=True)]
        except ValueError as error:
            raise InputError(
                f"{name} is damaged in line {number} ({error}); mend it or give another name"
            ) from error
        rows.append(Row(**dict(zip(_COLUMNS, values, strict=True))))
    return rows


def _parse(field: dataclasses.Field, text: str) -> Any:
    kind, _, optional = str(field.type).partition(" | ")
    return None if optional and not text else _PARSERS[kind](text)


def add(path: str | Path, rows: Sequence[Row]) -> None:
    """Adds rows to a table, in place of those of the same evaluations.

    Of several processes that add to one table, each waits for the one before.

    Args:
      path: of the table; its folder must exist.
      rows: all that the evaluations have.

    Raises:
      InputError: what is there is no table of results, or cannot be written; it stays as it is.
    """
    evaluations = {row.evaluation for row in rows}
    # A link's file is the one that is replaced, and so the one that is locked.
    with locks.waiting_for(Path(os.path.realpath(paths.local(path, "table")))):
        old = read(path)
        replaced = (i for i, row in enumerate(old) if row.evaluation in evaluations)
        first = next(replaced, len(old))
        rest = [row for row in old[first:] if row.evaluation not in evaluations]
        write(path, [*old[:first], *rows, *rest])


def write(path: str | Path, rows: Sequence[Row]) -> None:
    """Writes a table, whole or not at all, floats with six digits.

    Raises:
      InputError: it cannot be written; what was there is as it was.
    """
    with (
        atomic.replacing(paths.local(path, "table"), overwrite=True) as partial,
        # Names of files need not be text.
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in rows:
            writer.writerow(_text(getattr(row, name)) for name in _COLUMNS)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)

"""`metrics.jsonl` of a workdir: what a run has measured, a JSON object a line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

FILE = "metrics.jsonl"
_PSNR = "eval/psnr"


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The lines of a workdir's `metrics.jsonl`, without any that was cut off."""
    path = workdir / FILE
    if not path.exists():
        return []
    found = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            values = json.loads(line)
            if isinstance(values, dict) and "step" in values:
                found.append(values)
    return found


def validation_psnr(workdir: Path) -> dict[int, float]:
    """The PSNR that a run's validations have measured, by step."""
    lines = read_metrics(workdir)
    return {int(line["step"]): line[_PSNR] for line in lines if _PSNR in line}

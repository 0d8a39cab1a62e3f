"""Whether a run can work in a folder, and how far one has come there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxdeblur import remote
from jaxdeblur.doctor.common import Line
from jaxdeblur.doctor.machine import room


def lines(workdir: str) -> Iterator[Line]:
    if remote.is_remote(workdir):
        yield Line("folder", f"{workdir} (in object storage)")
        with contextlib.closing(remote.Mirror(workdir)) as mirror:
            yield Line("listing", f"works, {len(mirror.names())} files")
        return
    folder = Path(workdir).expanduser().absolute()
    # `Path.exists` would raise where a folder above may not be looked into.
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    yield Line("folder", f"{folder}{'' if there == folder else ' (does not exist yet)'}")
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".doctor-"):
            yield Line("writing", f"works in {there}")
    except OSError as error:
        yield Line("writing", f"fails in {there}: {error.strerror}", broken=True)
    yield Line("room", room(there))
    yield from _progress(folder)


def _progress(folder: Path) -> Iterator[Line]:
    from jaxdeblur import checkpoints, reporting  # these need the extra `train`

    steps = checkpoints.steps(folder)
    yield Line("checkpoints", f"{len(steps)}, the newest of step {steps[-1]}" if steps else "none")
    log = [line["step"] for line in reporting.read_metrics(folder)]
    yield Line("log", f"{len(log)} lines, steps {log[0]} to {log[-1]}" if log else "none")

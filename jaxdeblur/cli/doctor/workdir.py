"""Whether a run can work in a folder, and how far one has come there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxdeblur.cli.doctor.common import Line
from jaxdeblur.cli.doctor.machine import room
from jaxdeblur.runtime import paths
from jaxdeblur.workdir import remote


def lines(workdir: str) -> Iterator[Line]:
    if remote.is_remote(workdir):
        yield Line("folder", f"{workdir} (in object storage)")
        with contextlib.closing(remote.Mirror(workdir)) as mirror:
            yield Line("listing", f"works, {len(mirror.names())} files")
            mirror.try_writing()
            yield Line("writing", "works")
        return
    folder = paths.local(workdir, "workdir").absolute()
    paths.check_text(folder, "workdir")
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
    from jaxdeblur.workdir import checkpoints, folders, log, settings

    if os.path.lexists(folder / settings.FILE):
        yield Line("network", str(settings.read(folder).get("model")))
    steps = checkpoints.steps(folder)
    if not steps:
        folders.check_names(folder)
    yield Line("checkpoints", f"{len(steps)}, the newest of step {steps[-1]}" if steps else "none")
    logged = [line["step"] for line in log.read_metrics(folder)]
    told = f"{len(logged)} lines, steps {logged[0]} to {logged[-1]}" if logged else "none"
    yield Line("log", told)

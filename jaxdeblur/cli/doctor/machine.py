"""Processor, memory and room on disk; of the first two, what Linux tells."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxdeblur.cli.doctor.common import Line, size


def lines() -> Iterator[Line]:
    model = _field("/proc/cpuinfo", r"^model name\s*:\s*(.+)") or "processor unknown"
    yield Line("processor", f"{model} ({platform.machine()})")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Line("cores", f"{usable} usable of {os.cpu_count()}")
    total = 1024 * int(_field("/proc/meminfo", r"^MemTotal:\s+(\d+) kB") or 0)
    available = 1024 * int(_field("/proc/meminfo", r"^MemAvailable:\s+(\d+) kB") or 0)
    yield Line("memory", f"{size(total)}, {size(available)} available" if total else "unknown")
    limit = _memory_limit()
    if limit is not None and limit < total:
        yield Line("memory limit", f"{size(limit)} (cgroup)")
    for name, folder in (("temp folder", tempfile.gettempdir()), ("current folder", os.getcwd())):
        yield Line(name, f"{folder}, {room(folder)}")


def _field(file: str, pattern: str) -> str | None:
    with contextlib.suppress(OSError):
        match = re.search(pattern, Path(file).read_text(), re.M)
        return match and match[1]


def _memory_limit(
    own_groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """The least memory that this process's control groups and those around them allow, in bytes."""
    limits = []
    for line in own_groups.read_text().splitlines() if own_groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):  # version 2 of control groups, and version 1
            file = "memory.limit_in_bytes" if controllers else "memory.max"
            group = root / controllers / path.lstrip("/")
            # In a container the path can be that of outside; the limit is then at the top.
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
                    limits.append(int((folder / file).read_text()))
    return min(limits, default=None)


def room(folder: str | os.PathLike[str]) -> str:
    return f"{size(shutil.disk_usage(folder).free)} free"

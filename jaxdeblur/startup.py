"""What a process sets up: its memory, JAX's compilation cache, the compiler's options."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import sys
from pathlib import Path

# mallopt's parameters, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_freed_memory() -> None:
    """Tells the C library to reuse freed memory instead of returning it to the system.

    On a CPU, XLA allocates the temporary arrays of a call as one block and frees it after. By
    default glibc hands a block of that size back, and the next call faults it in page by page,
    a good part of a training step. The process then stays as large as it has been.

    Call it before JAX is imported: glibc no longer listens once a second thread has allocated.
    Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_ARENA_MAX, 1)  # a thread's own arena is unmapped when it empties
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)


def compilation_cache_folder() -> str:
    """Returns the folder of JAX's compilation cache, or its URL; it need not be there.

    The folder is `$XDG_CACHE_HOME/jaxdeblur/xla` (by default below `~/.cache`), in it one for each
    kind of processor, since a program that was compiled for another may not run. It may be
    deleted at any time. A folder that JAX was told before (`JAX_COMPILATION_CACHE_DIR`) stays.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    default = Path(home).expanduser() / "jaxdeblur" / "xla" / _processor()
    return _told_folder() or str(default)


def use_compilation_cache() -> Path | None:
    """Keeps compiled programs in `compilation_cache_folder`, so that the next start is quick.

    Returns:
      The folder in use, or None where it cannot be written.
    """
    import jax  # not before `keep_freed_memory`

    folder = Path(compilation_cache_folder())
    if _told_folder():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


@functools.cache
def inference_options() -> dict[str, str]:
    """Returns what `jax.jit` takes as `compiler_options` to restore large images in little memory.

    On a CPU, XLA orders operations so that as many as possible may run beside each other, and keeps
    the arrays of all of them: up to eight times the memory. Ours use all cores one by one. Empty
    elsewhere, and where XLA no longer knows the option.
    """
    import jax

    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def _told_folder() -> str | None:
    import jax

    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]


def _processor() -> str:
    """A short name for processors that take the same programs."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    known = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    identity = "\n".join([platform.machine(), *(sorted(set(known)) or [platform.node()])])
    return hashlib.sha256(identity.encode()).hexdigest()[:12]

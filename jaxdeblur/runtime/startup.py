"""What a process sets up: its memory, JAX's compilation cache, the compiler's options."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import sys
import warnings
from pathlib import Path

from jaxdeblur.runtime import paths

# mallopt's parameters, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8

# Bytes of free places for what XLA allocates in a call, up to a gigabyte; before them many small
# ones, since the C library cuts what is smaller from the smallest that has room, and from what a
# call leaves of its place too. No two are alike: it would change between equals, and have written
# to all of them in the end.
_PLACES = (*range(1 << 18, 5 << 18, 1 << 12), *(int(1.25**power * 2**20) for power in range(1, 32)))


def keep_freed_memory() -> None:
    """Makes the calls of a process use the same memory again and again, on a CPU.

    XLA allocates the temporary arrays of a call as one block and frees it after. By default glibc
    hands a block of that size back to the system, and the next call faults it in page by page, a
    good part of a training step; here it is told to keep it. The process then stays as large as it
    has been. To have it no larger than one call needs,

    - a call returns when it has ended. Otherwise its results are there a moment before its block
      is freed, and the next call may allocate one beside it.
    - the heap starts with free places of many sizes. Otherwise a smaller array may be put where
      the block was, so that the next block goes to new memory. They are addresses only; memory is
      what is written to.

    Call it before other modules are imported, and JAX among them: glibc no longer listens once a
    second thread has allocated. Other C libraries are left alone.
    """
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if library is not None and hasattr(library, "mallopt"):
        library.mallopt(_M_ARENA_MAX, 1)  # a thread's own arena is unmapped when it empties
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)
        _lay_out_heap(library)
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def _lay_out_heap(library: ctypes.CDLL) -> None:
    """Leaves free places of `_PLACES` in glibc's heap."""
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    places = []
    for size in _PLACES:
        places.append(library.malloc(size))  # null where the process may not have as many addresses
        library.malloc(1 << 16)  # stays, so that neighbours do not become one
    for place in places:
        library.free(place)


def compilation_cache_folder() -> str | None:
    """Returns the folder of JAX's compilation cache, or its URL; it need not be there.

    The folder is `$XDG_CACHE_HOME/jaxdeblur/xla` (by default below `~/.cache`), in it one for each
    kind of processor, since a program that was compiled for another may not run. It may be
    deleted at any time. A folder that JAX was told before (`JAX_COMPILATION_CACHE_DIR`) stays.
    None where the user has no home folder.
    """
    told = _told_folder()
    return told or (str(own) if (own := _own_folder()) else None)


def use_compilation_cache() -> Path | None:
    """Keeps compiled programs in `compilation_cache_folder`, so that the next start is quick.

    What cannot be read or written there is compiled, without a word; a damaged file in our own
    folder is replaced.

    Returns:
      The folder in use, or None where there is none that can be written.
    """
    import jax  # not before `keep_freed_memory`

    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    if told := _told_folder():
        return Path(told)
    folder = _own_folder()
    try:
        if folder is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    with contextlib.suppress(ImportError):  # another version of JAX, whose inside has changed
        from jaxdeblur.runtime import programs

        programs.check()
    return folder


def _own_folder() -> Path | None:
    named = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(named) if os.path.isabs(named) else paths.home()  # its standard ignores others
    if base is None:
        return None
    return (base if os.path.isabs(named) else base / ".cache") / "jaxdeblur" / "xla" / _processor()


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


def training_options() -> dict[str, str]:
    """Returns what `jax.jit` takes as `compiler_options` for a step of training.

    Several devices on a CPU, meant as one for each core, have nothing to gain from operations that
    run beside each other on one of them, but much from the order for little memory, whose arrays
    stay in the cache: see `inference_options`. Empty elsewhere.
    """
    import jax

    return inference_options() if jax.local_device_count() > 1 else {}


def quick_compilation_options() -> dict[str, int]:
    """Returns what `jax.jit` takes as `compiler_options` where LLVM's optimising does not pay.

    On a CPU, the random numbers of a network's first parameters take LLVM ten seconds to optimise
    and a fraction of one to compute, and a network that is all products of a library compiles
    sooner and runs as fast. LLVM optimises little there; the numbers are the same.
    Empty elsewhere.
    """
    import jax

    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


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

"""`jaxdeblur doctor`: what a report of a problem should begin with.

A section that fails says so in a line, and the others follow.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxdeblur.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from jaxdeblur.data.pipeline import Source

# The packages that matter most, in this order; those of the extras follow.
_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint"),
    *("grain", "numpy", "tensorstore", "dm-pix", "safetensors"),
)
_NOT_FOR_USERS = ("all", "test")  # extras that bring nothing of their own
_TRAINING = ("", "train")  # extras that training needs; "": what comes without any
_PLUGIN = re.compile(r"(jax[-_](cuda|rocm|metal|tpu)|libtpu|nvidia[-_](cudnn|nccl)).*", re.I)

# What decides how a process joins others, and what JAX and its compiler do.
_VARIABLES = (
    *("JAX_*", "XLA_*", "LIBTPU_INIT_ARGS", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    *("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    *("OMPI_COMM_WORLD_*", "PMI_RANK", "PMI_SIZE"),
    *("TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID", "MEGASCALE_NUM_SLICES"),
    *("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"),
)
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")

_DEVICES_LIMIT = 120.0  # seconds; on a TPU pod a lone process waits for the others
_READING_LIMIT = 3.0  # seconds for each split
_WINDOW = 256  # pixels, the side of what is read of a frame: the published patch
_MOST_REMARKS = 3
_LONGEST = 300  # characters of a message

_CLIPS_FOLDER = re.compile(r"(?:(?:train|val|test)_)?(sharp|blur(?:red)?(?:_\w+)?)")


class Line(NamedTuple):
    """What is told of one thing.

    Attributes:
      name: the thing.
      value: what there is to say.
      broken: whether training would fail.
    """

    name: str
    value: str
    broken: bool = False


class Section(NamedTuple):
    """Lines about one subject.

    Attributes:
      title: of them.
      lines: makes them.
      needed: whether training would fail where this does.
    """

    title: str
    lines: Callable[[argparse.Namespace], Iterator[Line]]
    needed: bool


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say what is installed, and whether devices and data work",
        description="Says what is installed, what the machine has and whether its devices work; "
        "with --data-dir and --workdir also whether those do. Put all of it into the report of a "
        "problem. Ends with status 1 if something that training needs is broken.",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="try to read this dataset")
    parser.add_argument(
        "--dataset",
        choices=("cifar10", "photos", "reds", "gopro", "clips"),
        help="what DIR holds (default: guessed)",
    )
    parser.add_argument(
        "--variant",
        default="blur",
        metavar="NAME",
        help="the blurred frames of clips, such as blur_jpeg (default: %(default)s)",
    )
    parser.add_argument("--workdir", metavar="DIR", help="look at this folder of a training run")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if arguments.dataset is not None and arguments.data_dir is None:
        raise InputError(f"--dataset {arguments.dataset} says what --data-dir holds; give both")
    sections = [
        Section("versions", _versions, False),
        Section("machine", _machine, False),
        Section("cluster", _cluster, False),
        Section("devices", _devices, True),
    ]
    if arguments.data_dir is not None:
        sections.append(Section("data", _data, True))
    if arguments.workdir is not None:
        sections.append(Section("workdir", _workdir, True))
    broken = []
    for section in sections:
        _say(section.title)  # at once: its lines may take a while
        lines = _collect(section, arguments)
        # Names of variables can be long; they do not move everything else to the right.
        width = min(max(len(line.name) for line in lines), 20) + 1
        for line in lines:
            _say(f"  {line.name + ':':{width}} {' '.join(line.value.splitlines())}")
        _say("")
        broken += [f"{line.name} ({section.title})" for line in lines if line.broken]
    if broken:
        _say(f"broken, and needed to train: {', '.join(broken)}")
        raise SystemExit(1)
    _say("nothing that training needs is broken")


def _say(text: str) -> None:
    """Prints a line, less what standard output cannot encode: names of files can be any bytes."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _collect(section: Section, arguments: argparse.Namespace) -> list[Line]:
    lines = []
    try:
        for line in section.lines(arguments):
            lines.append(line)  # one by one: what came before a failure is kept
    except Exception as error:
        lines.append(Line("failed", _reason(error), section.needed))
    return lines


def _reason(error: Exception) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, ModuleNotFoundError):
        extra = "cifar" if error.name in ("tensorflow_datasets", "array_record") else "train"
        return f"{text} (pip install 'jaxdeblur[{extra}]')"
    if not text:  # an assertion, say: where it is must do
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{place.line} ({place.filename}:{place.lineno})"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _versions(arguments: argparse.Namespace) -> Iterator[Line]:
    import jaxdeblur

    del arguments
    needs = _requirements()
    remark = "" if needs else ", not installed"
    yield Line("jaxdeblur", f"{jaxdeblur.__version__} ({Path(jaxdeblur.__file__).parent}){remark}")
    yield Line("Python", f"{platform.python_version()} ({sys.executable})")
    yield Line("platform", platform.platform())
    for name in [*_PACKAGES, *(name for name in needs if name not in _PACKAGES)]:
        # What is not named, such as jaxlib, comes with what is.
        yield _package(name, needs.get(name, {"": ""} if needs else {}))
    found = {
        f"{distribution.name} {distribution.version}"
        for distribution in importlib.metadata.distributions()
        if _PLUGIN.fullmatch(distribution.name or "")
    }
    yield Line("plugins", ", ".join(sorted(found)) or "none")


def _requirements() -> dict[str, dict[str, str]]:
    """The packages that jaxdeblur names, each with the extras that bring it and their minimum.

    Empty where jaxdeblur is not installed, but run from its folder.
    """
    try:
        requirements = importlib.metadata.requires("jaxdeblur") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, dict[str, str]] = {}
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        minimum = re.search(r">=\s*([\w.]+)", requirement)
        extra = re.search(r"extra == .([\w-]+)", requirement)
        extra = extra[1] if extra else ""
        if name and name[0] != "jaxdeblur" and extra not in _NOT_FOR_USERS:
            found.setdefault(name[0], {})[extra] = minimum[1] if minimum else ""
    return found


def _package(name: str, needed: Mapping[str, str]) -> Line:
    """Says a package's version, and whether it is one that the extras can do with.

    Args:
      name: of the package.
      needed: the extras that bring it, each with the version it needs; empty where not known.
    """
    extras = sorted(needed, key=lambda extra: extra not in _TRAINING)  # those of training first
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        how = f" (pip install '{_installed_as(extras[0])}')" if extras else ""
        return Line(name, f"not installed{how}", not extras or extras[0] in _TRAINING)
    for extra in extras:
        least = needed[extra]
        if _numbers(version) < _numbers(least):
            value = f"{version}, but {_installed_as(extra)} needs {least} or newer"
            return Line(name, value, extra in _TRAINING)
    return Line(name, version)


def _installed_as(extra: str) -> str:
    return f"jaxdeblur[{extra}]" if extra else "jaxdeblur"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _machine(arguments: argparse.Namespace) -> Iterator[Line]:
    del arguments
    yield Line("processor", _processor())
    cores = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    yield Line("cores", f"{usable} usable of {cores}")
    total, available = _memory()
    of_which = "" if available is None else f", {_size(available)} available"
    yield Line("memory", "unknown" if total is None else f"{_size(total)}{of_which}")
    limit = _memory_limit()
    if limit is not None and (total is None or limit < total):
        yield Line("memory limit", f"{_size(limit)} (cgroup)")
    for name, folder in (("temp folder", tempfile.gettempdir), ("current folder", os.getcwd)):
        try:
            yield Line(name, f"{folder()}, {_room(folder())}")
        except OSError as error:
            yield Line(name, _reason(error))


def _processor() -> str:
    with contextlib.suppress(OSError):
        match = re.search(r"^model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(), re.M)
        if match:
            return f"{match[1]} ({platform.machine()})"
    return f"{platform.processor() or 'unknown'} ({platform.machine()})"


def _memory() -> tuple[int | None, int | None]:
    """Returns the bytes there are and those to be had, each as far as the system tells."""
    with contextlib.suppress(OSError):
        fields = re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
        kilobytes = {name: 1024 * int(value) for name, value in fields}
        return kilobytes.get("MemTotal"), kilobytes.get("MemAvailable")
    with contextlib.suppress(ValueError, AttributeError):  # names that this system does not have
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    return None, None


def _memory_limit(
    own_groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """The least memory that this process's control groups and those around them allow, in bytes."""
    limits = []
    with contextlib.suppress(OSError):
        for line in own_groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            # Version 2 has one tree, which no controllers are named for, version 1 one for each.
            top = root / "memory" if controllers else root
            file = "memory.limit_in_bytes" if controllers else "memory.max"
            group = top / path.lstrip("/")
            # In a container the path can be that of outside: what is mounted then is the top.
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
                    limits.append(int((folder / file).read_text()))
                if folder == top:
                    break
    return min(limits, default=None)


def _room(folder: str | os.PathLike[str]) -> str:
    return f"{_size(shutil.disk_usage(folder).free)} free"


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def _cluster(arguments: argparse.Namespace) -> Iterator[Line]:
    from jaxdeblur import cluster

    del arguments
    try:
        found = cluster.detect()
        yield Line("job", "alone" if found is None else str(found))
    except InputError as error:
        yield Line("job", _reason(error), broken=True)
    remark = cluster.remark()
    if remark is not None:
        yield Line("remark", remark)
    for name, value in sorted(os.environ.items()):
        if any(fnmatchcase(name, pattern) for pattern in _VARIABLES):
            yield Line(name, value)
    # Their values may hold passwords.
    proxies = sorted(name for name in os.environ if name.lower() in _PROXIES)
    yield Line("proxies", f"{', '.join(proxies)} (values not shown)" if proxies else "none")


def _devices(arguments: argparse.Namespace) -> Iterator[Line]:
    """Tries the devices in a process of its own: a driver can end the one it is in, or hang it."""
    del arguments
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a training beside this one keeps its memory
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    program = "from jaxdeblur.cli import doctor; doctor.report_devices()"
    command = [sys.executable, "-P", "-c", program]
    ending = None
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=_DEVICES_LIMIT, check=False
        )
        out, err = done.stdout, done.stderr
        if done.returncode:
            ending = f"the process that tried them ended with {_status(done.returncode)}"
    except subprocess.TimeoutExpired as error:
        out, err = error.stdout or b"", error.stderr or b""
        ending = f"no answer within {_DEVICES_LIMIT:.0f} s"
    yield from _sent(out.decode(errors="replace"))
    said = [line.strip() for line in err.decode(errors="replace").splitlines() if line.strip()]
    for message in said[-_MOST_REMARKS:]:
        yield Line("message", message[:_LONGEST])
    if ending is not None:
        yield Line("failed", ending, broken=True)
    yield Line("cache", _cache())


def _sent(output: str) -> Iterator[Line]:
    """What `report_devices` has printed, less what drivers have."""
    for text in output.splitlines():
        try:
            line = Line(*json.loads(text))
        except (ValueError, TypeError):
            continue
        yield line


def _status(code: int) -> str:
    """A process's exit status in words; it is negative where a signal ended it."""
    with contextlib.suppress(ValueError):
        if code < 0:
            return signal.Signals(-code).name
    return f"status {code}"


def report_devices() -> None:
    """Prints the lines about the devices as JSON: what `_devices` runs in another process."""
    try:
        for line in _try_devices():
            print(json.dumps(line), flush=True)  # each at once: the next may end the process
    except Exception as error:
        print(json.dumps(Line("failed", _reason(error), broken=True)))


def _try_devices() -> Iterator[Line]:
    import jax

    jax.config.update("jax_enable_compilation_cache", False)  # its time is to be seen
    yield Line("backend", jax.default_backend())
    devices = jax.local_devices()
    kinds = Counter(device.device_kind for device in devices)
    yield Line("devices", ", ".join(f"{count} x {kind}" for kind, count in kinds.items()))
    for device in devices:
        statistics = {}
        with contextlib.suppress(NotImplementedError, RuntimeError):  # not every plugin counts
            statistics = device.memory_stats() or {}
        if "bytes_limit" in statistics:
            used = _size(statistics.get("bytes_in_use", 0))
            yield Line(f"memory of {device.id}", f"{_size(statistics['bytes_limit'])}, {used} used")
    yield _product(devices[0])


def _product(device: Any) -> Line:
    """Multiplies two matrices, and compares a part of the result with numpy's."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    side = 2048 if device.platform == "cpu" else 8192
    # Of whole numbers so small that every precision computes the same.
    matrix = np.random.default_rng(0).integers(-2, 3, (side, side)).astype(np.float32)
    there = jax.device_put(matrix, device).block_until_ready()
    product = jax.jit(jnp.matmul)
    start = time.perf_counter()
    product(there, there).block_until_ready()
    compiled = time.perf_counter()
    result = product(there, there).block_until_ready()
    end = time.perf_counter()
    if not np.array_equal(np.asarray(result[:2]), matrix[:2] @ matrix):
        return Line("matrix product", f"{device} computes wrong numbers", broken=True)
    rate = 2 * side**3 / (end - compiled) / 1e9
    return Line(
        "matrix product",
        f"{side}x{side}, float32: {compiled - start:.3g} s with compiling, then "
        f"{end - compiled:.3g} s, {rate:.0f} GFLOP/s",
    )


def _cache() -> str:
    """The compilation cache's folder, see `startup.use_compilation_cache`, which would make it."""
    from jaxdeblur import startup

    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen and "://" in chosen:
        return chosen
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    default = Path(home).expanduser() / "jaxdeblur" / "xla" / startup._processor()
    folder = Path(chosen) if chosen else default
    parent = _existing(folder)
    writable = parent.is_dir() and os.access(parent, os.W_OK)
    if parent != folder.absolute():
        return f"{folder}, {'not made yet' if writable else 'cannot be made'}"
    try:
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    except OSError as error:  # such as a program that another process has just removed
        return f"{folder}, {_reason(error)}"
    remark = "" if writable else ", cannot be written"
    return f"{folder}, {_size(sum(sizes))} in {len(sizes)} files{remark}"


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above that exists."""
    path = path.absolute()
    # `Path.exists` would raise where a folder above may not be looked into.
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


def _data(arguments: argparse.Namespace) -> Iterator[Line]:
    folder = arguments.data_dir
    if "://" not in folder and not Path(folder).expanduser().is_dir():
        yield Line("folder", f"{folder} is no folder", broken=True)
        return
    yield Line("folder", folder)
    dataset = arguments.dataset or _guess(folder)
    yield Line("dataset", dataset if arguments.dataset else f"{dataset} (guessed; see --dataset)")
    open_split = _opener(dataset, folder, arguments.variant)
    told: dict[object, Line] = {}
    for split in ("train", "val", "test"):
        with _remarks() as remarks:
            line = _split(open_split, split, told)
        yield line
        if line not in told.values():  # nor are its warnings new
            continue
        for remark in remarks[:_MOST_REMARKS]:
            yield Line("warning", remark)
        if len(remarks) > _MOST_REMARKS:
            yield Line("warning", f"and {len(remarks) - _MOST_REMARKS} more")


def _split(open_split: Callable[[str], Source], split: str, told: dict[object, Line]) -> Line:
    """Opens and reads a split; adds it to those told, where one may serve as two or fail as one."""
    needed = split != "test"
    try:
        start = time.perf_counter()
        source = open_split(split)
        seconds = time.perf_counter() - start
        content: object = (source.name, *source.labels)
        if content not in told:
            value = f"{_inventory(source)}, opened in {seconds:.2g} s; {_reading(source)}"
            told[content] = Line(split, value)
            return told[content]
    except Exception as error:
        content = _reason(error)
        if content not in told:
            told[content] = Line(split, content, needed)
            return told[content]
    same = told[content]
    return Line(split, f"the same as {same.name}", same.broken and needed)


def _guess(folder: str) -> str:
    """The dataset that a folder seems to hold."""
    from jaxdeblur.data import frame_store

    if frame_store.is_store(folder):
        return "clips"
    root = Path(folder).expanduser()
    if (root / "cifar10").is_dir():
        return "cifar10"
    kinds = set()
    for _, names, _ in os.walk(root):
        matches = [_CLIPS_FOLDER.fullmatch(name) for name in names]
        kinds |= {match[1] == "sharp" for match in matches if match}
        if len(kinds) == 2:  # blurred ones and sharp
            return "clips"
    return "photos"


def _opener(dataset: str, folder: str, variant: str) -> Callable[[str], Source]:
    """Returns the function that opens a split as training does."""
    from jaxdeblur.data import cifar, photos, pipeline

    match dataset:
        case "cifar10":
            return lambda split: cifar.Cifar10(folder, split)
        case "photos":
            return lambda split: photos.photo_folder(folder, split)
    return lambda split: pipeline.open_clips(folder, split, variant, pipeline.CLIPS[dataset])


class _Remarks(logging.Handler):
    """Keeps warnings in a list."""

    def __init__(self, kept: list[str]):
        super().__init__(logging.WARNING)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record.getMessage())


@contextlib.contextmanager
def _remarks() -> Iterator[list[str]]:
    """Collects what the package warns of, instead of letting it go to standard error."""
    logger, kept = logging.getLogger("jaxdeblur"), []
    handler, propagate = _Remarks(kept), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield kept
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _inventory(source: Source) -> str:
    things = "frames" if hasattr(source, "triplet") else "images"
    height, width, _ = source.smallest_size()
    return f"{len(source):,} {things}, the smallest {width}x{height}"


def _reading(source: Source) -> str:
    """How fast a thread reads in random order, each image or frame once at most.

    The second time they would come from memory.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    count = num_bytes = 0
    start = time.perf_counter()
    for index in rng.permutation(len(source)):
        num_bytes += _read(source, int(index), rng)
        count += 1
        if time.perf_counter() - start > _READING_LIMIT:
            break
    seconds = time.perf_counter() - start
    rate = count / seconds
    digits = 0 if rate >= 100 else 1
    speed = f"{rate:,.{digits}f} a second, {_size(num_bytes / seconds)}/s"
    return f"{count:,} read by one thread, {speed}"


def _read(source: Source, index: int, rng: np.random.Generator) -> int:
    """Reads a sample as training does; returns the bytes of its pixels."""
    from jaxdeblur.data import clips, triplets

    if not isinstance(source, clips.Clips):
        return source[index].nbytes
    size = source.size(index)
    window = triplets.random_window(size, min(_WINDOW, *size), rng)
    return sum(part.nbytes for part in source.triplet(index, window))


def _workdir(arguments: argparse.Namespace) -> Iterator[Line]:
    if "://" in arguments.workdir:
        yield Line("folder", f"{arguments.workdir} (in object storage, not looked at)")
        return
    folder = Path(arguments.workdir).expanduser()
    existing = _existing(folder)
    if not existing.is_dir():
        yield Line("folder", f"{existing} is no folder", broken=True)
        return
    yield Line("folder", f"{folder}{'' if folder.is_dir() else ' (does not exist yet)'}")
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".doctor-"):
            pass
        yield Line("writing", "works" if existing == folder.absolute() else f"works in {existing}")
    except OSError as error:
        yield Line("writing", f"fails in {existing}: {error.strerror}", broken=True)
    yield Line("room", _room(existing))
    names = [path.name for path in (folder / "checkpoints").glob("*") if path.is_dir()]
    steps = [int(name) for name in names if name.isdecimal()]  # one in the making has more letters
    yield Line("checkpoints", f"{len(steps)}, the newest of step {max(steps)}" if steps else "none")
    yield Line("metrics.jsonl", _metrics(folder / "metrics.jsonl"))


def _metrics(file: Path) -> str:
    """The steps that a log holds."""
    if not file.is_file():
        return "none"
    steps, unreadable = [], 0
    for line in file.read_text(errors="replace").splitlines():
        try:
            steps.append(int(json.loads(line)["step"]))
        except (ValueError, TypeError, KeyError):
            unreadable += 1
    text = f"{len(steps)} lines"
    if steps:
        text += f", steps {min(steps)} to {max(steps)}"
    return text + (f", and {unreadable} unreadable" if unreadable else "")

"""What is installed, and whether it is new enough."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxdeblur
from jaxdeblur.cli.doctor.common import Line

_TRAINING = ("", "train")  # extras that training needs; "": what comes without any
_PLUGIN = re.compile(r"(jax[-_](cuda|rocm|metal|tpu)|libtpu|nvidia[-_](cudnn|nccl)).*", re.I)


def lines() -> Iterator[Line]:
    yield Line("jaxdeblur", f"{jaxdeblur.__version__} ({Path(jaxdeblur.__file__).parent})")
    yield Line("Python", f"{platform.python_version()} ({sys.executable})")
    yield Line("platform", platform.platform())
    for name, minima in _requirements().items():
        yield _package(name, minima)
    installed = {f"{each.name} {each.version}" for each in importlib.metadata.distributions()}
    plugins = sorted(text for text in installed if _PLUGIN.match(text))
    yield Line("plugins", ", ".join(plugins) or "none")


def _requirements() -> dict[str, dict[str, str]]:
    """The packages that jaxdeblur needs: by extra the oldest version that will do."""
    found = {"jax": {"": ""}, "jaxlib": {"": ""}}
    try:
        requirements = importlib.metadata.requires("jaxdeblur") or []
    except importlib.metadata.PackageNotFoundError:  # run from its folder
        return found
    for requirement in requirements:
        # Such as: array-record>=0.7; sys_platform == "linux" and extra == "train"
        match = re.match(r"([\w.-]+)(?:>=([\w.]+))?(?:.*extra == .([\w-]+))?", requirement)
        if match and match[3] not in ("all", "test"):
            found.setdefault(match[1], {})[match[3] or ""] = match[2] or ""
    return found


def _package(name: str, minima: dict[str, str]) -> Line:
    extras = sorted(minima, key=lambda extra: extra not in _TRAINING)  # those of training first
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        how = f"pip install '{_with(extras[0])}'"
        return Line(name, f"not installed ({how})", extras[0] in _TRAINING)
    for extra in extras:
        if _numbers(version) < _numbers(minima[extra]):
            value = f"{version}, but {_with(extra)} needs {minima[extra]} or newer"
            return Line(name, value, extra in _TRAINING)
    return Line(name, version)


def _with(extra: str) -> str:
    return f"jaxdeblur[{extra}]" if extra else "jaxdeblur"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]

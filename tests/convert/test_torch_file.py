import json
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from foreign_files import save_torch, tensor
from safetensors.numpy import save_file

from jaxdeblur import weights
from jaxdeblur.convert.torch_file import read_state_dict
from jaxdeblur.errors import InputError

WEIGHT = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.pth"


def assert_refused(path, match):
    with pytest.raises(InputError, match=match) as refusal:
        read_state_dict(path)
    assert path.name in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_tensors_of_every_type_come_back(path, byteorder):
    kinds = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
    saved = {kind: np.array([[0, 1, 2], [3, 4, 5]]).astype(kind) for kind in kinds}
    saved |= {
        "bfloat16": np.array([1.5, -2], ml_dtypes.bfloat16),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((2, 0), np.float32),
    }
    save_torch(path, saved, byteorder=byteorder)
    read = read_state_dict(str(path))
    assert read.keys() == saved.keys()
    for name, array in saved.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_tensors_may_lie_anywhere_in_a_storage_that_they_share(path):
    turned = tensor("0", 24, 12, (4, 3), (1, 4))
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + turned + b"\x88}tR"
    save_torch(path, {"weight": WEIGHT, "turned": turned, "parameter": parameter})
    read = read_state_dict(path)
    for name in ("turned", "parameter"):
        np.testing.assert_array_equal(read[name], WEIGHT[1].T)


@pytest.mark.parametrize("part", ["params", "params_ema", "state_dict", "model"])
def test_tensors_are_found_beside_other_things(path, part):
    save_torch(path, {"epoch": 3, part: {"module.conv.weight": WEIGHT, "name": "net"}})
    read = read_state_dict(path)
    assert list(read) == ["conv.weight"]


def test_metadata_of_a_state_dictionary_is_passed_over(path):
    """`Module.state_dict` gives an ordered dictionary with an attribute."""
    ordered = b"ccollections\nOrderedDict\n)R(X\x01\0\0\0w" + tensor("0", 24, 0, (24,), (1,)) + b"u"
    metadata = b"}X\x09\0\0\0_metadata}sb"
    save_torch(path, {"storage": WEIGHT, "params": ordered + metadata})
    np.testing.assert_array_equal(read_state_dict(path)["w"], WEIGHT.ravel())


def test_safetensors_file_of_the_tensors_is_read(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({"module.weight": WEIGHT}, path)
    np.testing.assert_array_equal(read_state_dict(path)["weight"], WEIGHT)
    path.write_bytes(path.read_bytes()[:-5])
    assert_refused(path, "not a whole safetensors file")


class Runs:
    """What pickle makes run a command when it is read."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_command_in_a_pickle_is_not_run(path, tmp_path):
    trace = tmp_path / "trace"
    opcodes = pickle.dumps(Runs(f"touch {trace}"), protocol=2)[2:-1]
    save_torch(path, {"weight": WEIGHT, "more": opcodes})
    assert_refused(path, r"holds \w+\.system, which is no tensor; nothing of it was run")
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins\neval", "this\ns", "torch.hub\nload", "torch\nload", "collections\nCounter",
     "torch._utils\n_rebuild_tensor_v2.__globals__", "numpy\nload"],
)  # fmt: skip
def test_nothing_that_a_pickle_names_is_imported(path, name):
    save_torch(path, {"weight": WEIGHT, "more": f"c{name}\n".encode()})
    assert_refused(path, "which is no tensor")
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    "opcodes",
    [
        tensor("0", 24, 1, (24,), (1,)),  # ends beyond its storage
        tensor("0", 24, -1, (4,), (1,)),
        tensor("0", 24, 2, (4,), (-1,)),
        tensor("0", 24, 0, (4,), (8,)),
        tensor("0", 24, 0, (25,), (0,)),  # grows
        tensor("0", 24, 0, (2**31 - 1, 2**31 - 1), (0, 0)),
        tensor("0", 24, 0, (2, 2), (1,)),
        tensor("0", 23, 0, (4,), (1,)),  # not the size of the storage
        tensor("0", 24, 0, (4,), (1,), "float64"),
        tensor("7", 24, 0, (4,), (1,)),  # no such storage
        tensor("../byteorder", 1, 0, (1,), (1,)),
    ],
)
def test_tensor_outside_its_storage_is_refused(path, opcodes):
    save_torch(path, {"weight": WEIGHT, "more": opcodes})
    assert_refused(path, "not a whole file of weights")


def test_functions_that_make_tensors_stay_as_they_are(path):
    """A pickle can set attributes of what it names."""
    function = b"ctorch._utils\n_rebuild_tensor_v2\n(N}X\x0c\0\0\0__defaults__(J\0\0\0\0tst"
    save_torch(path, {"weight": WEIGHT, "more": function + b"b"})
    assert_refused(path, "not a whole file of weights")


@pytest.mark.parametrize("kept", [4, 100, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(path, kept):
    save_torch(path, {"weight": np.zeros(5000, np.float32)})
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept > 1 else int(kept * len(data))])
    assert_refused(path, "not a whole file of weights.*download it again")


def test_damaged_storage_is_refused(path):
    save_torch(path, {"weight": np.full(5000, 1, np.float32)})
    data = bytearray(path.read_bytes())
    data[10_000] ^= 1
    path.write_bytes(data)
    assert_refused(path, "Bad CRC-32")


def assert_takes_no_memory(path, match):
    tracemalloc.start()
    assert_refused(path, match)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_bombs_are_refused_before_they_grow(path):
    zeros = np.zeros(25_000_000, np.uint8)
    save_torch(path, {"weight": zeros}, compression=zipfile.ZIP_DEFLATED)
    assert_takes_no_memory(path, "would grow")
    save_torch(path, {"more": b"Nr" + struct.pack("<I", 2**32 - 1)})
    assert_takes_no_memory(path, "object number")
    save_torch(path, {"more": b"N0" * 3_000_000})
    assert_takes_no_memory(path, "more tensors than any known network")


def test_tensors_that_share_a_storage_too_often_are_refused(path):
    whole = tensor("0", 20_000, 0, (20_000,), (1,))
    names = {f"weight{i}": whole for i in range(50)}
    save_torch(path, {"weight": np.zeros(20_000, np.float32), **names})
    assert_refused(path, "would grow")


def test_older_file_of_pytorch_is_told_apart(path):
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.")
    assert_refused(path, "PyTorch before 1.6 saved; save it again with a current PyTorch")


def test_other_files_are_refused_by_name(path, tmp_path):
    assert_refused(path, "cannot be read")
    assert_refused(tmp_path, "cannot be read")
    path.write_text("no weights")
    assert_refused(path, "no file of torch.save")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "no weights")
    assert_refused(path, "no file of torch.save: it has no data.pkl")
    for saved in ({"epoch": 3}, 3, {"params": {}}):
        save_torch(path, saved)
        assert_refused(path, "no dictionary of tensors")


# Pickles that ask for more than a file has.

BIG = b"\x8a\x08" + (10**10).to_bytes(8, "little")  # a whole number
TEXT = b"X\x02\x00\x00\x00ab"
NUMBERS = b"(K\x01t"
TWICE = b"K\x01" + b"2\x86" * 60  # a pair of the same pair, of the same pair, ...
TWICE_BY_NUMBER = b"K\x01q\x00" + b"".join(
    b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60)
)


def opcodes(key=b"X\x01\x00\x00\x000", count=b"K\x18", offset=b"K\x00", size=NUMBERS):
    storage = b"X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + key + b"X\x03\x00\x00\x00cpu"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage + count + b"tQ" + offset + size
        + NUMBERS + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        opcodes(size=b"(" + TEXT + BIG + b"t"),  # a text, ten thousand million times
        opcodes(size=b"((" + TEXT + b"t" + BIG + b"t"),
        opcodes(size=b"(G\x3f\xf0\0\0\0\0\0\0t"),
        opcodes(size=b"(J\xff\xff\xff\xfft"),
        opcodes(offset=TEXT),
        opcodes(key=NUMBERS),
        opcodes(count=TEXT),
        opcodes(key=TWICE),
        b"}(" + TWICE + b"K\x01u",
        b"}(" + TWICE_BY_NUMBER + b"K\x01u",
        TWICE,
        b"ccollections\nOrderedDict\n}(" + TEXT + b"K\x01ub",
    ],
)
def test_what_would_grow_beyond_the_file_is_refused_at_once(path, more):
    save_torch(path, {"weight": WEIGHT, "more": more})
    tracemalloc.start()
    assert_refused(path, "not a whole file of weights")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


def test_attributes_of_a_dictionary_are_left_alone(path):
    attributes = b"ccollections\nOrderedDict\n)R}(X\x05\x00\x00\x00itemsK\x05ub"
    save_torch(path, {"params": {"weight": WEIGHT}, "state": attributes})
    assert list(read_state_dict(path)) == ["weight"]
    save_torch(path, attributes)
    assert_refused(path, "holds no dictionary of tensors")


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_many_tensors_of_one_storage_are_no_way_to_fill_the_memory(path, byteorder):
    more = {f"copy_{i}": tensor("0", 10**5, 0, (10**5,), (1,)) for i in range(200)}
    save_torch(path, {"weight": np.zeros(10**5, np.float32), **more}, byteorder=byteorder)
    tracemalloc.start()
    assert_refused(path, "would grow from")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


def test_members_that_are_compressed_as_no_weights_are_are_refused(path):
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        save_torch(path, {"weight": WEIGHT}, compression=compression)
        assert_refused(path, "compressed in a way that no weights are")


def test_pipes_are_not_waited_for(path):
    os.mkfifo(path)
    assert_refused(path, "is no file")


@pytest.mark.parametrize(
    "header",
    [
        {"a": ("F32", [12], [0, 48]), "b": ("F32", [6], [24, 48])},  # one over the other
        {"a": ("F32", [6], [0, 24]), "b": ("F32", [1], [44, 48])},  # a hole
        {"a": ("F32", [120], [0, 480])},
        {"a": ("F32", [13], [-4, 48])},
        {"a": ("F32", [2**40, 2**40], [0, 48])},
        {"a": ("F32", [0, 2**62, 2**62], [0, 0])},
        {"a": ("F8_E4M3", [48], [0, 48])},
        {"a": ("X", [12], [0, 48])},
        {"a": (3, [12], [0, 48])},
        {"__metadata__": {"card": {"nested": 1}}},
        {"__metadata__": [1]},
        b'{"a":' * 50_000,
        b'{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},'
        b'"a":{"dtype":"F32","shape":[6],"data_offsets":[24,48]}}',
    ],
)
def test_damaged_headers_of_safetensors_are_told(tmp_path, header):
    if isinstance(header, dict):
        keys = ("dtype", "shape", "data_offsets")
        header = json.dumps(
            {k: dict(zip(keys, v, strict=True)) if isinstance(v, tuple) else v
             for k, v in header.items()}
        ).encode()  # fmt: skip
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 48)
    assert_refused(path, "safetensors")
    with pytest.raises(InputError, match=r"net\.safetensors"):
        weights.load(path)

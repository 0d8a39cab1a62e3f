import functools
import gzip
import json
import os
import shutil
import struct
import tarfile
import tracemalloc
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from foreign_files import pack, save_graph

from jaxdeblur import convert, metrics
from jaxdeblur.convert.tensorflowjs import read_parameters
from jaxdeblur.errors import InputError
from jaxdeblur.models import Maxim

# LLVM's optimisations take most of the time to compile.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

MODULE = Maxim(num_features=4, num_stages=2, num_groups=1, num_bottleneck_blocks=1)


def outputs(module, params, blurred):
    apply = quick_jit(functools.partial(module.apply, method="outputs"))
    return apply({"params": params}, blurred)


@pytest.fixture(scope="module")
def checkpoint(parity):
    return parity / "maxim.checkpoint.npz"


@pytest.fixture(scope="module")
def arrays(checkpoint):
    with np.load(checkpoint) as file:
        return {tuple(name.split("/")[2:]): file[name] for name in file.files}


@pytest.fixture(scope="module")
def package(arrays, tmp_path_factory):
    """A folder with a graph model, which lacks what the official one lacks."""
    folder = tmp_path_factory.mktemp("unpacked")
    unused = ("stage_1_output_conv_1", "stage_1_output_conv_2")
    kept = {place: array for place, array in arrays.items() if place[0] not in unused}
    save_graph(folder / "package" / "models", kept)
    return folder


@pytest.fixture(scope="module")
def packed(package):
    pack(package / "package" / "models", package / "net.tgz")
    return package / "net.tgz"


@pytest.fixture
def model_folder(package, tmp_path):
    return shutil.copytree(package / "package" / "models", tmp_path / "model")


def test_checkpoint_gives_what_the_official_code_gave(parity, checkpoint):
    module, params = convert.from_maxim(checkpoint)
    assert module == MODULE
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    with np.load(parity / "maxim.npz") as expected:
        for i, stage in enumerate(outputs(module, params, expected["input"])):
            for j, restored in enumerate(stage):
                picture = expected[f"stage_{i}_scale_{j}"]
                # The random parameters make pictures of values up to 117.
                assert np.abs(restored - picture).max() <= 1e-4 * np.abs(picture).max()


def test_package_gives_the_parameters_of_the_checkpoint(packed, arrays):
    module, params = convert.from_maxim(packed)
    assert module == MODULE
    params = flatten_dict(params)
    assert params.keys() == arrays.keys()
    for place, array in params.items():
        unused = place[0] in ("stage_1_output_conv_1", "stage_1_output_conv_2")
        np.testing.assert_array_equal(array, 0 * arrays[place] if unused else arrays[place])


def test_package_and_folders_are_the_same(package, packed, arrays):
    for path in (packed, package, str(package / "package" / "models")):
        read = read_parameters(path)
        assert len(read) == len(arrays) - 4
        assert all(np.array_equal(array, arrays[place]) for place, array in read.items())


def assert_refused(path, match):
    with pytest.raises(InputError, match=match) as refusal:
        convert.from_maxim(path)
    assert path.name in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kept", [20, 0.1, 0.9, 0.999])
def test_truncated_files_are_refused(checkpoint, packed, tmp_path, kept):
    for whole, match in ((checkpoint, "whole file"), (packed, "whole .tgz file")):
        data = whole.read_bytes()
        cut = tmp_path / f"cut{whole.suffix}"
        cut.write_bytes(data[: kept if kept > 1 else int(kept * len(data))])
        assert_refused(cut, f"not a {match}.*download it again")


def test_damaged_package_is_refused(packed, tmp_path):
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "net.tgz").write_bytes(data)
    assert_refused(tmp_path / "net.tgz", "not a whole .tgz file")


def test_shards_must_be_there_and_whole(model_folder):
    shard = model_folder / "group1-shard2of2.bin"
    data = shard.read_bytes()
    for wrong in (data[:-4], data + b"\0"):
        shard.write_bytes(wrong)
        assert_refused(model_folder, "its shards have .* bytes, its model.json tells of")
    shard.unlink()
    assert_refused(model_folder, "group1-shard2of2.bin cannot be read")
    pack(model_folder, model_folder / "net.tgz")
    assert_refused(model_folder / "net.tgz", "has no package/models/group1-shard2of2.bin")
    (model_folder / "model.json").unlink()
    assert_refused(model_folder, "has no model.json")


def change(model_folder, edit):
    model = json.loads((model_folder / "model.json").read_text())
    edit(model, model["weightsManifest"][0])
    (model_folder / "model.json").write_text(json.dumps(model))


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda model, group: model.pop("modelTopology"), "not a TensorFlow.js graph model"),
        (lambda model, group: model.update(weightsManifest=3), "not a TensorFlow.js graph model"),
        (lambda model, group: model["modelTopology"].update(node=[3]), "not a TensorFlow.js graph"),
        (lambda model, group: model["modelTopology"].update(node=[]), "holds no MAXIM"),
        (lambda model, group: group["weights"][0].update(dtype="string"), "graph model"),
        (lambda model, group: group["weights"][0].update(shape=[-1]), "tells of"),
        (lambda model, group: group["weights"][0].update(shape=[2**70]), "tells of"),
        (lambda model, group: group["weights"][0].update(quantization={}), "quantized"),
        (lambda model, group: group["paths"].append("../../secret"), "names a shard"),
        (lambda model, group: group["paths"].append("/etc/passwd"), "names a shard"),
    ],
)
def test_odd_graphs_are_refused(model_folder, edit, match):
    change(model_folder, edit)
    assert_refused(model_folder, match)


@pytest.mark.parametrize("text", ["", "no json", "[]", "[" * 100_000, "\xff"])
def test_model_that_is_no_json_is_refused(model_folder, text):
    (model_folder / "model.json").write_text(text)
    assert_refused(model_folder, "not a TensorFlow.js graph model")


def test_bombs_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model.json").write_text(" " * 3_000_000)
    pack(tmp_path, tmp_path / "bomb.tgz")
    monkeypatch.setattr(convert.tensorflowjs, "_MOST_BYTES", 2_000_000)
    assert_refused(tmp_path / "bomb.tgz", "unpacks to more than 2,000,000 bytes")
    np.savez_compressed(tmp_path / "bomb.npz", **{"opt/target/x": np.zeros(3_000_000)})
    assert_refused(tmp_path / "bomb.npz", "would grow")


def test_other_arrays_are_refused(arrays, tmp_path):
    path = tmp_path / "other.npz"
    names = {"opt/target/" + "/".join(place): array for place, array in arrays.items()}
    first = "opt/target/stage_0_input_conv_0"
    for change, match in (
        ({"weights": np.ones(3)}, "holds no MAXIM"),
        ({f"{first}/bias": np.ones(4, np.float32)}, "holds no MAXIM"),
        ({**names, f"{first}/bias": np.ones(4, int)}, "is of type int64"),
        ({**names, f"{first}/bias": np.array([{}])}, "allow_pickle=False"),
        ({**names, first: np.ones(4)}, "holds no MAXIM"),
    ):
        np.savez(path, **change)
        assert_refused(path, match)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{first}/bias.npy", b"\x93NUMPY\x01\x00v\x00" + b"{" * 118)
    assert_refused(path, "not a whole file of weights")


@pytest.mark.slow
def test_official_package_gives_what_the_official_code_gave(parity, npm_package):
    module, params = convert.from_maxim(npm_package)
    assert module == Maxim()
    with np.load(parity / "maxim_gopro.npz") as expected:
        stages = outputs(module, params, expected["input"][None].astype(np.float32) / 255)
        for i, stage in enumerate(stages):
            assert np.abs(stage[-1][0] - expected[f"stage_{i}"]).max() <= 1e-3
        sharp = expected["sharp"].astype(np.float32) / 255
    assert metrics.psnr(stages[-1][-1][0], sharp) == pytest.approx(32.99, abs=0.01)


# Files of strangers.

HEADER = b"\x93NUMPY\x01\x00"
FIRST = "opt/target/stage_0_input_conv_0/bias.npy"


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (20000000000,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ('a', 10000000000)}",
        "{'descr': '|S1000000000', 'fortran_order': False, 'shape': (100,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (16,)}",
        "[" * 5000,
    ],
)
def test_arrays_that_tell_of_more_than_they_have_are_refused(tmp_path, header):
    path = tmp_path / "odd.npz"
    text = header.encode() + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(FIRST, HEADER + struct.pack("<H", len(text)) + text + b"\0" * 64)
    tracemalloc.start()
    assert_refused(path, "not a whole file of weights")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.parametrize(
    "edit",
    [
        lambda model, group: group["weights"][0].update(shape=["ab", 10**10]),
        lambda model, group: group["weights"][0].update(shape=[[1], 10**10]),
        lambda model, group: group["weights"][0].update(shape=None),
        lambda model, group: group["weights"][0].update(dtype="O"),
        lambda model, group: group["weights"][0].update(dtype="(1000000,1000000)f4"),
        lambda model, group: group["weights"][0].update(dtype=["f4"]),
        lambda model, group: group.update(paths=group["paths"] * 100_000),
        lambda model, group: model.update(weightsManifest=[group] * 3),
        lambda model, group: group.update(paths=[3]),
        lambda model, group: group.update(weights=[[1]]),
        lambda model, group: group.update(paths=[".."]),
        lambda model, group: group.update(paths=[""]),
        lambda model, group: group.update(paths=["a\0b"]),
        lambda model, group: group.update(paths=["a" * 300]),
        lambda model, group: group.update(paths=["pipe.bin"]),
        lambda model, group: group.update(paths=["zeros.bin"]),
    ],
)
def test_graphs_that_ask_for_more_than_there_is_are_refused(model_folder, edit):
    os.mkfifo(model_folder / "pipe.bin")
    (model_folder / "zeros.bin").symlink_to("/dev/zero")
    change(model_folder, edit)
    tracemalloc.start()
    assert_refused(model_folder, "graph model|cannot be read")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


def member_of_size(size):
    """The header of a tar file's member; Python reads on for ever after a negative size."""
    header = bytearray(tarfile.TarInfo("package/models/model.json").tobuf())
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    "unpacked",
    [
        b"",
        b"no package",
        member_of_size((-10_000).to_bytes(12, "big", signed=True)) + b"\0" * 1024,
        member_of_size((2**60).to_bytes(12, "big")) + b"\0" * 1024,
        member_of_size(b"zzzzzzzzzzz\0") + b"\0" * 1024,
    ],
)
def test_damaged_packages_are_told(tmp_path, unpacked):
    (tmp_path / "odd.tgz").write_bytes(gzip.compress(unpacked))
    assert_refused(tmp_path / "odd.tgz", r"odd\.tgz")


def test_a_package_that_grows_beyond_reason_is_refused_early(tmp_path):
    (tmp_path / "bomb.tgz").write_bytes(gzip.compress(b"\0" * 50_000_000, 9))
    tracemalloc.start()
    assert_refused(tmp_path / "bomb.tgz", "unpacks to more than")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40_000_000

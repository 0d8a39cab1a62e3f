"""HDF5 files of strangers: nothing leads out of them, and nothing is read that they cannot hold."""

import os
import random

import h5py
import numpy as np
import pytest

from jaxdeblur.convert import hdf5
from jaxdeblur.errors import InputError

PLACE = "layers/conv2d/vars/0"
SECRET = np.full((3, 3), 42, np.float32)


@pytest.fixture
def path(tmp_path):
    """A file of an array, beside another one that it is not to lead to."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file[PLACE] = SECRET
    SECRET.tofile(tmp_path / "raw.bin")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file[PLACE] = np.arange(9, dtype=np.float32).reshape(3, 3)
        file["layers/conv2d/vars/1"] = np.ones(1000)
    return tmp_path / "net.h5"


def read(path):
    with hdf5.opened(path, "weights_h5") as file:
        return file.array(PLACE)


def virtual(group, folder):
    layout = h5py.VirtualLayout((3, 3), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), PLACE, (3, 3))
    group.create_virtual_dataset("0", layout)


ODD = {
    "group": (lambda g, folder: g.create_group("0"), "is no array"),
    "type": (lambda g, folder: g.__setitem__("0", np.dtype("f4")), "is no array"),
    "text": (lambda g, folder: g.create_dataset("0", data="text"), "no float"),
    "texts": (lambda g, folder: g.create_dataset("0", data=["a"]), "no float"),
    "references": (
        lambda g, folder: g.create_dataset("0", data=[g.ref], dtype=h5py.ref_dtype),
        "no float",
    ),
    "rows of any length": (
        lambda g, folder: g.create_dataset("0", (3,), h5py.vlen_dtype(np.float32)),
        "no float",
    ),
    "nothing": (lambda g, folder: g.create_dataset("0", data=h5py.Empty("f4")), "no float"),
    "complex": (lambda g, folder: g.create_dataset("0", data=SECRET.astype("c8")), "no float"),
    "whole numbers": (lambda g, folder: g.create_dataset("0", data=SECRET.astype(int)), "no float"),
    "records": (
        lambda g, folder: g.create_dataset("0", data=np.zeros(3, [("a", "f4")])),
        "no float",
    ),
    "soft link": (lambda g, folder: g.__setitem__("0", h5py.SoftLink("1")), "is a link"),
    "link to itself": (lambda g, folder: g.__setitem__("0", h5py.SoftLink("0")), "is a link"),
    "link to another file": (
        lambda g, folder: g.__setitem__("0", h5py.ExternalLink(str(folder / "other.h5"), PLACE)),
        "is a link",
    ),
    "bytes of another file": (
        lambda g, folder: g.create_dataset(
            "0", (3, 3), "f4", external=[(str(folder / "raw.bin"), 0, 36)]
        ),
        "lies in another file",
    ),
    "parts of another file": (virtual, "lies in another file"),
    "never written": (
        lambda g, folder: g.create_dataset("0", (10**6, 10**6), "f4", chunks=(1000, 1000)),
        "would grow from .* to 4,000,000,000,000 bytes",
    ),
    "never written in one piece": (
        lambda g, folder: g.create_dataset("0", (10**12,), "f4"),
        "would grow from",
    ),
    "bomb": (
        lambda g, folder: g.create_dataset("0", data=np.zeros(10**7, "f4"), compression="gzip"),
        "would grow from",
    ),
}


@pytest.mark.parametrize(("change", "told"), ODD.values(), ids=ODD)
def test_what_is_no_array_of_the_file_is_refused(path, change, told):
    assert read(path).sum() == 36
    with h5py.File(path, "a") as file:
        del file[PLACE]
        change(file["layers/conv2d/vars"], path.parent)
    with pytest.raises(InputError, match=told) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_groups_in_a_circle_and_links_on_the_way_are_not_followed(path):
    with h5py.File(path, "a") as file:
        file["layers/conv2d/loop"] = file["layers"]
    with hdf5.opened(path, "weights_h5") as file:  # as far as is asked, no farther
        assert file.array("layers/conv2d/loop/conv2d/loop/conv2d/vars/0").sum() == 36
    with h5py.File(path, "a") as file:
        del file["layers"]
        file["layers"] = h5py.ExternalLink(str(path.parent / "other.h5"), "/layers")
    with pytest.raises(InputError, match="layers is a link to another place"):
        read(path)


@pytest.mark.parametrize(
    "names", ["conv2d", [1, 2], [[b"a"]], 3.5, h5py.Empty("S1")], ids=lambda names: str(names)
)
def test_names_are_a_list_of_texts(path, names):
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = np.array(names) if isinstance(names, list) else names
    with (
        pytest.raises(InputError, match="layer_names of / is no list of names"),
        hdf5.opened(path, "weights_h5") as file,
    ):
        file.names("", "layer_names")


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="is no file"):
            read(path)


def test_damage_anywhere_is_told(path):
    whole, rng = path.read_bytes(), random.Random(0)
    told = 0
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3, 20])):
            data[rng.randrange(2000)] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            assert read(path).shape == (3, 3)
        except InputError:
            told += 1
    assert told > 20

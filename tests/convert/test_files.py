import json
import os
import zipfile

import numpy as np
import pytest
from foreign_files import pack, save_graph, save_torch
from safetensors.numpy import save_file

from jaxdeblur import convert
from jaxdeblur.convert import files
from jaxdeblur.errors import InputError

WEIGHT = np.ones(3, np.float32)


@pytest.fixture(autouse=True)
def readers(monkeypatch):
    """Replaces the readers of each network by what tells which file they were given."""
    monkeypatch.setattr(files, "from_nafnet", lambda path: ("nafnet", path))
    monkeypatch.setattr(files, "from_maxim", lambda path: ("maxim", path))
    monkeypatch.setattr(files, "from_keras", lambda *paths: ("keras", paths))


def save_keras(folder, name="net"):
    folder.mkdir(exist_ok=True)
    model_json, weights_h5 = folder / f"{name}.json", folder / f"{name}.weights.h5"
    model_json.write_text(json.dumps({"module": "keras", "class_name": "Functional"}))
    weights_h5.write_bytes(b"\x89HDF\r\n\x1a\n")
    return model_json, weights_h5


def test_files_are_known_by_what_is_inside(tmp_path):
    path = tmp_path / "weights"
    save_torch(path, {"weight": WEIGHT})
    assert convert.read(str(path)) == ("nafnet", path, "NAFNet, weights")
    save_file({"weight": WEIGHT}, path)
    assert convert.read(path) == ("nafnet", path, "NAFNet, weights")
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF")  # of an old PyTorch, which its reader tells
    assert convert.read(path) == ("nafnet", path, "NAFNet, weights")
    with path.open("wb") as file:
        np.savez(file, **{"opt/target/weight": WEIGHT})
    assert convert.read(path) == ("maxim", path, "MAXIM, weights")


def test_graph_models_are_known_packed_and_unpacked(tmp_path, monkeypatch):
    model = tmp_path / "package" / "models"
    save_graph(model, {("Conv_0", "bias"): WEIGHT})
    pack(model, tmp_path / "net")
    assert convert.read(tmp_path / "net") == ("maxim", tmp_path / "net", "MAXIM, net")
    assert convert.read(tmp_path) == ("maxim", tmp_path, f"MAXIM, {tmp_path.name}")
    assert convert.read(model) == ("maxim", model, "MAXIM, models")
    assert convert.read(model / "model.json") == ("maxim", model, "MAXIM, model.json")
    monkeypatch.chdir(model)
    assert convert.read(".")[2] == "MAXIM, models"


def test_keras_pair_is_found_from_either_file_and_the_folder(tmp_path):
    pair = save_keras(tmp_path, "model")
    (tmp_path / "log.json").write_text("{}")
    expected = ("keras", pair, "Keras, model.weights.h5")
    for path in (*pair, tmp_path):
        assert convert.read(path) == expected


def test_keras_file_needs_one_of_the_other_kind_beside_it(tmp_path):
    model_json, weights_h5 = save_keras(tmp_path)
    other_json, other_h5 = save_keras(tmp_path, "other")
    for path in (model_json, weights_h5, tmp_path):
        with pytest.raises(InputError, match=r"2 \.h5|2 \.json.*from_keras"):
            convert.read(path)
    other_h5.unlink()
    assert convert.read(other_json)[1] == (other_json, weights_h5)
    weights_h5.unlink()
    with pytest.raises(InputError, match=r"net\.json.* 0 \.h5 files"):
        convert.read(model_json)


def test_other_files_are_refused_with_the_kinds_that_can_be_read(tmp_path):
    path = tmp_path / "odd.pth"
    kinds = r"odd\.pth.*nothing that can be read: NafNet's \.pth .*MAXIM's .*Keras"
    for data in (b"", b"no weights", b"{}", b"\xff\xd8\xff\xe0" + b"{" * 99, b"\x89PNG\r\n"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=kinds):
            convert.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "no weights")
    with pytest.raises(InputError, match=kinds):
        convert.read(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="not a whole file of weights"):
        convert.read(path)
    path.unlink()
    with pytest.raises(InputError, match=r"odd\.pth.*cannot be read"):
        convert.read(path)
    path.mkdir()
    with pytest.raises(InputError, match=kinds):
        convert.read(path)


def test_a_keras_file_of_both_is_known(tmp_path):
    path = tmp_path / "net"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    assert convert.read(path) == ("keras", (path,), "Keras, net")


def test_pipes_and_devices_are_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(InputError, match="is no file; copy what it gives to one"):
            convert.read(path)

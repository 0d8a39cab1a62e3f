import functools
import json
import shutil
import struct
import warnings
import zipfile

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxdeblur import convert
from jaxdeblur.errors import InputError
from jaxdeblur.models import AtrousNet, CarloNet, KaistNet

pytestmark = pytest.mark.own_convolutions

# LLVM's optimisations take most of the time to compile.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

MODULES = {
    "carlo_net": CarloNet(num_filters=16),
    "atrous_net_image": AtrousNet(num_channels=32, num_blocks=2),
    "atrous_net_video": AtrousNet(num_channels=16, num_blocks=3),
    "kaist_net_image": KaistNet(num_blocks=1, num_inner_blocks=1),
    "kaist_net_video": KaistNet(num_blocks=1, num_inner_blocks=1),
}


@pytest.fixture(scope="session")
def parity(shared_data):
    folder = shared_data / "parity"
    if not folder.is_dir():
        pytest.skip(f"no Keras networks in {folder}")
    return folder


def files_of(parity, name):
    return parity / f"{name}.model.json", parity / f"{name}.weights.h5"


@pytest.mark.parametrize("name", MODULES)
def test_converted_network_gives_what_keras_gave(parity, name):
    module, params = convert.from_keras(*files_of(parity, name))
    assert module == MODULES[name]
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    with np.load(parity / f"{name}.npz") as arrays:
        blurred, expected = arrays["input"], arrays["output"]
    restored = np.asarray(quick_jit(module.apply)({"params": params}, blurred))
    assert restored.shape == expected.shape
    assert np.abs(restored - expected).max() <= 1e-4


def save_in_older_layout(model_json, weights_h5, path):
    """Writes the file that `save_weights("x.h5")` of Keras 2 makes of the same network."""
    layers = json.loads(model_json.read_text())["config"]["layers"]
    names = [layer["config"]["name"] for layer in layers]
    counts = {}
    with h5py.File(weights_h5) as new, h5py.File(path, "w") as old:
        old.attrs["layer_names"] = [name.encode() for name in names]
        old.attrs["backend"] = b"tensorflow"
        old.attrs["keras_version"] = b"2.4.0"
        for layer, name in zip(layers, names, strict=True):
            group = old.create_group(name)
            stem = {"Conv2D": "conv2d", "Conv2DTranspose": "conv2d_transpose"}.get(
                layer["class_name"]
            )
            if stem is None:
                group.attrs["weight_names"] = []
                continue
            count = counts[stem] = counts.get(stem, -1) + 1
            stored = new["layers"][f"{stem}_{count}" if count else stem]["vars"]
            group.attrs["weight_names"] = [f"{name}/{k}:0".encode() for k in ("kernel", "bias")]
            group[f"{name}/kernel:0"] = stored["0"][()]
            group[f"{name}/bias:0"] = stored["1"][()]


@pytest.mark.parametrize("name", ["carlo_net", "atrous_net_video", "kaist_net_image"])
def test_older_layout_gives_the_same_parameters(parity, tmp_path, name):
    model_json, weights_h5 = files_of(parity, name)
    save_in_older_layout(model_json, weights_h5, tmp_path / "old.h5")
    new_module, new = convert.from_keras(model_json, weights_h5)
    old_module, old = convert.from_keras(str(model_json), str(tmp_path / "old.h5"))
    assert old_module == new_module
    old, new = flatten_dict(old), flatten_dict(new)
    assert old.keys() == new.keys()
    for path in new:
        np.testing.assert_array_equal(old[path], new[path])


def test_missing_files_are_refused_by_name(parity, tmp_path):
    model_json, weights_h5 = files_of(parity, "carlo_net")
    with pytest.raises(InputError, match=r"nothing\.json"):
        convert.from_keras(tmp_path / "nothing.json", weights_h5)
    with pytest.raises(InputError, match=r"nothing\.h5"):
        convert.from_keras(model_json, tmp_path / "nothing.h5")


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "{}", '{"config": []}', '{"config": {"layers": [1]}}', "\x00"]
)
def test_json_of_something_else_is_refused_by_name(parity, tmp_path, text):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"odd\.json"):
        convert.from_keras(path, files_of(parity, "carlo_net")[1])


def test_binary_file_as_json_is_refused_by_name(parity):
    _, weights_h5 = files_of(parity, "carlo_net")
    with pytest.raises(InputError, match=r"carlo_net\.weights\.h5"):
        convert.from_keras(weights_h5, weights_h5)


def changed_model(parity, path, change, name="carlo_net"):
    model = json.loads(files_of(parity, name)[0].read_text())
    change(model["config"]["layers"])
    path.write_text(json.dumps(model))
    return path


@pytest.mark.parametrize("kept", ["InputLayer", "Add"])
def test_model_without_convolutions_is_none_of_the_networks(parity, tmp_path, kept):
    def change(layers):
        layers[:] = [layer for layer in layers if layer["class_name"] == kept]

    path = changed_model(parity, tmp_path / "odd.json", change)
    with pytest.raises(InputError, match=r"odd\.json.*none of CARLO_NET, KAIST_NET and ATROUS_NET"):
        convert.from_keras(path, files_of(parity, "carlo_net")[1])


def test_model_with_a_convolution_less_is_refused(parity, tmp_path):
    def change(layers):
        layers.remove(next(x for x in layers if x["class_name"] == "Conv2DTranspose"))

    path = changed_model(parity, tmp_path / "odd.json", change)
    with pytest.raises(InputError, match=r"odd\.json"):
        convert.from_keras(path, files_of(parity, "carlo_net")[1])


def test_text_as_weights_is_refused_by_name(parity, tmp_path):
    path = tmp_path / "text.h5"
    path.write_text("these are no weights")
    with pytest.raises(InputError, match=r"text\.h5"):
        convert.from_keras(files_of(parity, "carlo_net")[0], path)


def test_truncated_weights_are_refused_by_name(parity, tmp_path):
    model_json, weights_h5 = files_of(parity, "carlo_net")
    path = tmp_path / "cut.h5"
    path.write_bytes(weights_h5.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"cut\.h5"):
        convert.from_keras(model_json, path)


def test_damaged_block_inside_the_weights_is_refused_by_name(parity, tmp_path):
    model_json, weights_h5 = files_of(parity, "carlo_net")
    path = tmp_path / "damaged.h5"
    shutil.copy(weights_h5, path)
    path.chmod(0o600)
    with h5py.File(path, "a") as file:
        del file["layers"]["conv2d_3"]["vars"]["1"]
    with pytest.raises(InputError, match=r"damaged\.h5"):
        convert.from_keras(model_json, path)


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        ("carlo_net", "atrous_net_image"),
        ("atrous_net_image", "carlo_net"),
        ("atrous_net_image", "atrous_net_video"),
        ("atrous_net_video", "atrous_net_image"),
        ("kaist_net_image", "atrous_net_video"),
        ("carlo_net", "kaist_net_video"),
    ],
)
@pytest.mark.parametrize("layout", ["new", "old"])
def test_weights_of_another_network_are_refused_by_name(parity, tmp_path, model, weights, layout):
    path = tmp_path / "other.h5"
    if layout == "new":
        path.symlink_to(files_of(parity, weights)[1])
    else:
        save_in_older_layout(*files_of(parity, weights), path)
    with pytest.raises(InputError, match=r"other\.h5"):
        convert.from_keras(files_of(parity, model)[0], path)


def test_weights_of_the_video_network_set_the_number_of_channels(parity):
    # The JSON of image and video mode differ in more than the stem; its kernel tells the mode.
    for name, channels in (("kaist_net_image", 3), ("kaist_net_video", 9)):
        _, params = convert.from_keras(*files_of(parity, name))
        assert params["stem"]["kernel"].shape == (5, 5, channels, 32)


# Models of strangers, and both in one file.


def pack_keras(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def assert_equal_networks(a, b):
    assert a[0] == b[0]
    a, b = flatten_dict(a[1]), flatten_dict(b[1])
    assert a.keys() == b.keys()
    for place in a:
        np.testing.assert_array_equal(a[place], b[place])


@pytest.mark.parametrize("name", ["carlo_net", "kaist_net_video"])
def test_a_whole_model_in_one_file_is_read(parity, tmp_path, name):
    model_json, weights_h5 = files_of(parity, name)
    expected = convert.from_keras(model_json, weights_h5)
    members = [("metadata.json", "{}"), ("config.json", model_json.read_bytes())]
    archive = pack_keras(
        tmp_path / "net.keras", [*members, ("model.weights.h5", weights_h5.read_bytes())]
    )
    save_in_older_layout(model_json, weights_h5, tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5") as old, h5py.File(tmp_path / "whole.h5", "w") as whole:
        whole.attrs["model_config"] = model_json.read_text()
        old.copy(old["/"], whole, "model_weights")
    for path in (archive, tmp_path / "whole.h5"):
        assert_equal_networks(convert.from_keras(path), expected)
        module, params, source = convert.read(path)
        assert_equal_networks((module, params), expected)
        assert source == f"Keras, {path.name}"


def test_odd_archives_are_refused(parity, tmp_path):
    model_json, weights_h5 = files_of(parity, "carlo_net")
    config, stored = model_json.read_bytes(), weights_h5.read_bytes()
    path = tmp_path / "net.keras"
    zeros = b"\0" * (12 * len(stored))
    for members, compression, told in (
        ([("config.json", config)] * 2 + [("model.weights.h5", stored)], 0, "two members of one"),
        ([("config.json", config), ("model.weights.h5", stored + zeros)], 8, "would grow"),
        ([("config.json", config), ("model.weights.h5", stored)], 12, "compressed in a way"),
        ([("config.json", config), ("model.weights.h5", b"")], 0, "weights_h5 = .*net.keras"),
        ([("config.json", b"[" * 100_000), ("model.weights.h5", stored)], 0, "not the JSON"),
        ([("../config.json", config), ("../model.weights.h5", stored)], 0, "is no .keras file"),
        ([("config.json", config)], 0, "is no .keras file"),
    ):
        with warnings.catch_warnings(action="ignore"):  # of a name twice
            pack_keras(path, members, compression)
        with pytest.raises(InputError, match=told):
            convert.from_keras(path)
    # A member that says it were smaller than it is.
    pack_keras(path, [("config.json", config), ("model.weights.h5", stored + zeros)], 8)
    sizes = [struct.pack("<I", len(stored) + n) for n in (len(zeros), 0)]
    path.write_bytes(path.read_bytes().replace(*sizes))
    with pytest.raises(InputError, match="not a whole file of weights"):
        convert.from_keras(path)


def of_convolutions(**values):
    def change(layers):
        for layer in layers:
            if layer["class_name"] == "Conv2D":
                layer["config"].update(values)

    return change


def of_all(key, value):
    def change(layers):
        for layer in layers:
            layer[key] = value(layer) if callable(value) else value

    return change


@pytest.mark.parametrize(
    "change",
    [
        of_all("inbound_nodes", lambda layer: [[[layer["config"]["name"], 0, 0, {}]]]),
        of_all("inbound_nodes", lambda layer: json.loads("[" * 900 + "]" * 900)),
        of_all("inbound_nodes", None),
        of_all("class_name", ["Conv2D"]),
        of_all("config", 3),
        lambda layers: [layer["config"].update(name="same") for layer in layers],
        lambda layers: [layer["config"].update(name=["a"]) for layer in layers],
        of_convolutions(filters="many"),
        of_convolutions(filters=10**30),
        of_convolutions(filters=0),
        of_convolutions(filters=True),
        of_convolutions(dilation_rate=2),
        of_convolutions(dilation_rate=[]),
    ],
)
def test_damaged_layers_are_told_in_a_line(parity, tmp_path, change):
    """Also layers in a circle, which lead nowhere."""
    path = changed_model(parity, tmp_path / "odd.json", change, "kaist_net_image")
    with pytest.raises(InputError, match=r"odd\.json"):
        convert.from_keras(path, files_of(parity, "kaist_net_image")[1])


@pytest.mark.parametrize("shape", [(), (3,), (3, 3, 5, 16)])
def test_a_first_kernel_of_another_shape_is_told(parity, tmp_path, shape):
    model_json, weights_h5 = files_of(parity, "carlo_net")
    shutil.copy(weights_h5, tmp_path / "odd.h5")
    (tmp_path / "odd.h5").chmod(0o600)
    with h5py.File(tmp_path / "odd.h5", "a") as file:
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars/0"] = np.zeros(shape, np.float32)
    with pytest.raises(InputError, match=r"odd\.h5: the first kernel has shape"):
        convert.from_keras(model_json, tmp_path / "odd.h5")

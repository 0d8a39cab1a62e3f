import functools
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from jaxdeblur import catalogue, convert, weights
from jaxdeblur.errors import InputError
from jaxdeblur.evaluation import tables
from jaxdeblur.models import create_model
from jaxdeblur.weights import Deblurrer

pytestmark = pytest.mark.own_convolutions

FIELDS = {"num_channels": 4, "num_blocks": 1}


def make(channels=3, random=True, **fields):
    """A small network; without random parameters, one that gives back the current frame."""
    module = create_model("atrous_net", **FIELDS, **fields)
    x = jax.ShapeDtypeStruct((1, 4, 4, channels), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda s: jnp.asarray(random * 0.2 * rng.normal(size=s.shape), s.dtype), shapes
    )
    card = {"channels": channels, "trained_on": "nothing", "seed": 7}
    return Deblurrer(module, variables.pop("params"), card, variables)


def assert_equal_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def deblurrer():
    return make()


@pytest.mark.parametrize("fields", [{}, {"batch_norm": True}], ids=["plain", "batch_norm"])
def test_saved_network_is_loaded_bit_for_bit(tmp_path, fields):
    saved = make(**fields)
    weights.save(tmp_path / "net.safetensors", saved)
    loaded = weights.load(tmp_path / "net.safetensors")
    assert loaded.module == saved.module
    assert bool(loaded.model_state) == bool(fields)
    assert_equal_trees(dict(loaded.params), dict(saved.params))
    assert_equal_trees(dict(loaded.model_state), dict(saved.model_state))
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_card_is_kept_and_names_the_network(tmp_path, deblurrer):
    weights.save(str(tmp_path / "net.safetensors"), deblurrer)
    card = weights.load(str(tmp_path / "net.safetensors")).card
    assert card | deblurrer.card == card
    assert card["model"] == "atrous_net"
    assert card["model_kwargs"] | FIELDS == card["model_kwargs"]


def test_file_is_plain_safetensors_with_the_parameters_paths(tmp_path, deblurrer):
    weights.save(tmp_path / "net.safetensors", deblurrer)
    arrays = safetensors.numpy.load_file(tmp_path / "net.safetensors")
    kernel = arrays["params/block_0/dilated_3/kernel"]
    np.testing.assert_array_equal(kernel, deblurrer.params["block_0"]["dilated_3"]["kernel"])


def test_saving_replaces_an_older_file(tmp_path, deblurrer):
    path = tmp_path / "net.safetensors"
    weights.save(path, make(random=False))
    weights.save(path, deblurrer)
    assert_equal_trees(dict(weights.load(path).params), dict(deblurrer.params))


def test_every_grey_level_is_rounded_not_truncated():
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], np.roll(levels, 9)], axis=-1).reshape(16, 16, 3)
    deblurrer = make(random=False)
    restored = deblurrer(image)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, image)

    shifts = np.array([0.4, 0.6, -0.6], np.float32) / 255
    deblurrer.params["difference"]["bias"] = jnp.asarray(shifts)
    expected = np.clip(image.astype(int) + np.array([0, 1, -1]), 0, 255)
    np.testing.assert_array_equal(deblurrer(image), expected)


def test_float_images_are_clipped_and_not_rounded():
    deblurrer = make(random=False)
    deblurrer.params["difference"]["bias"] = jnp.array([0.001, 2.0, -2.0])
    image = np.random.default_rng(0).uniform(0, 0.9, (4, 6, 3)).astype(np.float32)
    restored = deblurrer(image)
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored[..., 0], image[..., 0] + 0.001, atol=1e-6)
    assert (restored[..., 1] == 1).all()
    assert (restored[..., 2] == 0).all()


@pytest.mark.parametrize("shape", [(256, 256, 3), (2, 4, 6, 3)])
def test_restored_is_what_the_module_gives(deblurrer, shape):
    blurred = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    apply = functools.partial(deblurrer.module.apply, {"params": deblurrer.params})
    expected = np.clip(jax.jit(apply)(blurred.reshape(-1, *shape[-3:])), 0, 1)
    restored = deblurrer(blurred)
    assert restored.shape == shape
    np.testing.assert_allclose(restored, expected.reshape(shape), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_numpy_gives_numpy_and_jax_gives_jax(deblurrer, dtype):
    blurred = np.ones((4, 6, 3), dtype)
    from_numpy, from_jax = deblurrer(blurred), deblurrer(jnp.asarray(blurred))
    assert type(from_numpy) is np.ndarray
    assert isinstance(from_jax, jax.Array)
    assert from_numpy.dtype == from_jax.dtype == dtype
    np.testing.assert_array_equal(from_numpy, from_jax)


def test_video_network_takes_nine_channels_and_gives_three():
    video = make(channels=9, random=False)
    frames = np.random.default_rng(0).integers(0, 256, (4, 4, 9), np.uint8)
    np.testing.assert_array_equal(video(frames), frames[..., 3:6])
    np.testing.assert_array_equal(video(frames[..., :3]), frames[..., :3])  # a clip of one frame
    with pytest.raises(InputError, match=r"\(4, 4, 6\).*C = 3 or 9"):
        video(frames[..., :6])


@pytest.mark.parametrize(
    ("blurred", "message"),
    [
        (np.zeros((4, 4), np.float32), r"\(4, 4\).*C = 3"),
        (np.zeros((1, 1, 4, 4, 3), np.float32), r"\(1, 1, 4, 4, 3\)"),
        (np.zeros((4, 4, 9), np.float32), r"\(4, 4, 9\).*C = 3"),
        (np.zeros((4, 4, 3), np.int32), "type int32.*uint8"),
        (np.zeros((4, 4, 3), bool), "type bool.*uint8"),
    ],
    ids=["no channels", "rank 5", "nine channels", "int32", "bool"],
)
def test_wrong_images_are_refused(deblurrer, blurred, message):
    with pytest.raises(InputError, match=message):
        deblurrer(blurred)


@pytest.mark.parametrize("keep", [0, 5, 200, -1], ids=["empty", "length", "header", "last byte"])
def test_truncated_file_is_refused_by_name(tmp_path, deblurrer, keep):
    path = tmp_path / "cut.safetensors"
    weights.save(path, deblurrer)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"cut\.safetensors"):
        weights.load(path)


def test_text_file_is_refused_by_name(tmp_path):
    path = tmp_path / "notes.safetensors"
    path.write_text("not weights at all, but a text of more than eight bytes")
    with pytest.raises(InputError, match=r"notes\.safetensors"):
        weights.load(path)


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}], ids=["no metadata", "other metadata"]
)
def test_safetensors_file_of_no_known_network_is_refused_by_name(tmp_path, metadata):
    path = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"params/x": np.zeros(3, np.float32)}, path, metadata)
    with pytest.raises(InputError, match=r"foreign\.safetensors.* no network that is known"):
        weights.load(path)


@pytest.mark.parametrize(
    "metadata",
    [
        {"card": "no json"},
        {"card": "[]"},
        {"card": "{}"},
        {"card": json.dumps({"model": "atrous_net", "channels": 3})},
    ],
    ids=["no json", "a list", "empty", "no fields"],
)
def test_file_without_a_whole_card_is_refused_by_name(tmp_path, metadata):
    path = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"params/x": np.zeros(3, np.float32)}, path, metadata)
    with pytest.raises(InputError, match=r"foreign\.safetensors.*card"):
        weights.load(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.safetensors", "no weights file, workdir or checkpoint"),
        ("empty", r"empty' is nothing that can be read: NafNet's \.pth"),
        ("checkpoints", r"checkpoints' is nothing that can be read"),
    ],
)
def test_what_is_no_weights_is_refused_by_name(tmp_path, name, message):
    for folder in ("empty", "checkpoints"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match=message):
        weights.load(tmp_path / name)


def test_saving_into_a_missing_folder_is_refused_and_makes_nothing(tmp_path, deblurrer):
    with pytest.raises(InputError, match=r"net\.safetensors: its folder does not exist"):
        weights.save(tmp_path / "missing" / "net.safetensors", deblurrer)
    assert not list(tmp_path.iterdir())


def test_failed_save_keeps_the_older_file_and_leaves_no_partial_one(
    tmp_path, deblurrer, monkeypatch
):
    path = tmp_path / "net.safetensors"
    weights.save(path, deblurrer)
    before = path.read_bytes()

    def full_disk(file, data):
        with file.open("wb") as opened:
            opened.write(data[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(InputError, match="No space left"):
        weights.save(path, make(random=False))
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]
    assert path.read_bytes() == before


@pytest.fixture
def shop(tmp_path, monkeypatch, deblurrer):
    """A folder of shipped weights with one card."""
    path = tmp_path / "atrous-test.safetensors"
    weights.save(path, deblurrer)
    card = {"summary": "of a test", "limits": {"change": 1}}
    card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "atrous-test.json").write_text(json.dumps(card))
    monkeypatch.setattr(weights, "_SHIPPED", tmp_path)
    return tmp_path


def test_shipped_weights_are_loaded_by_name(shop, deblurrer):
    loaded = weights.load("atrous-test")
    assert_equal_trees(dict(loaded.params), dict(deblurrer.params))
    assert loaded.card["name"] == "atrous-test"
    assert loaded.card["limits"] == {"change": 1}
    assert loaded.card["channels"] == 3
    assert list(weights.shipped()) == ["atrous-test"]
    with pytest.raises(InputError, match="did you mean 'atrous-test'"):
        weights.load("atrous-tset")


def test_damaged_shipped_weights_are_refused(shop):
    path = shop / "atrous-test.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"atrous-test.safetensors' is damaged.*sha256"):
        weights.load("atrous-test")
    path.unlink()
    with pytest.raises(InputError, match="'atrous-test' are missing"):
        weights.load("atrous-test")


def test_arithmetic_in_another_type(tmp_path, deblurrer):
    weights.save(tmp_path / "net.safetensors", deblurrer)
    half = weights.load(tmp_path / "net.safetensors", dtype="bfloat16")
    assert half.module.dtype == jnp.bfloat16
    picture = np.random.default_rng(0).random((16, 16, 3), np.float32)
    error = np.abs(half(picture) - deblurrer(picture)).mean()
    assert 0 < error < 0.05 * np.abs(deblurrer(picture) - picture).mean()


# Weights of others.


def half_of(path, folder):
    data = path.read_bytes()
    half = folder / path.name
    half.write_bytes(data[: len(data) // 2])
    return half


def test_weights_of_nafnet_are_loaded_as_they_are_and_saved(parity, tmp_path):
    source = parity / "nafnet.pth"
    loaded = weights.load(str(source), dtype="bfloat16")
    module, params = convert.from_nafnet(source)
    assert loaded.module == module.clone(dtype=jnp.dtype("bfloat16"))
    assert_equal_trees(dict(loaded.params), dict(params))
    assert loaded.card == {"channels": 3, "source": "NAFNet, nafnet.pth"}
    weights.save(tmp_path / "net.safetensors", loaded)
    again = weights.load(tmp_path / "net.safetensors")
    assert again.module == module  # the arithmetic's type is no part of a file
    assert again.card == loaded.card | {
        "model": "nafnet",
        "model_kwargs": again.card["model_kwargs"],
    }
    assert_equal_trees(dict(again.params), dict(params))
    picture = np.random.default_rng(0).random((21, 34, 3), np.float32)
    padded = np.pad(picture, ((0, 3), (0, 2), (0, 0)), mode="reflect")[None]
    expected = np.clip(jax.jit(module.apply)({"params": params}, padded)[0, :21, :34], 0, 1)
    assert np.abs(expected - picture).max() > 0.01
    np.testing.assert_allclose(again(picture), expected, atol=1e-5)
    with pytest.raises(InputError, match=r"nafnet\.pth"):
        weights.load(half_of(source, tmp_path))
    with pytest.raises(InputError, match=r"effort = 1 is for networks in .*; NafNet has none"):
        weights.load(source, effort=1)


def test_weights_of_maxim_are_loaded_with_an_effort_that_no_file_keeps(parity, tmp_path):
    source = parity / "maxim.checkpoint.npz"
    loaded = weights.load(source, effort=1)
    assert (loaded.module.effort, loaded.module.num_stages) == (1, 2)
    assert loaded.card == {"channels": 3, "source": "MAXIM, maxim.checkpoint.npz"}
    with np.load(source) as arrays:
        for place, array in flatten_dict(loaded.params, sep="/").items():
            np.testing.assert_array_equal(array, arrays[f"opt/target/{place}"])
    weights.save(tmp_path / "net.safetensors", loaded)
    again = weights.load(tmp_path / "net.safetensors")
    assert again.module.effort is None
    assert_equal_trees(dict(again.params), dict(loaded.params))
    assert weights.load(tmp_path / "net.safetensors", effort=2).module.effort == 2
    for effort in (0, 3):
        with pytest.raises(InputError, match=f"effort = {effort} must be from 1 to 2, the network"):
            weights.load(tmp_path / "net.safetensors", effort=effort)
    with pytest.raises(InputError, match=r"maxim\.checkpoint\.npz.*not a whole file"):
        weights.load(half_of(source, tmp_path))


@pytest.mark.parametrize("name", ["net.pth", "net.npz", "net.tgz", "net", "net.safetensors"])
def test_whatever_is_no_file_of_ours_is_asked_of_the_readers(
    tmp_path, deblurrer, monkeypatch, name
):
    """Files and folders; a safetensors file without a card is one of others too."""
    path = tmp_path / name
    if name == "net":
        path.mkdir()
    elif name == "net.safetensors":
        safetensors.numpy.save_file({"intro.weight": np.zeros(3, np.float32)}, path)
    else:
        path.write_bytes(b"whatever")

    def read(given):
        return deblurrer.module, deblurrer.params, f"read from {given.name}"

    monkeypatch.setattr(convert, "read", read)
    loaded = weights.load(path)
    assert loaded.card == {"channels": 3, "source": f"read from {name}"}
    assert_equal_trees(dict(loaded.params), dict(deblurrer.params))


def test_fetched_weights_are_loaded_by_name(tmp_path, deblurrer, monkeypatch):
    monkeypatch.setenv(catalogue.SWITCH, str(tmp_path))
    with pytest.raises(InputError, match=r"'maxim-gopro' is not here.*`jaxdeblur fetch maxim-"):
        weights.load("maxim-gopro")
    with pytest.raises(InputError, match=r"'maxim-gpro' is no .* did you mean 'maxim-gopro'"):
        weights.load("maxim-gpro")
    weights.save(catalogue.path("maxim-gopro"), deblurrer)
    assert_equal_trees(dict(weights.load("maxim-gopro").params), dict(deblurrer.params))
    with pytest.raises(InputError, match="effort = 1 is for networks in stages"):
        weights.load("maxim-gopro", effort=1)  # which this one is not, whatever its name


def test_a_half_file_of_ours_is_told_as_such(tmp_path, deblurrer):
    path = tmp_path / "whole" / "net.safetensors"
    path.parent.mkdir()
    weights.save(path, deblurrer)
    with pytest.raises(InputError, match=r"net\.safetensors' is not a whole safetensors file"):
        weights.load(half_of(path, tmp_path))


@pytest.mark.parametrize("name", weights.shipped())
def test_every_shipped_card_is_whole(name):
    loaded = weights.load(name)
    for key in ("summary", "data", "recipe", "hardware", "figures", "licence", "command", "limits"):
        assert loaded.card[key], key
    assert set(loaded.card["limits"]) == {"change", "overshoot", "colour_shift"}


@pytest.mark.parametrize("name", weights.shipped())
def test_every_card_has_the_figures_of_the_tables_and_the_log_of_its_run(name):
    card = weights.load(name).card
    root = Path(__file__).parents[1]
    rows = [row for path in (root / "results").glob("*.csv") for row in tables.read(path)]
    whole = [row for row in rows if row.weights == name and row.part is None]
    assert len(whole) == len(card["figures"])
    for row in whole:
        (figures,) = (
            figures
            for figures in card["figures"]
            if (figures["data"], figures["protocol"]) == (row.data, row.protocol.split("; ")[0])
        )
        assert all(value == getattr(row, key) for key, value in list(figures.items())[2:])
    config = json.loads((root / card["log"] / "config.json").read_text())
    assert config["model"] == card["model"]
    assert config["seed"] == card["seed"]
    assert {config.get(key, "") for key in ("data_dir", "photo_dir", "camera_response")} <= {
        "",
        "DIR",
    }
    assert card["model_kwargs"] == card["model_kwargs"] | config["model_kwargs"]
    lines = (root / card["log"] / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == config["num_steps"]


def test_all_shipped_weights_are_at_most_40_megabytes():
    folder = Path(weights.__file__).parent / "pretrained"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 40e6

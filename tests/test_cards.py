"""Cards of weights files, as strangers may have written them."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxdeblur import cards, weights
from jaxdeblur.errors import InputError

CARD = {"model": "atrous_net", "model_kwargs": {"num_blocks": 1}, "channels": 3}


def test_a_whole_card_is_read_as_it_is():
    card = {**CARD, "limits": {"change": 0.2, "overshoot": 1}, "scales": [2, 4], "note": [{}]}
    assert cards.read(json.dumps(card), "x") == card


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "3",
        "{}",
        json.dumps({"model": "atrous_net"}),
        "[" * 10**5,
        '{"a":' * 9999,
    ],
    ids=lambda text: text[:9],
)
def test_what_is_no_card_is_refused(text):
    with pytest.raises(InputError, match="'x' has no card; write weights with jaxdeblur"):
        cards.read(text, "x")


@pytest.mark.parametrize(
    ("key", "value", "due"),
    [
        ("model", 3, "the name of a network"),
        ("model", ["atrous_net"], "the name of a network"),
        ("model_kwargs", [1], "an object of fields"),
        ("model_kwargs", None, "an object of fields"),
        ("channels", "3", "3 or 9"),
        ("channels", 4, "3 or 9"),
        ("channels", 3.0, "3 or 9"),
        ("channels", True, "3 or 9"),
        ("limits", 5, "an object of numbers"),
        ("limits", {"change": "big"}, "an object of numbers"),
        ("limits", {"change": float("nan")}, "an object of numbers"),
        ("scales", 4, "a list of whole numbers above 1"),
        ("scales", [1], "a list of whole numbers above 1"),
        ("scales", ["4"], "a list of whole numbers above 1"),
    ],
)
def test_wrong_types_are_named(key, value, due):
    with pytest.raises(InputError, match=rf"'x': {key} = .* of its card must be {due}"):
        cards.read(json.dumps({**CARD, key: value}), "x")


def written(folder, arrays, **changes):
    path = folder / "weights.safetensors"
    save_file(arrays, path, {"card": json.dumps({**CARD, **changes})})
    return path


FLOATS = {"params/a/kernel": np.ones((3, 3), np.float32)}


@pytest.mark.parametrize(
    ("arrays", "changes", "message"),
    [
        ({"params/a": np.ones(3, np.int32)}, {}, "the tensor params/a has type int32, no float"),
        ({"params/a": np.ones(3, bool)}, {}, "the tensor params/a has type bool, no float"),
        (
            FLOATS | {"params/a": np.ones(3, np.float32)},
            {},
            "params/a is a tensor, and params/a/kernel lies in it",
        ),
        ({"other/a": np.ones(3, np.float32)}, {}, "holds no parameters"),
        (
            FLOATS,
            {"model_kwargs": {"num_blocks": 200_000}},
            "num_blocks = 200000 of its card is more than its 1 tensors",
        ),
        (
            FLOATS,
            {"model": "nafnet", "model_kwargs": {"encoder_blocks": [1, 10**9]}},
            r"encoder_blocks = \[1, 1000000000\] of its card is more than its 1 tensors",
        ),
        (FLOATS, {"model": "nonsense"}, "'nonsense' is unknown"),
        (FLOATS, {}, "the two do not belong together"),
    ],
)
def test_tensors_that_no_network_has_are_refused_before_one_is_made(
    tmp_path, arrays, changes, message
):
    with pytest.raises(InputError, match=message):
        weights.load(written(tmp_path, arrays, **changes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "nonsense"}, "dtype = 'nonsense' must be a floating type"),
        ({"dtype": "int8"}, "dtype = 'int8' must be a floating type"),
        ({"dtype": 7}, "dtype = 7 must be a floating type"),
    ],
)
def test_wrong_options_of_load_are_named(options, message):
    with pytest.raises(InputError, match=message):
        weights.load("atrous-cifar", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": None}, "strength = None must be between 0 and 1"),
        ({"strength": "1"}, "strength = '1' must be between 0 and 1"),
        ({"scales": 5}, "scales = 5 must be whole numbers above 1"),
    ],
)
def test_wrong_options_of_a_call_are_named(options, message):
    deblur = weights.load("atrous-cifar")
    with pytest.raises(InputError, match=message):
        deblur(np.zeros((8, 8, 3), np.float32), **options)

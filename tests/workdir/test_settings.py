import json

import pytest

from jaxdeblur.configs import atrous_cifar
from jaxdeblur.errors import InputError
from jaxdeblur.workdir import settings


def test_workdir_is_claimed_once(tmp_path):
    config = atrous_cifar.get_config()
    settings.check(tmp_path / "run", config.to_dict())
    assert not (tmp_path / "run").exists()
    settings.claim(tmp_path / "run", config.to_dict())
    file = tmp_path / "run" / "config.json"
    assert json.loads(file.read_text())["batch_size"] == 32
    settings.check(tmp_path / "run", config.to_dict())
    config.data_dir = "elsewhere"
    config.shard_state = True
    config.effort, config.tile = 1, "off"  # of evaluations alone
    settings.check(tmp_path / "run", config.to_dict())
    before = file.read_bytes()
    settings.claim(tmp_path / "run", config.to_dict())
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value"), [("model_kwargs", {"num_blocks": 2}), ("grad_accum_steps", 2), ("seed", 1)]
)
def test_what_changes_the_parameters_must_stay_in_a_workdir(tmp_path, key, value):
    config = atrous_cifar.get_config()
    settings.claim(tmp_path, config.to_dict())
    with config.unlocked():
        config[key] = value
    with pytest.raises(InputError, match=rf"holds a run with config.{key} = .* another --workdir"):
        settings.check(tmp_path, config.to_dict())


def test_tuples_are_the_lists_that_a_file_has_of_them(tmp_path):
    config = atrous_cifar.get_config()
    with config.unlocked():
        config.model_kwargs = {"encoder_blocks": (1, 2)}
    settings.claim(tmp_path, config.to_dict())
    settings.check(tmp_path, config.to_dict())
    config.model_kwargs.encoder_blocks = (1, 3)
    with pytest.raises(InputError, match=r"\{'encoder_blocks': \[1, 2\]\}, not .*\[1, 3\]"):
        settings.check(tmp_path, config.to_dict())


def test_a_damaged_or_missing_config_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        settings.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        settings.read(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="is damaged"):
        settings.read(tmp_path)


ODD_JSON = {
    "empty": b"",
    "number": b"1",
    "null": b"null",
    "NaN": b"NaN",
    "binary": b"\xff\xfe\x00",
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "long number": b'{"a":' + b"9" * 6000 + b"}",
}


@pytest.mark.parametrize("content", ODD_JSON.values(), ids=ODD_JSON)
def test_whatever_the_files_hold_is_told_in_a_line(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "data.json").write_bytes(content)
    for call in (
        lambda: settings.read(tmp_path),
        lambda: settings.check(tmp_path, {"seed": 1}),
        lambda: settings.begun_with(tmp_path),
    ):
        with pytest.raises(InputError, match=r"(config|data)\.json is damaged"):
            call()


def test_folders_and_unreadable_places_are_told(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        settings.check(tmp_path, {})
    (tmp_path / "file").write_text("")
    for place in ("file", "file/run"):
        with pytest.raises(InputError, match=r"file(/run)?' cannot be written .*file is no folder"):
            settings.check(tmp_path / place, {})
    with pytest.raises(InputError, match="file' cannot be written"):
        settings.claim(tmp_path / "file", {})


def test_a_place_that_may_not_be_written_is_told_first(tmp_path, somebody_else):
    (tmp_path / "place").mkdir(mode=0o555)
    with somebody_else():
        for workdir in (tmp_path / "place", tmp_path / "place" / "a" / "b"):
            with pytest.raises(InputError, match=r"cannot be written \(no permission to write"):
                settings.check(workdir, {})


@pytest.mark.parametrize(
    "content",
    [{}, {"num_steps": 3}, {"num_steps": True, "data": {}}, {"num_steps": 0, "data": {}},
     {"num_steps": 2**31, "data": {}}, {"num_steps": 3, "data": [1]}],
)  # fmt: skip
def test_what_a_run_began_with_is_checked(tmp_path, content):
    assert settings.begun_with(tmp_path) is None
    (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"data\.json is damaged; remove it"):
        settings.begun_with(tmp_path)


def test_what_a_run_began_with_is_noted_once(tmp_path):
    settings.note_data(tmp_path, 7, {"train": 1})
    settings.note_data(tmp_path, 9, {"train": 2})
    assert json.loads((tmp_path / "data.json").read_text()) == {
        "num_steps": 7,
        "data": {"train": 1},
    }
    assert settings.begun_with(tmp_path) == {"num_steps": 7, "data": {"train": 1}}

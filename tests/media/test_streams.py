"""Photographs through pipes and standard input, with bounds."""

import io
import os
import threading
import time

import pillow_heif
import pytest
from PIL import Image

from jaxdeblur.errors import InputError
from jaxdeblur.media import photo, streams

pillow_heif.register_heif_opener()


def encoded(suffix):
    file = io.BytesIO()
    kind = {**Image.registered_extensions(), ".jfif": "JPEG", ".hif": "HEIF", ".mpo": "JPEG"}
    Image.new("RGB", (16, 16)).save(file, kind[suffix])
    return file.getvalue()


@pytest.mark.parametrize("suffix", [*photo.SUFFIXES, ".gif"])
def test_the_beginning_of_every_format_is_known(suffix):
    data = encoded(suffix)
    assert streams.read(io.BytesIO(data), "x") == data


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"text", b"%PDF-1.4", b"\xff", b"ftyp"])
def test_what_begins_as_no_photograph_is_refused_without_reading_on(data):
    file = io.BytesIO(data)
    with pytest.raises(InputError, match="x: is "):
        streams.read(file, "x")
    assert file.tell() <= 8


def test_what_has_no_end_is_refused(monkeypatch):
    monkeypatch.setattr(streams, "LIMIT", 3 << 20)

    class Endless(io.RawIOBase):
        given = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = (b"\x89PNG" * (len(buffer) // 4 + 1))[: len(buffer)]
            self.given += len(buffer)
            return len(buffer)

    file = Endless()
    with pytest.raises(InputError, match="x: has more than 0 GiB; give it as a file"):
        streams.read(io.BufferedReader(file), "x")
    assert file.given <= 5 << 20


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_pipe_is_read_to_its_end_however_slowly_it_comes(pipe, monkeypatch):
    monkeypatch.setattr(streams, "_PATIENCE", 0.5)  # until somebody opens it to write
    data = encoded(".png") * 1000

    def write():
        with pipe.open("wb", buffering=0) as file:
            time.sleep(0.8)  # before the first byte
            file.write(data[:1])
            time.sleep(0.2)
            file.write(data[1:])

    writer = threading.Thread(target=write)
    writer.start()
    assert streams.read_pipe(pipe, "x") == data
    writer.join()


def test_a_pipe_into_which_nobody_writes_is_given_up(pipe, monkeypatch):
    monkeypatch.setattr(streams, "_PATIENCE", 0.3)
    with pytest.raises(InputError, match="x: is a pipe into which nothing writes"):
        streams.read_pipe(pipe, "x")
    with pytest.raises(InputError, match="is a pipe into which nothing writes"):
        photo.read(pipe)


def test_a_pipe_that_ends_without_a_byte_is_empty():
    read, write = os.pipe()
    os.close(write)
    with pytest.raises(InputError, match="x: is empty"):
        streams.read_pipe(f"/dev/fd/{read}", "x")
    os.close(read)

"""Stores of real files, read back by the package and by zarr-python."""

import contextlib
import functools
import http.server
import json
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import zarr
from PIL import Image

from jaxdeblur.data.clips import store as frame_store
from jaxdeblur.data.clips import storing
from jaxdeblur.data.clips.folders import open_folder
from jaxdeblur.data.clips.frames import Part, Window
from jaxdeblur.errors import InputError

SIZES = {"000": (70, 130), "001": (64, 64)}  # not all multiples of the squares


def frame(clip, kind, number, seed=0):
    values = [int(clip), kind == "sharp", number, seed]
    return np.random.default_rng(values).integers(0, 256, (*SIZES[clip], 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two clips of 10 and 1 frames."""
    for clip, count in (("000", 10), ("001", 1)):
        for kind in ("blur", "sharp"):
            (tmp_path / f"train_{kind}" / clip).mkdir(parents=True)
            for number in range(count):
                file = tmp_path / f"train_{kind}" / clip / f"{number:08}.png"
                Image.fromarray(frame(clip, kind, number)).save(file)
    return tmp_path


@pytest.fixture
def store(folder, tmp_path):
    storing.write(open_folder(folder, "blur"), tmp_path / "store", "blur")
    return tmp_path / "store"


def read(store, clip, number, kind, window=None):
    clips = frame_store.open_store(store, "blur").clips
    window = window or Window(0, 0, *clips[clip].size)
    return frame_store.StoreReader(store, clips)([Part(clip, number, kind, window)])[0]


def test_every_frame_comes_back_bit_for_bit(store):
    clips = frame_store.open_store(store, "blur").clips
    assert [(c.split, c.name, len(c.frames), c.size) for c in clips] == [
        ("train", "000", 10, (70, 130)),
        ("train", "001", 1, (64, 64)),
    ]
    for number in range(10):
        for kind, name in (("blurred", "blur"), ("sharp", "sharp")):
            np.testing.assert_array_equal(read(store, 0, number, kind), frame("000", name, number))
    np.testing.assert_array_equal(read(store, 1, 0, "sharp"), frame("001", "sharp", 0))


def test_a_window_is_that_part_of_the_frame(store):
    part = read(store, 0, 7, "blurred", Window(33, 60, 31, 70))
    np.testing.assert_array_equal(part, frame("000", "blur", 7)[33:64, 60:130])


def test_black_frames_are_stored_too(folder, tmp_path):
    Image.new("RGB", (64, 64)).save(folder / "train_blur/001/00000000.png")
    storing.write(open_folder(folder, "blur"), tmp_path / "store", "blur")
    assert not read(tmp_path / "store", 1, 0, "blurred").any()


def test_any_reader_of_zarr_opens_it(store):
    metadata = json.loads((store / "train/000/zarr.json").read_text())
    assert (metadata["zarr_format"], metadata["shape"]) == (3, [2, 10, 70, 130, 3])
    array = zarr.open_array(store / "train/000", mode="r")
    np.testing.assert_array_equal(array[1, 3], frame("000", "sharp", 3))


@pytest.mark.parametrize("name", ["c", "zarr.json"])
def test_a_damaged_store_is_an_error_and_not_black(store, name):
    (store / "train/000" / name).rename(store / "gone")
    with pytest.raises(InputError, match=r"store .* cannot be read"):
        read(store, 0, 0, "sharp")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}', "nonsense"])
def test_a_damaged_index_is_an_error(store, text):
    (store / "index.json").write_text(text)
    with pytest.raises(InputError, match=r"index\.json is no index of frames"):
        frame_store.open_store(store, "blur")


def test_names_may_hold_any_letters(folder, tmp_path):
    for kind in ("blur", "sharp"):
        (folder / f"train_{kind}" / "001").rename(folder / f"train_{kind}" / "a #1, 50% ü?")
    store = tmp_path / "100% my clips #2"
    storing.write(open_folder(folder, "blur"), store, "blur")
    names = [clip.name for clip in frame_store.open_store(store, "blur").clips]
    number = names.index("a #1, 50% ü?")
    np.testing.assert_array_equal(read(store, number, 0, "sharp"), frame("001", "sharp", 0))
    with serving(tmp_path) as address:
        store = f"{address}/100%25%20my%20clips%20%232"
        np.testing.assert_array_equal(read(store, number, 0, "sharp"), frame("001", "sharp", 0))


def test_another_variant_is_an_error(store):
    with pytest.raises(InputError, match="'blur' frames, not 'blur_jpeg'"):
        frame_store.open_store(store, "blur_jpeg")


def test_a_folder_of_other_files_is_left_alone(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="other holds other files"):
        storing.write(open_folder(folder, "blur"), other, "blur")
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_clips_that_changed_are_not_mixed_with_stored_ones(folder, store):
    for kind in ("blur", "sharp"):
        (folder / f"train_{kind}/000/00000009.png").unlink()
    with pytest.raises(InputError, match="another train/000"):
        storing.write(open_folder(folder, "blur"), store, "blur")


def test_a_damaged_frame_is_named_and_the_clips_before_it_stay(folder, tmp_path):
    damaged = folder / "train_sharp/001/00000000.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"001/00000000\.png is damaged"):
        storing.write(open_folder(folder, "blur"), tmp_path / "store", "blur")
    assert [clip.name for clip in frame_store.open_store(tmp_path / "store", "blur").clips] == [
        "000"
    ]
    damaged.write_bytes(whole)
    before = (tmp_path / "store/train/000/zarr.json").stat().st_mtime_ns
    storing.write(open_folder(folder, "blur"), tmp_path / "store", "blur")
    np.testing.assert_array_equal(read(tmp_path / "store", 1, 0, "sharp"), frame("001", "sharp", 0))
    assert (tmp_path / "store/train/000/zarr.json").stat().st_mtime_ns == before


WRITE = """
import resource, signal, sys
from jaxdeblur.data.clips import store as frame_store
from jaxdeblur.data.clips import storing
from jaxdeblur.data.clips.folders import open_folder
from jaxdeblur.errors import reported
folder, store, most = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), resource.RLIM_INFINITY))
with reported():
    storing.write(open_folder(folder, "blur"), store, "blur")
"""


def test_a_full_disk_leaves_whole_clips_and_the_same_call_goes_on(folder, tmp_path):
    # No file may grow beyond 100 kB: enough for the small clip, not for the large one.
    for kind in ("blur", "sharp"):
        (folder / f"train_{kind}/000").rename(folder / f"train_{kind}/002")
    store = tmp_path / "store"
    command = [sys.executable, "-c", WRITE, folder, store]
    run = subprocess.run([*command, "100000"], capture_output=True, text=True)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error:")
    assert "train/002: cannot be written" in line
    assert [clip.name for clip in frame_store.open_store(store, "blur").clips] == ["001"]
    np.testing.assert_array_equal(read(store, 0, 0, "sharp"), frame("001", "sharp", 0))
    subprocess.run([*command, str(resource.RLIM_INFINITY)], check=True)
    assert [clip.name for clip in frame_store.open_store(store, "blur").clips] == ["001", "002"]
    np.testing.assert_array_equal(read(store, 1, 9, "blurred"), frame("000", "blur", 9))


SLOWLY = """
import time
read_frame = storing.read_frame
def slowly(*arguments, **options):
    time.sleep(0.2)
    return read_frame(*arguments, **options)
storing.read_frame = slowly
"""


def test_a_killed_run_is_gone_on_with(folder, tmp_path):
    store = tmp_path / "store"
    # The first clip is large enough to be killed in: its folder is there, its entry is not.
    slow = WRITE.replace("with reported", SLOWLY + "with reported")
    process = subprocess.Popen([sys.executable, "-c", slow, folder, store, "-1"])
    while not (store / "train/000/c").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert frame_store.open_store(store, "blur").clips == []
    storing.write(open_folder(folder, "blur"), store, "blur")
    np.testing.assert_array_equal(read(store, 0, 9, "sharp"), frame("000", "sharp", 9))


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves parts of files, as object stores do."""

    def do_GET(self):
        with open(self.translate_path(self.path), "rb") as file:
            data = file.read()
        total, status = len(data), 200
        if spec := self.headers.get("Range"):
            first, last = spec.removeprefix("bytes=").split("-")
            start = int(first) if first else total - int(last)
            stop = int(last) + 1 if first and last else total
            data, status = data[start:stop], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{total}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(folder):
    """Serves a folder on loopback; gives its address."""
    handler = functools.partial(RangeHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_store_is_read_over_the_network(store):
    with serving(store) as address:
        part = read(address, 0, 7, "blurred", Window(33, 60, 31, 70))
        np.testing.assert_array_equal(part, frame("000", "blur", 7)[33:64, 60:130])


def test_no_store_at_an_address(monkeypatch):
    monkeypatch.setattr(frame_store, "_PATIENCE", 1)
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/index\.json"):
        frame_store.open_store("http://127.0.0.1:9", "blur")


def test_a_store_is_not_written_to_an_address(folder):
    with pytest.raises(InputError, match="gs://bucket/reds is no folder"):
        storing.write(open_folder(folder, "blur"), "gs://bucket/reds", "blur")

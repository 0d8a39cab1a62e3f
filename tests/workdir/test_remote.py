"""Workdirs in object storage: moto's server, an imitation of S3, on this machine."""

import functools
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import fsspec
import jax
import numpy as np
import pytest

import jaxdeblur
from jaxdeblur.errors import InputError, TrainingError
from jaxdeblur.workdir import remote

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store():
    """Sets the environment for an S3 server on loopback; gives a client, with a bucket `runs`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        wait_for_port(port)
        client = boto3.client("s3")
        client.create_bucket(Bucket="runs")
        yield client
    fsspec.filesystem("s3").clear_instance_cache()
    server.terminate()
    server.wait()


def wait_for_port(port):
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "moto's server does not start"
            time.sleep(0.1)


def names(store, prefix):
    answer = store.list_objects_v2(Bucket="runs", Prefix=f"{prefix}/")
    return {item["Key"].removeprefix(f"{prefix}/") for item in answer.get("Contents", [])}


@pytest.fixture
def mirror(request):
    mirrors = []

    def make(name):
        mirrors.append(remote.Mirror(f"s3://runs/{name}"))
        return mirrors[-1]

    yield make
    for mirror in mirrors:
        mirror.close()
        assert not mirror.folder.exists()


def write(mirror, **files):
    for name, text in files.items():
        path = mirror.folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_is_sent_comes_back(store, mirror):
    first, second = mirror("back"), mirror("back")
    write(first, config_dot_json="{}", checkpoints__5__d__x="5", pictures__a_dot_png="p")
    first.push()
    first.wait()
    assert names(store, "back") == {
        "config.json",
        "checkpoints/5/d/x",
        "checkpoints/5/whole",
        "pictures/a.png",
    }
    second.pull()
    assert (second.folder / "checkpoints/5/d/x").read_text() == "5"
    assert (second.folder / "config.json").read_text() == "{}"
    assert not (second.folder / "pictures").exists()
    assert not (second.folder / "checkpoints/5/whole").exists()


def test_only_what_changed_is_sent_again_and_what_is_gone_is_removed(store, mirror):
    work = mirror("changes")
    write(work, log="1", checkpoints__1__x="1", checkpoints__2__x="2")
    work.push()
    work.wait()
    store.delete_object(Bucket="runs", Key="changes/checkpoints/2/x")  # sent again, it would return
    write(work, log="1\n2", checkpoints__3__x="3")
    (work.folder / "checkpoints/1/x").unlink()
    (work.folder / "checkpoints/1").rmdir()
    work.push()
    work.wait()
    assert names(store, "changes") == {
        "log",
        "checkpoints/2/whole",
        "checkpoints/3/x",
        "checkpoints/3/whole",
    }
    body = store.get_object(Bucket="runs", Key="changes/log")["Body"].read()
    assert body == b"1\n2"


def test_a_checkpoint_that_was_not_sent_whole_does_not_count_and_is_removed(store, mirror):
    for step in (4, 9):
        store.put_object(Bucket="runs", Key=f"half/checkpoints/{step}/x", Body=b"x")
    store.put_object(Bucket="runs", Key="half/checkpoints/4/whole", Body=b"")
    work = mirror("half")
    work.pull()
    assert {path.name for path in (work.folder / "checkpoints").iterdir()} == {"4"}
    work.push()
    work.wait()
    assert names(store, "half") == {"checkpoints/4/x", "checkpoints/4/whole"}


def test_a_checkpoint_being_written_is_not_sent(store, mirror):
    work = mirror("tmp")
    (work.folder / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir(parents=True)
    (work.folder / "checkpoints" / "7.orbax-checkpoint-tmp" / "x").write_text("x")
    write(work, log="1")
    work.push()
    work.wait()
    assert names(store, "tmp") == {"log"}


def test_a_store_that_refuses_is_named(store):
    work = remote.Mirror("s3://runs/gone")
    work._root = "none/gone"
    with pytest.raises(InputError, match=r"s3://runs/gone: cannot be read \(FileNotFoundError"):
        work.pull()
    write(work, log="1")
    work.push()
    with pytest.raises(TrainingError, match="cannot be written") as told:
        work.wait()
    work.close()
    # What a run has made is not lost with the connection.
    assert str(told.value).endswith(f"; what was not sent is kept in {work.folder}")
    assert (work.folder / "log").read_text() == "1"
    shutil.rmtree(work.folder)


def test_what_changed_after_the_last_sending_is_kept(store, caplog):
    work = remote.Mirror("s3://runs/after")
    write(work, log="1")
    work.push()
    work.wait()
    write(work, log="1, 2")
    work.close()
    assert caplog.messages == [f"s3://runs/after: what was not sent is kept in {work.folder}"]
    assert (work.folder / "log").read_text() == "1, 2"
    shutil.rmtree(work.folder)


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "s3://runs//x", "//x", "a//b", "../x", "a/../../x", "..", "a/..", "./x"),
        *(
            "a/./x",
            "a\\b",
            "..\\x",
            "a\0b",
            "tensorboard/../../x",
            "x" * 256,
            "a/" + "\u00e9" * 128,
        ),
        *("config.json/x", "checkpoints/5/../../../x", "checkpoints//5/x"),
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused_before_anything_is_written(
    store, mirror, name
):
    prefix = f"names{abs(hash(name))}"
    for key in ("config.json", name):
        store.put_object(Bucket="runs", Key=f"{prefix}/{key}", Body=b"{}")
    work = mirror(prefix)
    with pytest.raises(InputError, match="the object ") as told:
        work.pull()
    assert repr(name) in str(told.value)
    assert len(str(told.value).splitlines()) == 1
    assert not list(work.folder.iterdir())


def test_names_that_only_look_strange_are_taken(store, mirror):
    expected = {" ", "..a", "a..", "a b/\u00e9", "x" * 255, "...", "~", "-"}
    for key in (*expected, "", "empty/", "empty/too/"):  # as web pages make folders
        store.put_object(Bucket="runs", Key=f"strange/{key}", Body=b"")
    work = mirror("strange")
    work.pull()
    files = [path for path in work.folder.rglob("*") if path.is_file()]
    assert {path.relative_to(work.folder).as_posix() for path in files} == expected


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://a/b",
            "https://a/b",
            "file:///tmp/b",
            "memory://a/b",
            "ftp://a/b",
            "nowhere://a/b",
        ),
        *("S3://a/b", "s3a://a/b", "simplecache::s3://a/b", "s3://a/b::file:///tmp/b", "://"),
        *("s3://", "s3:///b", "s3://a//b", "s3://a/../b", "s3://../b", "gs://", "gs://a/./b"),
    ],
)
def test_only_folders_of_buckets_are_taken(url):
    for use in (remote.Mirror, jaxdeblur.load):
        with pytest.raises(InputError) as told:
            use(url)
        assert str(told.value).startswith(f"{url}: ")
        assert "s3://BUCKET" in str(told.value) or "gs://BUCKET" in str(told.value)
    if not url.startswith(("s3://", "gs://")):
        assert "s3://BUCKET" in str(told.value)
        assert "gs://BUCKET" in str(told.value)


def test_writing_is_tried_when_a_run_begins_and_leaves_nothing(store, mirror, monkeypatch):
    written = []
    work = mirror("tried")
    pipe = work._storage.pipe_file

    def noted(path, data):
        written.append(path)
        pipe(path, data)

    monkeypatch.setattr(work._storage, "pipe_file", noted)
    work.pull()
    assert len(written) == 1
    assert written[0].startswith("runs/tried/.jaxdeblur-trial-")
    assert names(store, "tried") == set()
    with remote.copy("s3://runs/tried"):  # which is only read
        assert len(written) == 1

    # One whose process was killed in between is no file of the run.
    store.put_object(Bucket="runs", Key="tried/.jaxdeblur-trial-0123", Body=b"x")
    work.pull()
    assert not list(work.folder.iterdir())


@pytest.mark.parametrize(("call", "told"), [("pipe_file", "written"), ("rm_file", "removed")])
def test_a_store_that_cannot_be_written_is_told_when_a_run_begins(
    store, mirror, monkeypatch, call, told
):
    def refuse(*_):
        raise PermissionError("Access Denied")

    work = mirror("readonly")
    monkeypatch.setattr(work._storage, call, refuse)
    with pytest.raises(InputError, match=rf"s3://runs/readonly: .*{told}.*Access Denied") as error:
        work.pull()
    assert len(str(error.value).splitlines()) == 1


def test_without_a_folder_for_the_copy_it_is_told(monkeypatch):
    def nowhere(**_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(remote.tempfile, "mkdtemp", nowhere)
    with pytest.raises(InputError, match=r"s3://runs/x: .*No usable temporary.*TMPDIR"):
        remote.Mirror("s3://runs/x")


def command(workdir):
    from small_runs import flags, tiny_config

    config = tiny_config(num_steps=60, eval_every_steps=30, checkpoint_every_steps=10)
    script = [sys.executable, "train.py", "--config", "configs/quickstart.py", *flags(config)]
    return [*script, "--workdir", str(workdir)]


@pytest.mark.slow
def test_a_run_is_killed_and_goes_on_in_object_storage(store, tmp_path):
    run = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True)
    process = subprocess.Popen(command("s3://runs/killed"), cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not any(name.endswith("/whole") for name in names(store, "killed")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = run(command("s3://runs/killed"))
    assert again.returncode == 0, again.stderr
    assert "going on after step" in again.stderr
    assert run(command(tmp_path / "local")).returncode == 0

    steps = {
        name.split("/")[1] for name in names(store, "killed") if name.startswith("checkpoints")
    }
    local = {path.name for path in (tmp_path / "local" / "checkpoints").iterdir()}
    assert steps == local
    found = jaxdeblur.load("s3://runs/killed/checkpoints/60")
    expected = jaxdeblur.load(tmp_path / "local" / "checkpoints" / "60")
    for x, y in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_array_equal(x, y)
    assert jaxdeblur.load("s3://runs/killed").card == jaxdeblur.load(tmp_path / "local").card
    body = store.get_object(Bucket="runs", Key="killed/metrics.jsonl")["Body"].read().decode()
    last = [json.loads(line)["step"] for line in body.splitlines()]
    assert last == sorted(last)
    assert last.count(60) == 2
    assert any(name.startswith("tensorboard/") for name in names(store, "killed"))


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_sends_its_last_step_first(store):
    process = subprocess.Popen(
        [*command("s3://runs/asked"), "--config.num_steps=100000"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while "metrics.jsonl" not in names(store, "asked"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 0, text
    step = text.split("asked to end: step ")[1].split()[0]
    assert f"checkpoints/{step}/whole" in names(store, "asked")

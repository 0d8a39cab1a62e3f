"""What several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped without."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("JAXDEBLUR_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; JAXDEBLUR_TEST_DATA can name another folder")
    return folder

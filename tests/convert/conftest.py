"""What the tests of several readers share."""

import pytest


@pytest.fixture(scope="session")
def parity(shared_data):
    """The folder of networks whose results other programs have computed."""
    folder = shared_data / "parity"
    if not folder.is_dir():
        pytest.skip(f"no networks of other programs in {folder}")
    return folder

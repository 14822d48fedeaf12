from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"  # beside the repository


@pytest.fixture(scope="session")
def shared():
    """The folder of real data sets; tests that ask for it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the real data sets (../shared/data) are not here")
    return SHARED

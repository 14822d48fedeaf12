import pytest
import torch


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """No test reads what another one remembered, nor writes to the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "segwright"


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Tiny networks gain nothing from threads, and lose much where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

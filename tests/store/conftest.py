import pytest

from gnomon.store.store import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store.db"))

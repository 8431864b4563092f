import os

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # small tensors: a second, spinning thread only costs
settings.register_profile("gnomon", deadline=None, max_examples=50)  # a first torch call alone passes 200 ms
settings.load_profile("gnomon")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """Results and caches of a test stay in its own folder."""
    monkeypatch.setenv("GNOMON_HOME", str(tmp_path / "gnomon-home"))
    monkeypatch.delenv("GNOMON_STORE", raising=False)

"""What the tests of models share."""

from pathlib import Path

import pytest
from huggingface_hub import constants as hub

CLOSED_PORT = "http://127.0.0.1:9"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and no network."""
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "ENDPOINT", CLOSED_PORT)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path

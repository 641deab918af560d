from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# The same examples in every run, however busy the machine is.
hypothesis.settings.register_profile("castmate", deadline=None, derandomize=True)
hypothesis.settings.load_profile("castmate")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The test runs in an empty folder, with none of the developer's settings."""
    for name in [name for name in os.environ if name.startswith("CASTMATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work

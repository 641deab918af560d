"""The nodes, over a double of ComfyUI's API, and a real server for them to call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui import comfy_double

comfy_double.install()


@pytest.fixture
def reports() -> Iterator[list[Any]]:
    """What nodes reported: steps done, steps in all, preview."""
    comfy_double.Execution.reports.clear()
    comfy_double.Interruption.pressed = False
    yield comfy_double.Execution.reports
    comfy_double.Execution.reports.clear()


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    """Nothing is known of any server, nor of what has failed."""
    from comfyui.client import description, drawing

    monkeypatch.setattr(drawing, "_failed", {})
    monkeypatch.setattr(drawing, "PAUSE_S", 0.05)
    monkeypatch.setattr(description.current, "properties", description.current.bundled)
    monkeypatch.setattr(description.current, "characters", [])

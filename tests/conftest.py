"""What holds for every test: default signals, the same examples, and which worker runs what."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import hypothesis
import pytest

import castmate  # noqa: F401  before ONNX Runtime, which it keeps from sending usage events

TESTS = Path(__file__).parent

# Under nohup and in the background of a script these come ignored, and children would inherit
# that: nothing would stop at Ctrl-C. A signal that has a handler is a default one in a child.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)

# Each worker has a core, not all of them; torch reads this when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Imports make millions of objects that stay; walking them again and again takes an eighth longer.
_THRESHOLD = gc.get_threshold()
gc.set_threshold(100_000, 50, 100)

# The same examples in every run, however busy the machine is.
hypothesis.settings.register_profile("castmate", deadline=None, derandomize=True)
hypothesis.settings.load_profile("castmate")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was imported stays: one full collection walks torch's 700,000 objects for 0.5 s.

    What a test leaves is collected as soon as ever: a gRPC channel that outlives its event loop
    fails the next test.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLD)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share its fixtures in one worker; files with slow tests begin.

    Only one tritonserver runs at a time: what is tested there is timing, and it takes every core.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        file = item.path.relative_to(TESTS).with_suffix("")
        group = "tritonserver" if file.parts[0] in ("fleet", "triton_models") else str(file)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The test runs in an empty folder, with none of the developer's settings."""
    for name in [name for name in os.environ if name.startswith("CASTMATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("CASTMATE_ENV_FILE", "")  # unset; what a command sets ends with the test
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work

"""What holds for every test: default signals, the same examples, and which worker runs what."""

from __future__ import annotations

import gc
import os
import signal
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

import castmate  # noqa: F401  before ONNX Runtime, which it keeps from sending usage events
from tests import certificates

certificates.read_once()

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

TRITONSERVER = "tritonserver"

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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-case", action="store_true", help="run one case of each test")


@pytest.hookimpl(trylast=True)  # after `-m` has deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest group begins, then files with slow tests, so that no worker ends alone.

    Then what waits for servers: at the end there would be too few others to keep a processor busy.
    """
    if config.getoption("one_case"):
        _keep_one_case(config, items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(
        key=lambda item: (
            _group(item.nodeid) != TRITONSERVER,
            item.path not in slow,
            "mcp_server" not in item.path.parts,
        )
    )


def _group(nodeid: str) -> str:
    """What runs in one worker, one test after the other.

    A file's tests share its fixtures. Only one tritonserver runs at a time: what is tested there is
    timing, and it takes every core.
    """
    file = nodeid.split("::")[0]
    return TRITONSERVER if file.startswith("tests/triton_models/") else file


def _keep_one_case(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Not always the first one, so that every database and every protocol has its turn."""
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.split("[")[0], []).append(item)
    kept = {cases[zlib.crc32(test.encode()) % len(cases)] for test, cases in tests.items()}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out whole groups.

    `--dist loadgroup` would do so by marks, but pytest-xdist 3.8 loses them under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    return Groups(config, log)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    """What is left of gRPC goes with the module's event loop."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
async def one_loop(collected: None) -> AsyncIterator[None]:
    """One event loop for all tests of a module.

    gRPC has one thread that polls for every loop of a process. What it hears late for a loop that
    is closed by then, it raises in whichever is open: in the next test.
    """
    yield  # noqa: PT022  (the loop is open for as long as this fixture is)


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

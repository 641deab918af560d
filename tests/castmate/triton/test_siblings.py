"""Whichever instance is asked answers for all of its server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castmate.errors import CastmateError
from castmate.pipeline.pipeline import Pipeline
from castmate.triton import wire
from castmate.triton.service import Service
from castmate.triton.siblings import Siblings

SILENT_S = 10.0


class Probe:
    """A call that waits for nothing: a probe is answered at once."""

    def __init__(self) -> None:
        self.report: dict[str, Any] | None = None
        self.error: CastmateError | None = None

    def is_cancelled(self) -> bool:
        return False

    def send(self, outputs: wire.Outputs, *, final: bool = False) -> None:
        self.report = wire.decode_report(outputs["report"][0])

    def fail(self, error: CastmateError) -> None:
        self.error = error


class Uncounted:
    """Metrics that nobody reads."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


def sibling(folder: Path, name: str) -> Siblings:
    return Siblings(name, silent_after_s=SILENT_S, folder=folder)


@pytest.fixture
def service(tmp_path: Path, toon: Pipeline) -> Iterator[Service]:
    made = Service(toon, Uncounted(), siblings=sibling(tmp_path, "castmate_0_0"))
    yield made
    made.close()


def probe(service: Service) -> Probe:
    call = Probe()
    service.submit(call, b"", b"", {wire.PROBE: True})
    return call


def age(folder: Path, name: str) -> None:
    past = time.time() - 2 * SILENT_S
    os.utime(folder / name, (past, past))


def test_a_probe_succeeds_while_every_instance_shows_signs_of_life(
    service: Service, tmp_path: Path
) -> None:
    sibling(tmp_path, "castmate_0_1")
    answer = probe(service)
    assert answer.error is None
    assert answer.report is not None


def test_a_probe_of_one_instance_fails_for_another_that_is_silent(
    service: Service, tmp_path: Path
) -> None:
    other = sibling(tmp_path, "castmate_0_1")
    age(tmp_path, "castmate_0_1")
    assert "castmate_0_1 shows no sign of life" in str(probe(service).error)
    other.beat()
    assert probe(service).error is None


def test_an_instance_that_ends_as_it_should_is_not_missed(service: Service, tmp_path: Path) -> None:
    other = sibling(tmp_path, "castmate_0_1")
    age(tmp_path, "castmate_0_1")
    other.leave()
    assert probe(service).error is None


def test_the_last_one_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    both = [sibling(folder, name) for name in ("a", "b")]
    for one in both:
        one.leave()
    assert not folder.exists()


def test_instances_of_one_server_meet_and_those_of_another_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    ours = [Siblings(name, silent_after_s=SILENT_S) for name in ("a", "b")]
    monkeypatch.setattr(os, "getppid", lambda: 1)
    theirs = Siblings("a", silent_after_s=SILENT_S)
    assert len(list(tmp_path.iterdir())) == 2
    for one in (*ours, theirs):
        one.leave()


def test_what_a_killed_server_left_is_removed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    left = tmp_path / f"castmate-{os.getuid()}-{os.getpid()}-1"  # this process started later
    left.mkdir()
    (left / "castmate_0_0").touch()
    Siblings("a", silent_after_s=SILENT_S).leave()
    assert list(tmp_path.iterdir()) == []

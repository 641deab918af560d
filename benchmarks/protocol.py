"""A contender in its own process, and how the benchmark talks to it.

Separate processes keep memory figures apart, and torch out of Castmate's. The process, `python -m
benchmarks.contenders NAME SETUP`, first prints a line that says that it is ready, or why it cannot
run here; then it reads one JSON request a line and answers each with one JSON line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from castmate.schema import GenerateRequest

CLOSE_S = 30.0
ANSWER_S = 900.0  # torch compiles within its first picture


class Unfit(Exception):
    """A contender cannot run here; the text says why, and tables show it instead of a figure."""


@dataclass(frozen=True)
class Setup:
    """What every contender gets.

    Attributes:
        bundle: A shipped bundle's name or a folder, used by every contender; torch takes its
            weights from the graphs.
        folder: Gets the references.
        plans: Folder of a TensorRT bundle, or empty.
        threads: CPU threads of each contender; 0 takes every core.
        spend: Number of pictures that may be paid for.
    """

    bundle: str
    folder: str
    plans: str = ""
    threads: int = 0
    spend: int = 0

    def to_json(self) -> str:
        """Serialise for the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Drawn:
    """What a contender reports about one picture.

    Attributes:
        stages_ms: Milliseconds of each stage, if known.
        steps_ms: Milliseconds of each denoise step, if known.
        computed_steps: Number of steps that were computed in full.
    """

    stages_ms: Mapping[str, float]
    steps_ms: tuple[float, ...] = ()
    computed_steps: int | None = None


Draw = Callable[[GenerateRequest], Drawn]
"""Draws a request whose `image` is the path of the reference."""


class Worker:
    """A contender's process, seen from the benchmark."""

    def __init__(self, name: str, setup: Setup) -> None:
        """Start it and wait until it is ready; `ready` then holds its first line."""
        threads = {"OMP_NUM_THREADS": str(setup.threads)} if setup.threads else {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contenders", name, setup.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | threads,
        )
        self.ready = self._read()

    @property
    def reason(self) -> str | None:
        """Why it cannot run here; None if it can."""
        return self.ready.get("reason")

    def draw(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Draw one picture and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        try:
            self._process.communicate(timeout=CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        watchdog = threading.Timer(ANSWER_S, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise RuntimeError(
                f"the contender ended, or took more than {ANSWER_S:g} s; its error is above"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def peak_memory_mib(pid: int | str = "self") -> float:
    """The peak memory of a process; `ru_maxrss` would include its parent's."""
    return _memory_mib(pid, "VmHWM")


def memory_mib(pid: int | str) -> float:
    """The current memory of a process."""
    return _memory_mib(pid, "VmRSS")


def _memory_mib(pid: int | str, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not report the memory of a process")

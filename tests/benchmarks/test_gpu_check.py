"""The check of a GPU: rehearsed on the CPU; what ends by time or cannot run loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import full_size
from benchmarks.full_size import LADDER, NOT_REACHED
from benchmarks.gpu_check import Part, check, main
from benchmarks.record import read
from demo_model.config import TOON


def python(code: str) -> Part:
    return Part(code.split("(")[0], lambda minutes: ("-c", code), 1.0)


def test_a_part_that_takes_too_long_is_ended_with_its_children_and_what_it_said_is_kept(
    tmp_path: Path,
) -> None:
    child = (
        "import subprocess,sys;subprocess.run([sys.executable,'-c','import time;time.sleep(99)'])"
    )
    slow = Part("slow", lambda minutes: ("-c", f"print('begun', flush=True);{child}"), 0.5)
    kept: list[dict[str, Any]] = []
    known = check([slow, python("print('later')")], 4 / 60, tmp_path, kept.append)
    assert known["slow"]["code"] == -9
    assert known["slow"]["output"] == "begun\n"
    assert known["slow"]["seconds"] < 10
    assert known["print"] == {**known["print"], "code": 0, "output": "later\n"}
    assert len(kept) == 2


def test_what_cannot_run_here_says_why_and_the_rest_runs(tmp_path: Path) -> None:
    unfit = Part("tests", lambda minutes: (), 1.0, lambda: "no GPU is here")
    known = check([unfit, python("print('on')")], 1, tmp_path, lambda known: None)
    assert known["tests"] == {"skipped": "no GPU is here"}
    assert known["print"]["code"] == 0
    late = check([python("print('on')")], 0, tmp_path, lambda known: None)
    assert "give more --minutes" in late["print"]["skipped"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_can_be_rehearsed_without_a_gpu(tmp_path: Path) -> None:
    assert main(["--size", "micro", "--minutes", "4", "--out", str(tmp_path)]) == 0
    parts = read(tmp_path / "check.json")["parts"]
    if not torch.cuda.is_available():
        assert "no NVIDIA GPU" in parts["tests"]["skipped"]
    assert '"checks"' in (tmp_path / "doctor.log").read_text()
    rows = read(tmp_path / "full-size.json")["rows"]
    assert rows["+ modulations batched"]["step"]["p50_ms"] > 0


@pytest.mark.slow
def test_every_rung_is_kept_when_it_is_measured_and_says_what_was_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, *_ = LADDER
    monkeypatch.setattr(full_size, "own_peaks", lambda: None)
    kept: list[Any] = []
    full_size.measure(
        TOON,
        side=512,
        steps=2,
        runs=1,
        rungs=2,
        keep=lambda figures: kept.append(json.loads(json.dumps(figures))["rows"]),
    )
    assert kept[0][first]["step"]["p50_ms"] > 0
    assert kept[0][second]["reason"] == NOT_REACHED
    assert kept[1][second]["step"]["p50_ms"] > 0
    late = full_size.measure(TOON, side=512, steps=2, runs=1, rungs=2, minutes=0)
    assert {late["rows"][name]["reason"] for name in (first, second)} == {NOT_REACHED}


def test_memory_that_runs_out_is_a_row_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    monkeypatch.setattr(full_size, "own_peaks", lambda: None)
    monkeypatch.setattr(full_size, "_rung", fail)
    rows = full_size.measure(TOON, side=512, steps=2, runs=1, rungs=2)["rows"]
    reasons = [rows[name]["reason"] for name in list(LADDER)[:2]]
    assert reasons == ["out of memory: CUDA out of memory. Tried to allocate 2 GiB"] * 2

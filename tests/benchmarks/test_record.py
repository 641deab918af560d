"""A result that was edited, lacks a field or is of another machine is not reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import FIELDS, RESULTS, ResultError, read, read_all
from benchmarks.report import main
from export.environment import SEAL, seal, write_result
from tests.benchmarks.samples import SAMPLES, latency, load, quality, write


def edit(path: Path, **changes: Any) -> None:
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | changes))


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.name)
def test_every_committed_result_is_whole_and_unedited(path: Path) -> None:
    assert read(path)["benchmark"] in FIELDS


def test_what_a_benchmark_writes_is_read_again(tmp_path: Path) -> None:
    figures: dict[str, Any] = {name: {} for name in FIELDS["ledger"]}
    written = write_result(tmp_path / "new/ledger.json", "ledger", figures)
    assert read(tmp_path / "new/ledger.json") == written
    assert {"cpu", "commit", "command", "gpu", "clock"} <= set(written["environment"])


def test_an_edited_figure_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, latency())
    assert read(path)
    path.write_text(path.read_text().replace("200", "100", 1))
    with pytest.raises(ResultError, match=r"latency\.json was edited.*Measure again: python -m"):
        read(path)


def test_an_edited_environment_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, latency())
    path.write_text(path.read_text().replace("A Processor", "B Processor"))
    with pytest.raises(ResultError, match="was edited"):
        read(path)


@pytest.mark.parametrize("field", ["contenders", "environment", SEAL])
def test_a_result_that_lacks_a_field_is_refused_and_the_field_named(
    tmp_path: Path, field: str
) -> None:
    path = write(tmp_path, latency())
    result = json.loads(path.read_text())
    del result[field]
    path.write_text(json.dumps(result))
    with pytest.raises(ResultError, match=rf"latency\.json lacks .*{field}"):
        read(path)


def test_a_result_without_its_commit_is_refused_even_with_a_fitting_seal(tmp_path: Path) -> None:
    path = write(tmp_path, latency())
    result = json.loads(path.read_text())
    del result["environment"]["commit"]
    path.write_text(json.dumps(result | {SEAL: seal(result)}))
    with pytest.raises(ResultError, match=r"lacks environment\.commit"):
        read(path)


def test_an_unknown_benchmark_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path, latency() | {"benchmark": "beauty"})
    with pytest.raises(ResultError, match=r"'beauty'.*known are latency"):
        read(path)
    path.write_text("{")
    with pytest.raises(ResultError, match="is not JSON"):
        read(path)


def test_results_of_two_machines_are_never_in_one_report(tmp_path: Path) -> None:
    for sample in SAMPLES:
        write(tmp_path, sample())
    assert set(read_all(tmp_path)) == {"latency", "quality", "load", "roofline"}
    write(tmp_path, load(), cores=16, gpu={"name": "NVIDIA H200"})
    with pytest.raises(ResultError, match=r"two machines \(cores 2 and 16.*H200.*Measure one"):
        read_all(tmp_path)


def test_a_report_passes_over_what_it_does_not_show(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    write(tmp_path / "results", latency())
    other = tmp_path / "results/toon-quality.json"
    other.write_text(json.dumps({"benchmark": "toon-quality", "old": True}))
    sys_argv = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "page.html")]
    assert main(sys_argv) == 0
    other.write_text(json.dumps({"benchmark": "load"}))
    assert main(sys_argv) == 1


def test_two_results_of_one_benchmark_are_refused(tmp_path: Path) -> None:
    shutil.copy(write(tmp_path, quality()), tmp_path / "again.json")
    with pytest.raises(ResultError, match=r"again\.json and quality\.json are both"):
        read_all(tmp_path)


def test_the_command_says_why_in_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    edit(write(tmp_path / "results", latency()), network="other")
    sys_argv = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "page.html")]
    assert main(sys_argv) == 1
    assert "was edited" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()

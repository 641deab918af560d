"""Two runs agree where the intervals that they state overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.agree import main
from tests.benchmarks.samples import latency, quality, roofline, value, write


def pair(folder: Path, first: dict[str, Any], second: dict[str, Any], **changed: Any) -> list[str]:
    for name in ("one", "two"):
        (folder / name).mkdir()
    return [
        str(write(folder / "one", first)),
        str(write(folder / "two", second, **changed)),
    ]


def test_overlapping_ratios_agree_and_a_changed_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = latency()
    second["ratios_to_castmate"]["castmate-fast"] = value(0.765)
    paths = pair(tmp_path, latency(), second)
    assert main(paths) == 0
    second["ratios_to_castmate"]["castmate-fast"] = value(0.9)
    write(tmp_path / "two", second)
    assert main(paths) == 1
    assert "NO" in capsys.readouterr().out


def test_a_ratio_that_only_one_run_has_is_no_agreement(tmp_path: Path) -> None:
    second = latency()
    del second["ratios_to_castmate"]["castmate-fast"]
    assert main(pair(tmp_path, latency(), second)) == 1


def test_speedups_of_step_caching_are_ratios(tmp_path: Path) -> None:
    assert main(pair(tmp_path, quality(), quality())) == 0


@pytest.mark.parametrize(
    ("second", "changed"), [(quality(), {}), (latency(), {"cpu": "Another Processor"})]
)
def test_another_benchmark_or_machine_is_refused(
    second: dict[str, Any], changed: dict[str, Any], tmp_path: Path
) -> None:
    assert main(pair(tmp_path, latency(), second, **changed)) == 2


def test_results_without_ratios_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pair(tmp_path, roofline(), roofline())) == 2
    assert "no ratios" in capsys.readouterr().err

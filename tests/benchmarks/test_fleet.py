"""The simulation agrees with what is known of queues, and its result with docs/scale.md."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fleet import main
from benchmarks.fleet_model import Costs, Fleet, Plan, lock_limit
from benchmarks.record import RESULTS, read

FREE = Costs(lock_s=0.0, database_s=0.0, gateway_s=0.0)
ONE = Plan(gpus=1, picture_s=2.0, load=0.5, predictions=20_000, spread=0.0)


def test_one_gpu_that_always_takes_as_long_makes_wait_as_the_formula_says() -> None:
    """Pollaczek and Khinchine: load * service / (2 * (1 - load))."""
    waited = Fleet(ONE, FREE).run().waited_s
    assert sum(waited) / len(waited) == pytest.approx(0.5 * 2 / (2 * 0.5), rel=0.1)


def test_the_lock_of_one_ledger_lets_so_many_through_and_two_ledgers_twice_as_many() -> None:
    costs = replace(FREE, lock_s=0.01)
    plan = Plan(gpus=400, picture_s=1.0, load=0.9, predictions=6000)
    for partitions in (1, 2):
        outcome = Fleet(replace(plan, partitions=partitions), costs).run()
        drawn_per_s = plan.predictions / outcome.ended_s
        assert drawn_per_s == pytest.approx(lock_limit(costs, partitions), rel=0.1)


def test_what_a_failing_gpu_drew_is_drawn_again() -> None:
    plan = replace(ONE, gpus=5, predictions=2000, between_failures_s=60.0, load_s=10.0)
    outcome = Fleet(plan, FREE).run()
    assert outcome.lost > 10
    assert len(outcome.waited_s) == plan.predictions


def test_a_scaler_adds_gpus_as_soon_as_they_have_loaded() -> None:
    plan = replace(ONE, gpus=2, load=0.6, predictions=3000, burst=(300.0, 1500.0), load_s=120.0)
    fixed, scaled = Fleet(plan, FREE).run(), Fleet(replace(plan, most_gpus=6), FREE).run()
    assert max(scaled.waited_s) < max(fixed.waited_s)
    added = next(when for when, count in scaled.gpus if count > 2)
    assert added > 300 + plan.load_s


def test_every_figure_of_the_page_is_of_the_result() -> None:
    page = (Path(__file__).parents[2] / "docs/scale.md").read_text()
    result = read(RESULTS / "fleet.json")
    for row in result["needs"]:
        line = f"| {row['gpus']} | {row['predictions_per_s']} | {row['lock']:.0%} |"
        assert line in page, line
    for row in result["sizes"] + result["partitions"]:
        name = row["partitions"] if row in result["partitions"] else row["gpus"]
        assert re.search(rf"\| {name} \|.*{re.escape(str(row['wait_p95_s']))}", page), row
    assert str(result["costs"]["transactions"]).removesuffix(".0") in page
    assert result["environment"]["command"] in page


def test_the_plot_is_of_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fleet", "--plot", str(tmp_path / "scale.svg")])
    main()
    drawn = (tmp_path / "scale.svg").read_text()
    assert drawn == (Path(__file__).parents[2] / "docs/scale.svg").read_text()

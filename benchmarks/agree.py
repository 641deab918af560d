"""Checks whether two runs agree: `python -m benchmarks.agree FIRST SECOND`.

Two results of one benchmark on one machine agree on a ratio if the intervals that they state for a
second run overlap. Milliseconds are not compared, because a machine has faster and slower days.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.record import Result, ResultError, machine, read


def ratios(result: Result) -> dict[str, Mapping[str, float]]:
    """Every ratio in a result that states its noise, by name."""
    found: dict[str, Mapping[str, float]] = dict(result.get("ratios_to_castmate", {}))
    rows: Mapping[str, Mapping[str, Any]] = result.get("rows", {})
    found |= {
        f"{name}, times faster": row["speedup"] for name, row in rows.items() if row.get("speedup")
    }
    return found


def compare(first: Result, second: Result) -> Iterator[tuple[str, str, str, bool]]:
    """Each ratio's name, both values as text, and whether they agree; a missing one does not.

    Raises:
        ResultError: They come from two benchmarks or machines, or have no ratios.
    """
    names = [result["benchmark"] for result in (first, second)]
    if names[0] != names[1] or machine(first) != machine(second):
        raise ResultError(
            f"Not two runs of one benchmark on one machine: {names[0]} on {machine(first)} and "
            f"{names[1]} on {machine(second)}."
        )
    one, other = ratios(first), ratios(second)
    if not one and not other:
        raise ResultError(f"Results of {names[0]} hold no ratios with a stated noise.")
    for name in {**one, **other}:
        a, b = one.get(name), other.get(name)
        agree = a is not None and b is not None and a["low"] <= b["high"] and b["low"] <= a["high"]
        yield name, _say(a), _say(b), agree


def _say(ratio: Mapping[str, float] | None) -> str:
    return "-" if ratio is None else "{value:.3f} ({low:.3f}..{high:.3f})".format(**ratio)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both results; return 1 if they disagree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agree", description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    given = parser.parse_args(arguments)
    try:
        rows = list(compare(read(given.first), read(given.second)))
    except ResultError as error:
        print(error, file=sys.stderr)
        return 2
    table = Table("ratio", given.first.name, given.second.name, "agree")
    for name, one, other, agree in rows:
        table.add_row(name, one, other, "yes" if agree else "NO")
    Console(width=120).print(table)
    return int(not all(agree for *_, agree in rows))


if __name__ == "__main__":
    sys.exit(main())

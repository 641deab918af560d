"""Reads results, which must be complete, unedited and from one machine."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from export.environment import SEAL, seal

RESULTS = Path(__file__).parent / "results"
MACHINE = ("cpu", "cores", "memory_gib")
ENVIRONMENT = ("date", "command", "commit", "modified", *MACHINE, "gpu", "clock", "python")
FIELDS: Mapping[str, Sequence[str]] = {
    "latency": ("request", "network", "contenders", "ratios_to_castmate", "start"),
    "quality": ("request", "network", "pictures", "rows", "lpips", "judge"),
    "load": ("request", "seconds", "doors"),
    "roofline": ("request", "own_peaks", "graphs", "full_size"),
    "full-size": ("request", "network", "peaks", "rows"),
    "schemes": ("pictures", "side_px", "steps", "schemes", "variants", "layer_relative_l2"),
    "toon-framing": ("pictures_a_row", "side_px", "small", "rows"),
    "identity": ("pictures", "steps", "calibration", "separation", "by_subject_scale", "best_of"),
    "references": ("characters", "steps", "views", "sets"),
    "strangers": ("characters", "below", "sets"),
    "toon-quality": ("pictures_a_row", "rows", "shares", "shares_by_words"),
    "triton": ("request", "rows", "memory_mib", "failures"),
    "ledger": ("runs", "databases"),
    "gateway": ("request", "submits", "overload"),
    "polling": ("request", "seconds", "latency_ms", "statuses", "rss_mib"),
    "agents": ("times",),
    "studio": ("loads", "bytes", "requests", "times"),
    "fleet": ("parameters", "costs", "needs", "sizes", "partitions", "bursts"),
    "gpu-check": ("size", "minutes", "parts"),
    "build": ("model", "scheme", "by_double_blocks"),
}
Result = dict[str, Any]


class ResultError(Exception):
    """A result that must not be reported: which file, what is wrong and what to do."""


def read(path: Path) -> Result:
    """Read one result.

    Raises:
        ResultError: It is not JSON, was edited, or lacks a field.
    """
    try:
        result: Result = json.loads(path.read_text())
    except ValueError as error:
        raise ResultError(f"{path.name} is not JSON: {error}. Measure again.") from None
    name, environment = str(result.get("benchmark")), result.get("environment", {})
    again = f"Measure again: {environment.get('command', 'see benchmarks/')}."
    if name not in FIELDS:
        raise ResultError(
            f"{path.name} is of no benchmark that is known ({name!r}; known are "
            f"{', '.join(FIELDS)}). {again}"
        )
    missing = [field for field in (SEAL, "environment", *FIELDS[name]) if field not in result]
    missing += [f"environment.{field}" for field in ENVIRONMENT if field not in environment]
    if missing:
        raise ResultError(f"{path.name} lacks {', '.join(missing)}. {again}")
    if seal(result) != result[SEAL]:
        raise ResultError(f"{path.name} was edited: its seal does not fit. {again}")
    return result


def read_all(folder: Path, wanted: Collection[str] = FIELDS) -> dict[str, Result]:
    """The results in a folder, by benchmark.

    Args:
        folder: Where they are.
        wanted: Benchmarks to read; others are skipped.

    Raises:
        ResultError: One of them cannot be reported, there are two of one benchmark, or they are of
            several machines.
    """
    found: dict[str, Result] = {}
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.json")):
        if _benchmark(path) in {*FIELDS} - {*wanted}:
            continue
        result = read(path)
        name = result["benchmark"]
        if name in files:
            raise ResultError(
                f"{files[name].name} and {path.name} are both of benchmark {name!r}. Remove one."
            )
        found[name], files[name] = result, path
    if not found:
        raise ResultError(f"There is no result in {folder}. Run: make bench")
    first, *others = found
    for other in others:
        _same_machine(files[first], found[first], files[other], found[other])
    return found


def _benchmark(path: Path) -> object:
    """The benchmark that a file claims to be from, before it is checked."""
    try:
        return json.loads(path.read_text()).get("benchmark")
    except (ValueError, AttributeError):
        return None


def machine(result: Result) -> dict[str, Any]:
    """What figures depend on most: processor, cores, memory, GPU."""
    environment = result["environment"]
    gpu = environment["gpu"]
    return {name: environment[name] for name in MACHINE} | {"gpu": gpu and gpu["name"]}


def _same_machine(path: Path, result: Result, other_path: Path, other: Result) -> None:
    one, two = machine(result), machine(other)
    if changed := [name for name in one if one[name] != two[name]]:
        shown = ", ".join(f"{name} {one[name]!r} and {two[name]!r}" for name in changed)
        raise ResultError(
            f"{path.name} and {other_path.name} are of two machines ({shown}): no table may hold "
            "both. Measure one of them again, or keep them in folders of their own."
        )

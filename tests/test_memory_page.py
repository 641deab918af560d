"""docs/memory.md shows what the recorded bytes say."""

from __future__ import annotations

from pathlib import Path

from castmate.doctor import memory_plans
from castmate.engines.footprint import counted
from castmate.engines.memory_table import by_scheme, memory_table, overview
from castmate.engines.residency import Residency
from castmate.pipeline.opening import cache_bytes
from castmate.settings import Settings

PAGE = Path(__file__).parents[1] / "docs/memory.md"
CARDS = (16, 24, 32, 48, 80, 141)
SMALL_CARDS = (8, 12, 16)
PRECISION = "FP8 transformer and encoders"


def between(name: str) -> str:
    text = PAGE.read_text()
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]


def check(name: str, expected: str) -> None:
    assert between(name) == expected, f"put this into docs/memory.md:\n{expected}"


def test_the_table_of_cards_is_what_is_computed_from_counted_and_built_bytes() -> None:
    models = [m for m in counted("instantcharacter") if m.precision == PRECISION]
    caches = cache_bytes(Settings.load())
    check("cards", "\n".join(overview(models, [card * 10**9 for card in CARDS], caches)))


def test_the_table_of_schemes_is_what_is_computed_from_counted_and_built_bytes() -> None:
    models = [m for m in counted("instantcharacter") if m.side == 1024 and "and" in m.precision]
    cards = [card * 10**9 for card in SMALL_CARDS]
    check("schemes-by-card", "\n".join(by_scheme(models, cards, cache_bytes(Settings.load()))))


def test_the_printout_of_doctor_is_what_it_prints() -> None:
    plans = memory_plans(Settings.load(bundle="toon", gpu_memory="16GB"))
    ((title, plan),) = [p for p in plans if f"{PRECISION}, to 1024 px" in p[0]]
    assert isinstance(plan, Residency)
    lines = [f"GPU memory: {title}", *(f"  {line}".rstrip() for line in memory_table(plan))]
    check("doctor", "\n".join(["```text", *lines, "```"]))


def test_the_recipe_names_the_same_peaks() -> None:
    rows = [line.split(" | ") for line in between("cards").splitlines()[2:]]
    peaks = {(row[0].strip("| "), row[1]): row[4].removesuffix(" GB") for row in rows}
    recipe = PAGE.with_name("flux.md").read_text()
    for card in (16, 24, 80):
        small, large = (peaks[f"{card}.0 GB", f"{side} px"] for side in (1024, 1536))
        assert f"| {card} GB | {small} / {large} GB |" in recipe

"""Is another character among the pictures of one noticed? `python -m benchmarks.strangers`.

Held-out characters of the demo model, in the views of `benchmarks.references`: how often the
warning comes where all pictures are of one character, and how often where one of them is not.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks.figures import interval
from benchmarks.references import SETS, VIEWS, reference_to
from castmate.engines.bundle import Bundle
from castmate.pipeline.identity import STRANGER_BELOW, Identity
from castmate.pipeline.matte import Matte
from castmate.pipeline.opening import runtime_of
from castmate.settings import Settings
from castmate.several import MAX_TOGETHER, together
from demo_model.evaluate import judged_pictures
from export.environment import write_result

RESULT = Path(__file__).parent / "results/strangers.json"


def measure(count: int) -> dict[str, Any]:
    """Shares of characters, by set of views.

    Args:
        count: Characters.
    """
    bundle = Bundle.open("toon")
    runtime = runtime_of(bundle, Settings.load(bundle="toon"))
    side = int(bundle.manifest.graphs["matte"].inputs["images"].shape[1])
    identity = Identity.open(bundle, runtime, Matte(runtime, side))
    assert identity is not None
    of = judged_pictures(count)
    seen = [
        {name: reference_to(render(one)) for name, render in VIEWS.items()}
        for one in track(of, "characters", transient=True)
    ]
    sets = {}
    for name, views in SETS.items():
        warned, found, only = [], [], []
        for number, one in enumerate(seen):
            own = [one[view] for view in views]
            stranger = seen[(number + 1) % count][views[-1]]
            mixed = [*own[: MAX_TOGETHER - 1], stranger]
            strange = identity.strangers(together(mixed))
            warned.append(float(bool(identity.strangers(together(own)))))
            found.append(float(len(mixed) in strange))
            only.append(float(strange == (len(mixed),)))
        sets[name] = {
            "all of one character": interval(warned),
            "one of another": interval(found),
            "that one alone named": interval(only),
        }
    return {"characters": count, "below": STRANGER_BELOW, "sets": sets}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strangers", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="held-out characters (default 100)")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON")
    given = parser.parse_args()
    figures = measure(given.count)
    write_result(given.out, "strangers", figures)
    for name, shares in figures["sets"].items():
        print(name, shares)


if __name__ == "__main__":
    main()

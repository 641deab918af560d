"""What the engines know of it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from castmate.engines.family import Family
from castmate.engines.graphs import Range
from castmate.engines.manifest import Manifest
from castmate.engines.residency import Runs, Stage
from castmate.families.flat.graphs import TABLE  # type: ignore[import-not-found]


class Constants(BaseModel):
    pixels_per_cell: int


def graph_names(manifest: Manifest) -> Sequence[str]:
    return tuple(TABLE.graphs)


def ranges(manifest: Manifest) -> dict[str, Range]:
    cells = Range(min=8, opt=16, max=24)
    return {"B": manifest.profile.images, "h": cells, "w": cells}


STAGES = tuple(Stage(name, Runs.PICTURE, (name,)) for name in TABLE.graphs)

FAMILY = Family(TABLE, Constants, graph_names, ranges, STAGES)

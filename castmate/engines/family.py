"""Model families, found by the name in `bundle.json` and imported only when a bundle needs one.

A family is a folder of `castmate/families` (and, to export it, of `export/families`). Its module
`family` offers `FAMILY`, a `Family`; its module `network` offers `open_network`, see
`castmate.pipeline.network`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from pydantic import BaseModel, ConfigDict, create_model

from castmate.engines.graphs import Range, Table, shape_ranges
from castmate.engines.manifest import Manifest
from castmate.engines.plan import ShapeRange
from castmate.engines.residency import Stage
from castmate.errors import BundleMismatch

PACKAGE = "castmate.families"


@dataclass(frozen=True)
class Family:
    """What the engines know about a family.

    Attributes:
        table: Its tensors and graphs.
        constants: Type of the manifest's `constants`.
        graph_names: The graphs that a bundle must hold.
        ranges: Of every dynamic dimension except derived ones.
        stages: A request's, in order, with every graph of the table.
    """

    table: Table
    constants: type[BaseModel]
    graph_names: Callable[[Manifest], Sequence[str]]
    ranges: Callable[[Manifest], Mapping[str, Range]]
    stages: Sequence[Stage]

    def check(self, manifest: Manifest) -> None:
        """Check the parts of a manifest that only the family knows.

        Raises:
            ValidationError: Names the field below `constants`.
        """
        config = ConfigDict(extra="ignore")
        whole = create_model("Constants", __config__=config, constants=(self.constants, ...))
        whole.model_validate(manifest.model_dump(include={"constants"}))


def family_names() -> list[str]:
    """The names of all families."""
    return sorted(found.name for found in pkgutil.iter_modules(import_module(PACKAGE).__path__))


def family_module(name: str, module: str) -> ModuleType:
    """Import a module of a family.

    Raises:
        BundleMismatch: There is no such family; names those that exist.
    """
    if name not in family_names():
        raise BundleMismatch(
            f"This version of castmate does not know the model family {name!r}; it knows "
            f"{', '.join(family_names())}. Install a version that does, or use another bundle."
        )
    return import_module(f"{PACKAGE}.{name}.{module}")


def family_of(name: str) -> Family:
    """The family of that name.

    Raises:
        BundleMismatch: There is none.
    """
    family: Family = family_module(name, "family").FAMILY
    return family


def optimization_profile(manifest: Manifest, graph: str) -> dict[str, ShapeRange]:
    """Smallest, optimal and largest shape of every input of a bundle's graph."""
    family = family_of(manifest.family)
    ranges = family.table.ranges(family.ranges(manifest))
    return shape_ranges(manifest.graphs[graph].inputs, ranges)

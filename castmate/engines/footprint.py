"""The device memory that each graph of a bundle, or of a model not yet exported, takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from castmate.engines.bundle import Bundle
from castmate.engines.cuda import BYTES
from castmate.engines.family import PACKAGE, family_of
from castmate.engines.graphs import NETWORK, Dims, Table
from castmate.engines.manifest import Manifest
from castmate.engines.plan import PlanManifest
from castmate.engines.residency import Footprint, Residency, plan_residency

COUNTED = "memory.json"
"""In the folder of a family with a published model; `export.measure_memory` writes it."""


def plan_bundle(bundle: Bundle, memory: int, caches: int) -> Residency:
    """Plan where the weights of a bundle's plans will be.

    Args:
        bundle: Its plans' manifests say how much memory they take.
        memory: Bytes of the device that may be taken.
        caches: Bytes of these for encoded prompts and references.

    Raises:
        BundleCorrupt: A manifest of a plan is missing or half-written.
        BundleMismatch: One was written by other code, or a graph does not fit.
    """
    manifest = bundle.manifest
    plans = {
        name: PlanManifest.read(bundle.located(graph.files[0]))
        for name, graph in manifest.graphs.items()
    }
    footprints = {
        name: Footprint(
            plan.weight_bytes,
            max(plan.activation_bytes),
            _largest_tensors(manifest, name),
            plan.streams,
        )
        for name, plan in plans.items()
    }
    return plan_residency(family_of(manifest.family).stages, footprints, memory, caches)


@dataclass(frozen=True)
class Counted:
    """A published model in one precision, for pictures up to one size.

    Attributes:
        family: The model's family.
        model: Its name.
        precision: How its weights are stored.
        side: Side of the largest picture, in pixels.
        footprints: By graph.
        provenance: Where the figures come from, in two sentences.
        scheme: The quantization scheme, by its name in the export.
        gains: Compute capabilities of GPUs for which it is better than a wider scheme.
    """

    family: str
    model: str
    precision: str
    side: int
    footprints: Mapping[str, Footprint]
    provenance: str
    scheme: str
    gains: tuple[str, ...]

    def plan(self, memory: int, caches: int, *, streams: bool = False) -> Residency:
        """Plan where its weights would be.

        Args:
            memory: Bytes of the device that may be taken.
            caches: Bytes of these for encoded prompts and references.
            streams: Whether its plans are built to stream weights from the host.

        Raises:
            BundleMismatch: A graph does not fit.
        """
        footprints = {
            name: replace(found, streams=streams) for name, found in self.footprints.items()
        }
        return plan_residency(family_of(self.family).stages, footprints, memory, caches)


def counted(family: str) -> list[Counted]:
    """A family's published model in every precision and size; empty if nothing is recorded.

    Raises:
        BundleMismatch: There is no such family.
    """
    family_of(family)
    path = files(PACKAGE) / family / COUNTED
    if not path.is_file():
        return []
    found: dict[str, Any] = json.loads(path.read_bytes())
    provenance = "; ".join(
        f"{what} {found['provenance'][what]}" for what in ("weights", "activations")
    )
    return [
        Counted(
            family,
            found["model"],
            precision,
            int(side),
            {
                name: Footprint(
                    num_bytes, found["activations"][name][side], found["tensors"][name][side]
                )
                for name, num_bytes in weights.items()
            },
            provenance,
            found["gpus"][precision]["scheme"],
            tuple(found["gpus"][precision]["gains"]),
        )
        for precision, weights in found["weights"].items()
        for side in found["sides"]
    ]


def tensor_bytes(table: Table, graph: str, dims: Dims, dtypes: Mapping[str, str]) -> int:
    """Bytes of a graph's inputs and outputs.

    Args:
        table: The family's.
        graph: Its name.
        dims: Size of every dimension.
        dtypes: For tensors whose type the export chose.
    """
    return sum(
        math.prod(tensor.sizes(dims))
        * BYTES[dtypes[name] if tensor.dtype == NETWORK else tensor.dtype]
        for tensors in (table.inputs_of(graph, dtypes), table.graphs[graph].outputs)
        for name, tensor in tensors.items()
    )


def _largest_tensors(manifest: Manifest, graph: str) -> int:
    family, spec = family_of(manifest.family), manifest.graphs[graph]
    largest = {name: found.max for name, found in family.ranges(manifest).items()}
    fixed = family.table.sizes({name: found.tensors for name, found in manifest.graphs.items()})
    dtypes = {name: tensor.dtype for name, tensor in spec.tensors.items()}
    return tensor_bytes(family.table, graph, family.table.dims({**largest, **fixed}), dtypes)

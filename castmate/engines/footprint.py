"""What each graph of a bundle of plans takes of a device, read from its manifests."""

from __future__ import annotations

import math
from collections.abc import Mapping

from castmate.engines.bundle import Bundle
from castmate.engines.cuda import BYTES
from castmate.engines.family import family_of
from castmate.engines.graphs import NETWORK, TensorSpec
from castmate.engines.manifest import Manifest
from castmate.engines.plan import PlanManifest
from castmate.engines.residency import Footprint, Residency, plan_residency


def plan_bundle(bundle: Bundle, memory: int, caches: int) -> Residency:
    """Where the weights of a bundle of plans will be.

    Args:
        bundle: Whose manifests say what its plans take.
        memory: Bytes of the device that may be taken.
        caches: Bytes of these for encoded prompts and references.

    Raises:
        BundleCorrupt: A manifest of a plan is missing or half-written.
        BundleMismatch: One was written by other code, or a graph does not fit.
    """
    manifest = bundle.manifest
    plans = {
        name: PlanManifest.read(bundle.path / graph.files[0].file)
        for name, graph in manifest.graphs.items()
    }
    footprints = {
        name: Footprint(
            plan.weight_bytes,
            max(plan.activation_bytes),
            tensor_bytes(manifest, name),
            plan.streams,
        )
        for name, plan in plans.items()
    }
    return plan_residency(family_of(manifest.family).stages, footprints, memory, caches)


def tensor_bytes(manifest: Manifest, graph: str) -> int:
    """Bytes of a graph's inputs and outputs, all at their largest."""
    family, spec = family_of(manifest.family), manifest.graphs[graph]
    table = family.table
    largest = {name: found.max for name, found in family.ranges(manifest).items()}
    fixed = table.sizes({name: found.inputs for name, found in manifest.graphs.items()})
    dims = table.dims({**largest, **fixed})
    return sum(
        math.prod(tensor.sizes(dims))
        * BYTES[dtypes[name] if tensor.dtype == NETWORK else tensor.dtype]
        for tensors, dtypes in (
            (table.graphs[graph].inputs, _dtypes(spec.inputs)),
            (table.graphs[graph].outputs, _dtypes(spec.outputs)),
        )
        for name, tensor in tensors.items()
    )


def _dtypes(tensors: Mapping[str, TensorSpec]) -> dict[str, str]:
    return {name: tensor.dtype for name, tensor in tensors.items()}

"""Bundles of plans that the double runs, made from a bundle of ONNX graphs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from castmate.engines.bundle import Bundle
from castmate.engines.family import optimization_profile
from castmate.engines.manifest import MANIFEST, FileSpec
from castmate.engines.plan import Flavour, PlanManifest, manifest_path
from tests.gpu_double.install import VERSIONS

MIB = 2**20


def plan_bundle_of(
    source: Bundle,
    folder: Path,
    flavour: Flavour = Flavour.TENSORRT_RTX,
    *,
    weights: int = 100 * MIB,
    activations: int = 10 * MIB,
    **graphs: Mapping[str, Any],
) -> Bundle:
    """Plans that compute what the graphs of a bundle compute, and claim to be as large as is said.

    Args:
        source: A bundle of ONNX graphs.
        folder: Where the bundle of plans appears.
        flavour: Which TensorRT it is for.
        weights: Bytes of every graph's weights.
        activations: Bytes of every graph's activations.
        graphs: What is different for a graph: `weights`, `activations` (by profile), `streamable`,
            `scratch`, and ways to fail: `refused`, `no_context`, `refuses_budget`, `poisons`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    specs = {}
    for name, graph in source.manifest.graphs.items():
        plan = {"weights": weights, "activations": [activations], **graphs.get(name, {})}
        path = folder / f"{name}.plan"
        path.write_text(json.dumps({"graph": name, "folder": str(source.path), **plan}))
        manifest = PlanManifest(
            graph=name,
            flavour=flavour,
            tensorrt_version=VERSIONS[flavour],
            compute_capability="8.9",
            onnx_sha256=graph.files[0].sha256,
            profiles=(optimization_profile(source.manifest, name),),
            plan_sha256=_spec(path).sha256,
            num_bytes=path.stat().st_size,
            weight_bytes=plan["weights"],
            activation_bytes=tuple(plan["activations"]),
            streams=bool(plan.get("streamable")),
        )
        manifest_path(path).write_text(manifest.model_dump_json())
        files = (_spec(path), _spec(manifest_path(path)))
        specs[name] = graph.model_copy(update={"files": files})
    graph_files = {spec.file for one in source.manifest.graphs.values() for spec in one.files}
    for spec in source.manifest.files:
        if spec.file not in graph_files:
            shutil.copyfile(source.located(spec), folder / spec.file)
    made = source.manifest.model_copy(update={"engine": flavour.value, "graphs": specs})
    (folder / MANIFEST).write_text(made.model_dump_json())
    return Bundle.open(folder)


def _spec(path: Path) -> FileSpec:
    data = path.read_bytes()
    return FileSpec(file=path.name, sha256=hashlib.sha256(data).hexdigest(), num_bytes=len(data))

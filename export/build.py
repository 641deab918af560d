"""A bundle of ONNX graphs to a bundle of TensorRT plans: `python -m export.build`.

Each graph is built in a process of its own and checked layer by layer. A plan appears whole, with
its manifest after it; a build that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from rich.progress import track

from castmate.engines.bundle import Bundle
from castmate.engines.family import optimization_profile
from castmate.engines.graphs import Range
from castmate.engines.manifest import MANIFEST, GraphSpec, Manifest, Profile, StylesSpec
from castmate.engines.plan import PLAN_SUFFIX, Flavour, LayerCounts, PlanManifest, manifest_path
from castmate.errors import BundleError, CastmateError
from castmate.files import write_atomically
from export.builder import (
    Job,
    installed,
    load_tensorrt,
    package_version,
    tensorrt_version,
)
from export.bundle import file_spec
from export.errors import ExportError, MissingTool, NotEnough, SilentFallback
from export.footprint import reported_bytes
from export.layers import Expected, check, parse
from export.lora.styles import RANK_STEP
from export.quantization.none import NONE
from export.quantization.registry import SCHEMES
from export.targets import check_target, found_target
from export.unfused import write_unfused

BUILDER_BYTES = 2**30
PLAN_FACTOR = 1.05
UNFUSED = "+unfused"
"""Behind the hash of the ONNX file in the manifest of a plan without fused attention."""


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        flavour: Which TensorRT.
        target: Compute capability of the GPU, such as "8.9".
        max_images: Pictures in one call that the engines accept. The pipeline draws one at a time,
            and each more costs GPU memory.
        max_side: Pixels of a side that the engines accept at most; by default the bundle's. Less
            takes less GPU memory.
        weight_streaming: See `export.builder.Job`.
        optimization_level: See `export.builder.Job`.
        allow_fallback: Keep an engine that is slower than its graph asks for, and say so.
        fused_attention: Let TensorRT compute an attention in one kernel; see `export.unfused`.
    """

    flavour: Flavour
    target: str
    max_images: int = 1
    max_side: int | None = None
    weight_streaming: bool = False
    optimization_level: int | None = None
    allow_fallback: bool = False
    fused_attention: bool = True


def build_bundle(source: Bundle, folder: Path, options: Options) -> Manifest:
    """Build every graph of an ONNX bundle.

    Args:
        source: The ONNX bundle.
        folder: Where the bundle of plans appears; plans in it that still fit are kept.
        options: How to build.

    Raises:
        ExportError: A graph cannot be built, or there is not enough memory or disk.
        BundleError: The source is damaged or holds no ONNX graphs.
    """
    manifest = source.manifest
    if manifest.engine != "onnxruntime":
        raise ExportError(f"Bundle {source.name!r} holds plans already, not ONNX graphs.")
    load_tensorrt(options.flavour)
    models = {
        name: onnx.load(source.located(graph.files[0]), load_external_data=False)
        for name, graph in manifest.graphs.items()
    }
    expected = {name: Expected.of(model) for name, model in models.items()}
    kernels = frozenset().union(*(graph.kernels for graph in expected.values()))
    check_target(options.flavour, options.target, kernels)
    profile = built_profile(manifest.profile, options)
    manifest = manifest.model_copy(
        update={"profile": profile, "styles": manifest.styles and _at_least(manifest.styles)}
    )
    folder.mkdir(parents=True, exist_ok=True)
    _check_resources(manifest, folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # until all plans are there, there is no bundle
    graphs = {
        name: _build_graph(source, manifest, name, expected[name], folder, options)
        for name in track(manifest.graphs, "Building engines")
    }
    styles = manifest.styles.known.values() if manifest.styles else ()
    for spec in (*manifest.tokenizers.values(), *styles, *filter(None, [manifest.golden])):
        shutil.copyfile(source.file(spec), folder / spec.file)
    made = manifest.model_copy(
        update={
            "engine": options.flavour.value,
            "base": None,
            "gpu": f"compute capability {options.target}",
            "graphs": graphs,
            "created_with": {
                **manifest.created_with,
                options.flavour.value: package_version(options.flavour),
            },
        }
    )
    write_atomically(folder / MANIFEST, f"{made.model_dump_json(indent=1)}\n".encode())
    return made


def built_profile(whole: Profile, options: Options) -> Profile:
    """What the engines are built for.

    Raises:
        ExportError: Nothing is left of the bundle's sizes.
    """
    side = whole.side
    if options.max_side is not None and not side.min <= options.max_side <= side.max:
        raise ExportError(
            f"--max-side {options.max_side}: the bundle draws {side.min} to {side.max} pixels a "
            "side; name one of these."
        )
    largest = options.max_side or side.max
    return whole.model_copy(
        update={
            "images": Range(min=1, opt=1, max=min(options.max_images, whole.images.max)),
            "side": Range(min=side.min, opt=min(side.opt, largest), max=largest),
        }
    )


def _at_least(styles: StylesSpec) -> StylesSpec:
    """The same styles with a rank that engines take where there is none: an axis is never empty."""
    rank = styles.rank.model_copy(update={"min": RANK_STEP})
    return styles.model_copy(update={"rank": rank})


def _build_graph(
    source: Bundle,
    manifest: Manifest,
    name: str,
    expected: Expected,
    folder: Path,
    options: Options,
) -> GraphSpec:
    graph, plan = manifest.graphs[name], folder / f"{name}{PLAN_SUFFIX}"
    sources = [source.file(part) for part in graph.files]
    identity = "+".join(part.sha256 for part in graph.files)
    if not options.fused_attention:
        identity += UNFUSED
    profiles = (optimization_profile(manifest, name),)
    if not _still_fits(plan, identity, profiles, options):
        manifest_path(plan).unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
            onnx_file = sources[0]
            if not options.fused_attention:
                onnx_file = write_unfused(onnx_file, Path(scratch))
                expected = Expected.of(onnx.load(onnx_file, load_external_data=False))
            job = Job(
                graph=name,
                onnx=onnx_file,
                plan=Path(scratch) / plan.name,
                log=Path(scratch) / "log.jsonl",
                flavour=options.flavour,
                target=options.target,
                profiles=profiles,
                weight_streaming=options.weight_streaming,
                optimization_level=options.optimization_level,
                timing_cache=folder / f".timing-{options.flavour}-{options.target}.cache",
            )
            run(job, Path(scratch) / "job.json")
            lines = [json.loads(line) for line in job.log.read_text().splitlines()]
            layers = _inspect(job, lines, expected, allow_fallback=options.allow_fallback)
            weight_bytes, activation_bytes = reported_bytes(name, lines)
            spec = file_spec(job.plan)
            made = PlanManifest(
                graph=name,
                flavour=options.flavour,
                tensorrt_version=tensorrt_version(options.flavour),
                compute_capability=options.target,
                onnx_sha256=identity,
                profiles=profiles,
                plan_sha256=spec.sha256,
                num_bytes=spec.num_bytes,
                weight_bytes=weight_bytes,
                activation_bytes=activation_bytes,
                streams=options.weight_streaming,
                layers=layers,
            )
            job.plan.replace(plan)
        write_atomically(manifest_path(plan), f"{made.model_dump_json(indent=1)}\n".encode())
    return graph.model_copy(update={"files": (file_spec(plan), file_spec(manifest_path(plan)))})


def run(job: Job, path: Path) -> None:
    """Run one job in a process of its own.

    Raises:
        ExportError: It failed, or was killed.
    """
    job.save(path)
    command = [sys.executable, "-m", "export.builder", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode < 0:
        raise NotEnough(
            f"The builder of {job.graph!r} was killed by signal {-done.returncode}, most likely "
            "for want of memory. Nothing was kept of it; finished plans were."
        )
    if done.returncode:
        raise ExportError(done.stderr.strip() or f"The builder of {job.graph!r} failed.")
    if not job.plan.is_file():
        raise ExportError(f"The builder of {job.graph!r} ended without writing a plan.")


def _inspect(
    job: Job, lines: Sequence[str], expected: Expected, *, allow_fallback: bool
) -> LayerCounts | None:
    layers = parse(lines)
    try:
        if not layers:
            raise SilentFallback(
                f"TensorRT listed no layers of {job.graph!r}, so nobody knows whether it is fast."
            )
        return check(layers, expected, job.graph)
    except SilentFallback as error:
        if not allow_fallback:
            raise SilentFallback(f"{error}\nKeep it all the same with --allow-fallback.") from None
        print(error, file=sys.stderr)
    return None


def _still_fits(plan: Path, identity: str, profiles: tuple[object, ...], options: Options) -> bool:
    try:
        found = PlanManifest.beside(plan)
    except BundleError:
        return False
    return not found.differences(
        flavour=options.flavour,
        tensorrt_version=tensorrt_version(options.flavour),
        compute_capability=options.target,
        onnx_sha256=identity,
        profiles=profiles,  # type: ignore[arg-type]
    )


def _check_resources(manifest: Manifest, folder: Path) -> None:
    sizes = {name: sum(f.num_bytes for f in g.files) for name, g in manifest.graphs.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    need, free = build_memory(sizes[largest], manifest.quantization), available_memory()
    if need > free:
        raise NotEnough(
            f"Building {largest!r} takes about {need / 2**30:.0f} GiB of host memory, "
            f"{free / 2**30:.0f} GiB are free. Build on a larger machine, or export it with "
            "--quantization."
        )
    need, free = int(PLAN_FACTOR * sum(sizes.values())), shutil.disk_usage(folder).free
    if need > free:
        raise NotEnough(
            f"The plans take about {need / 2**30:.0f} GiB, {free / 2**30:.0f} GiB are free on the "
            f"disk of {folder}. Choose another --out."
        )


def build_memory(num_bytes: int, schemes: Iterable[str]) -> int:
    """Bytes of host memory that building a graph takes.

    Args:
        num_bytes: Of its weights.
        schemes: Names of those that its weights are stored in; none if it is not quantized.
    """
    factor = max(SCHEMES[name].build_memory for name in (str(NONE), *schemes))
    return int(factor * num_bytes) + BUILDER_BYTES


def available_memory() -> int:
    """Bytes of host memory that can be taken without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return sys.maxsize


def choose_flavour(wanted: str) -> Flavour:
    """`auto` takes what is installed, data-centre TensorRT first.

    Raises:
        MissingTool: Nothing is.
    """
    if wanted != "auto":
        return Flavour(wanted)
    if found := installed():
        return found[0]
    load_tensorrt(Flavour.TENSORRT_RTX)
    raise MissingTool("No TensorRT is installed.")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m export.build", description=__doc__)
    made.add_argument("bundle", help="name or folder of a bundle of ONNX graphs")
    made.add_argument("--out", type=Path, required=True, help="folder of the bundle of plans")
    made.add_argument("--flavour", choices=["auto", *Flavour], default="auto")
    made.add_argument(
        "--target",
        default="",
        help="compute capability of the GPU: 8.9 (L40S, RTX 40), 9.0 (H100, H200), 12.0 (RTX 50); "
        "default: that of the GPU here",
    )
    made.add_argument("--max-images", type=int, choices=range(1, 5), default=Options.max_images)
    made.add_argument("--max-side", type=int, help="pixels of a side; less takes less GPU memory")
    made.add_argument("--weight-streaming", action="store_true", help="for small cards; slower")
    made.add_argument("--optimization-level", type=int, choices=range(6))
    made.add_argument("--allow-fallback", action="store_true", help="keep slow engines")
    made.add_argument(
        "--no-fused-attention",
        action="store_false",
        dest="fused_attention",
        help="for a GPU whose fused kernels compute something else; slower, takes more memory",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and print what was made of each graph."""
    given = parser().parse_args(arguments)
    try:
        options = Options(
            choose_flavour(given.flavour),
            given.target or found_target(),
            given.max_images,
            given.max_side,
            given.weight_streaming,
            given.optimization_level,
            given.allow_fallback,
            given.fused_attention,
        )
        made = build_bundle(Bundle.open(given.bundle), given.out, options)
    except (ExportError, CastmateError) as error:
        print(error, file=sys.stderr)
        return 1
    for name in made.graphs:
        found = PlanManifest.beside(given.out / f"{name}{PLAN_SUFFIX}").layers
        print(f"{name}: {found.model_dump() if found else 'not checked'}")
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

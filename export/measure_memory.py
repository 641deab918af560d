"""What the engines of a published network take of a GPU: `python -m export.measure_memory`.

Nobody need have the weights, a GPU, or memory for the whole network. Weights are counted from the
sizes of its graphs. Activations are what real ahead-of-time builds report for the same network in
full width with few blocks and random weights; where they grow with the blocks, a straight line is
followed to the published number. `castmate doctor` reads the result for a model that is not
exported yet.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

from castmate.engines.family import family_of as served_family
from castmate.engines.family import optimization_profile
from castmate.engines.footprint import tensor_bytes
from castmate.engines.graphs import Range
from castmate.engines.manifest import GraphSpec, Manifest, TokenizerSpec
from castmate.engines.plan import Flavour
from castmate.files import write_atomically
from export.build import run
from export.builder import Job, tensorrt_version
from export.bundle import graph_spec
from export.errors import ExportError
from export.family import DEFAULT, Network, bundle_graphs, family_of, published
from export.footprint import reported_bytes
from export.precision import Precision, convert
from export.quantization.fp8 import FP8_ATTENTION
from export.quantization.none import NONE
from export.quantization.registry import SCHEMES
from export.shallow import shallow_step
from export.sizes import graph_sizes, meta_network
from export.to_onnx import SMALLEST_EXTERNAL, to_onnx

BLOCKS = (1, 2, 4, 8)
"""Of the step's graph, with 12 GB of host memory for the most."""
FEWEST = 1
"""Of every other graph."""
SCHEME = FP8_ATTENTION
"""Of the step's graph."""
SIDES = (1024, 1536)
MILLION = 10**6
FLAVOUR, TARGET = Flavour.TENSORRT_RTX, "8.9"

Measured = dict[str, dict[str, dict[str, int]]]
"""Activations by graph, side and number of blocks."""


def whole_network(family: str) -> Network:
    """The published network in full width with the fewest blocks, its weights random, in bf16."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = published(family)
        if found.shallow is None:
            raise ExportError(f"Family {family!r} does not say how to leave blocks out.")
        network = found.new_network(found.shallow(found.config, FEWEST)).eval()
    finally:
        torch.set_default_dtype(before)
    convert(network, torch.bfloat16)
    return network


def step_graphs(family: str) -> list[str]:
    """The graphs that every step runs."""
    stages = served_family(family).stages
    return [name for stage in stages if stage.runs == 0 for name in stage.graphs]


def export_graphs(family: str, blocks: int, names: Sequence[str], folder: Path) -> None:
    """Write some graphs of a shallow network, all of the step's or none, and a manifest."""
    is_step = set(names) <= set(step_graphs(family))
    network = shallow_step(family, blocks, SCHEME) if is_step else whole_network(family)
    makers = bundle_graphs(network, step_caching=False)
    # At full depth the step's weights lie beside its graph.
    limit = 0 if is_step else SMALLEST_EXTERNAL
    graphs = {}
    for name in names:
        path = folder / f"{name}.onnx"
        files = to_onnx(makers[name](), path, precision=Precision.BF16, external_bytes=limit)
        graphs[name] = graph_spec(files)
    write_manifest(network, graphs, folder)


def write_manifest(network: Network, graphs: Mapping[str, GraphSpec], folder: Path) -> None:
    """Write what `manifest_for` reads: the sizes of a network and its graphs."""
    family = family_of(network.family)
    length = network.config.max_sequence_length
    tokenizer = TokenizerSpec(file="", sha256="", num_bytes=0, max_length=length, pad_id=0)
    manifest = Manifest(
        format=0,
        family=network.family,
        name=network.config.name,
        description="",
        engine="onnxruntime",
        precision="bf16",
        gpu=None,
        licences={},
        created_with={},
        graphs=graphs,
        tokenizers=dict.fromkeys(("tokenizer", "tokenizer_2"), tokenizer),
        profile=family.profile,
        defaults=family.defaults,
        constants=family.constants(network),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def manifest_for(folder: Path, side: int) -> Manifest:
    """What was written, for one picture of at most so many pixels a side."""
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    whole = manifest.profile.side
    profile = manifest.profile.model_copy(
        update={
            "side": Range(min=whole.min, opt=min(whole.opt, side), max=side),
            "images": Range(min=1, opt=1, max=1),
        }
    )
    return manifest.model_copy(update={"profile": profile})


def activations(folder: Path, name: str, side: int) -> int:
    """Build one of the written graphs for pictures up to a side, and read what it takes.

    Returns:
        Bytes, rounded up to whole millions.
    """
    manifest = manifest_for(folder, side)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        job = Job(
            graph=name,
            onnx=folder / f"{name}.onnx",
            plan=Path(scratch) / "plan",
            log=Path(scratch) / "log",
            flavour=FLAVOUR,
            target=TARGET,
            profiles=(optimization_profile(manifest, name),),
        )
        run(job, Path(scratch) / "job.json")
        lines = [json.loads(line) for line in job.log.read_text().splitlines()]
    return -(-reported_bytes(name, lines)[1][0] // MILLION) * MILLION


def measure(family: str, names: Collection[str], every: Sequence[int], scratch: Path) -> Measured:
    """Build, and read what each engine takes.

    Args:
        family: Whose network.
        names: The graphs to build.
        every: Numbers of blocks of what steps run; the other graphs do not depend on them.
        scratch: For graphs; those that are in it already are not exported again.
    """
    steps = [name for name in step_graphs(family) if name in names]
    exports = {(FEWEST, scratch / "other"): [name for name in names if name not in steps]}
    exports |= {(blocks, scratch / f"step-{blocks}"): steps for blocks in every}
    measured: Measured = {}
    for (blocks, folder), graphs in exports.items():
        if not graphs:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        # In a process of its own: the network's memory is free again when the builder starts.
        command = [sys.executable, "-m", "export.measure_memory", "--family", family]
        command += ["--export", str(folder), "--blocks", str(blocks), "--graphs", *graphs]
        if not (folder / "manifest.json").is_file():
            subprocess.run(command, check=True)
        for name in graphs:
            for side in SIDES:
                found = activations(folder, name, side)
                measured.setdefault(name, {}).setdefault(str(side), {})[str(blocks)] = found
                sys.stderr.write(f"{name}, {side} px, {blocks} blocks: {found / 1e9:.3f} GB\n")
    return measured


def joined(before: Measured, found: Measured) -> Measured:
    """What was measured before, and now."""
    made = {
        name: {side: dict(rows) for side, rows in sides.items()} for name, sides in before.items()
    }
    for name, sides in found.items():
        for side, rows in sides.items():
            row = made.setdefault(name, {}).setdefault(side, {})
            row |= rows
            made[name][side] = dict(sorted(row.items(), key=lambda item: int(item[0])))
    return made


def at_full_depth(by_blocks: Mapping[str, int], depth: int) -> int:
    """The most that was measured, and more where the last block took more than the one before."""
    points = sorted((int(number), found) for number, found in by_blocks.items())
    most = max(found for _, found in points)
    if len(points) == 1:
        return most
    (before, less), (last, found) = points[-2:]
    slope = (found - less) / (last - before)
    return max(most, int(found + slope * (depth - last)))


def counted_weights(family: str) -> dict[str, object]:
    """Bytes of every graph, and the GPUs that gain, by what is stored how.

    Encoders are quantized but in one row: bf16 ones are for cards that have the room.
    """
    network, found = meta_network(published(family).config, family), family_of(family)
    weights: dict[str, dict[str, int]] = {}
    gpus: dict[str, dict[str, object]] = {}
    for scheme in SCHEMES.values():
        if scheme is NONE or any(scheme.title in title for title in weights):
            continue
        of_encoders = "and" if scheme.wider is scheme else f"and {scheme.wider.title}"
        rows = [(f"{scheme.title} transformer {of_encoders} encoders", True)]
        if scheme.title == FP8_ATTENTION.title:
            rows.insert(0, (f"{scheme.title} transformer", False))
        for title, encoders in rows:
            sizes = graph_sizes(network, scheme, found.kept(encoders=encoders), found.sensitive)
            weights[title] = {name: size.num_bytes(Precision.BF16) for name, size in sizes.items()}
            gpus[title] = {"scheme": scheme.name, "gains": list(scheme.gains)}
    return {"weights": weights, "gpus": gpus}


def result(family: str, folder: Path, measured: Measured) -> dict[str, object]:
    """What `castmate.engines.footprint` reads.

    Args:
        family: Whose network was measured.
        folder: Any of the folders with a manifest of it.
        measured: All there is.
    """
    depth = published(family).depth
    return {
        "model": published(family).config.name,
        "sides": [str(side) for side in SIDES],
        **counted_weights(family),
        "tensors": {
            name: {str(side): tensors(manifest_for(folder, side), name, side) for side in SIDES}
            for name in measured
        },
        "activations": {
            name: {side: at_full_depth(found, depth) for side, found in sides.items()}
            for name, sides in measured.items()
        },
        "provenance": {
            "weights": "counted from the sizes of the graphs, bf16 but for what is named",
            "activations": (
                f"reported by {FLAVOUR} {tensorrt_version(FLAVOUR)} for compute capability "
                f"{TARGET}, bf16 with an FP8 transformer whose layers of one input are merged, one "
                "picture, two guidance passes, random weights in full width; the depth is reduced, "
                f"and what steps run is extrapolated from {depths(family, measured)} to {depth} "
                "blocks"
            ),
            "measured": {name: dict(sides) for name, sides in measured.items()},
        },
    }


def depths(family: str, measured: Measured) -> str:
    """The numbers of blocks that what steps run was built with."""
    rows = (rows for name in step_graphs(family) for rows in measured.get(name, {}).values())
    return ", ".join(map(str, sorted({int(blocks) for row in rows for blocks in row})))


def tensors(manifest: Manifest, graph: str, side: int) -> int:
    """Bytes of a graph's inputs and outputs at the published sizes, all at their largest."""
    served = served_family(manifest.family)
    config = published(manifest.family).config
    dims = {
        **family_of(manifest.family).dims(config, side),
        **{name: found.max for name, found in served.ranges(manifest).items()},
    }
    found = served.table.graphs[graph]
    dtypes = dict.fromkeys((*found.inputs, *found.outputs), "bfloat16")
    return tensor_bytes(served.table, graph, served.table.dims(dims), dtypes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the result."""
    made = argparse.ArgumentParser(prog="python -m export.measure_memory", description=__doc__)
    made.add_argument("--family", default=DEFAULT)
    made.add_argument("--out", type=Path, help="JSON file; what it holds of other graphs stays")
    made.add_argument("--recount", action="store_true", help="count weights again, build nothing")
    made.add_argument("--graphs", nargs="+", help="build only these; default: all")
    made.add_argument(
        "--blocks", type=int, nargs="+", default=BLOCKS, help="of what every step runs"
    )
    made.add_argument("--scratch", type=Path, help="folder for graphs, 15 GB; kept if named")
    made.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    given = made.parse_args(arguments)
    network = meta_network(published(given.family).config, given.family)
    names = given.graphs or list(bundle_graphs(network, step_caching=False))
    if given.export is not None:
        export_graphs(given.family, given.blocks[0], names, given.export)
        return 0
    held = json.loads(given.out.read_bytes()) if given.out and given.out.is_file() else {}
    if given.recount:
        if not held:
            made.error("--recount needs a file that holds the rest already: name it with --out")
        found = held | counted_weights(given.family)
    else:
        before = held["provenance"]["measured"] if held else {}
        with tempfile.TemporaryDirectory() as temporary:
            scratch = given.scratch or Path(temporary)
            measured = joined(before, measure(given.family, names, given.blocks, scratch))
            folder = next(scratch.glob("*/manifest.json")).parent
            found = result(given.family, folder, measured)
    data = json.dumps(found, indent=1) + "\n"
    if given.out is not None:
        write_atomically(given.out, data.encode())
    else:
        sys.stdout.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())

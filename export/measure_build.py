"""What it takes to build a step's graph of a published network: `python -m export.measure_build`.

By the number of blocks: the builder's time and peak of host memory, its kernels, the bytes of plan
and weights. The network has full width, random weights and no encoders, so nobody need have the
real weights or a GPU. Weights stay on disk until the builder reads them; the plan is written as it
is made. A number of blocks that takes more than `--host-memory` is not tried. What `--out` holds of
other numbers of blocks, of the same scheme and TensorRT, stays there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from castmate.engines.family import optimization_profile
from castmate.engines.plan import Flavour
from export.build import build_memory
from export.builder import Job, tensorrt_version
from export.bundle import graph_spec
from export.environment import write_result
from export.errors import ExportError, NotEnough
from export.family import DEFAULT, bundle_graphs, family_of, published
from export.footprint import reported_bytes
from export.layers import Expected, check, parse
from export.measure_memory import manifest_for, write_manifest
from export.precision import Precision
from export.quantization.registry import SCHEMES
from export.quantization.scheme import Scheme
from export.shallow import shallow_step, without_weights
from export.sizes import graph_sizes
from export.targets import check_target
from export.to_onnx import to_onnx

GRAPH = "transformer"
GIB = 2**30

Row = dict[str, Any]
Rows = dict[str, Row]
"""By number of double blocks: what each target's build took, or why there was none."""


def export(family: str, blocks: int, scheme: Scheme, folder: Path) -> None:
    """Write the graph and a manifest."""
    network = shallow_step(family, blocks, scheme)
    graph = bundle_graphs(network, step_caching=False)[GRAPH]()
    files = to_onnx(graph, folder / f"{GRAPH}.onnx", precision=Precision.BF16, external_bytes=0)
    write_manifest(network, {GRAPH: graph_spec(files)}, folder)


def build(folder: Path, target: str, side: int) -> dict[str, object]:
    """Build the graph in a process of its own, and refuse kernels that were not asked for.

    Raises:
        NotEnough: The builder was killed.
        SilentFallback: A kernel is not the one that the scheme asks for.
    """
    path = folder / f"{GRAPH}.onnx"
    expected = Expected.of(onnx.load(path, load_external_data=False))
    check_target(Flavour.TENSORRT_RTX, target, expected.kernels)
    profiles = (optimization_profile(manifest_for(folder, side), GRAPH),)
    job = Job(
        graph=GRAPH,
        onnx=path,
        plan=folder / f"{GRAPH}.plan",
        log=folder / "log",
        flavour=Flavour.TENSORRT_RTX,
        target=target,
        profiles=profiles,
    )
    job.save(folder / "job.json")
    start = time.monotonic()
    command = [sys.executable, "-m", "export.builder", str(folder / "job.json")]
    _, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, command[0], command), 0)
    if status:
        raise NotEnough(f"The builder of {GRAPH!r} ended with status {status}.")
    seconds = time.monotonic() - start
    lines = [json.loads(line) for line in job.log.read_text().splitlines()]
    weights, activations = reported_bytes(GRAPH, lines)
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_host_bytes": usage.ru_maxrss * 1024,
        "plan_bytes": job.plan.stat().st_size,
        "weight_bytes": weights,
        "activation_bytes": activations[0],
        "layers": check(parse(lines), expected, GRAPH).model_dump(),
    }


def needed(family: str, blocks: int, scheme: Scheme) -> int:
    """Bytes of host memory that a build is expected to take."""
    network, found = without_weights(family, blocks), family_of(family)
    sizes = graph_sizes(network, scheme, found.kept(encoders=False), found.sensitive)
    return build_memory(sizes[GRAPH].num_bytes(Precision.BF16), [str(scheme)])


def described(family: str, scheme: Scheme, side: int) -> dict[str, object]:
    """What all rows of a result have in common."""
    return {
        "model": published(family).config.name,
        "scheme": str(scheme),
        "tensorrt_rtx": tensorrt_version(Flavour.TENSORRT_RTX),
        "side_px": side,
        "depth": published(family).depth,
    }


def held(path: Path | None, description: Mapping[str, object]) -> Rows:
    """The rows that a file holds already, where it has the same description."""
    if path is None or not path.is_file():
        return {}
    found = json.loads(path.read_bytes())
    same = all(found.get(name) == value for name, value in description.items())
    rows: Rows = found["by_double_blocks"] if same else {}
    return rows


def measure(
    family: str,
    scheme: Scheme,
    targets: Sequence[str],
    every: Sequence[int],
    *,
    side: int,
    host_memory: int,
    scratch: Path,
) -> Iterator[tuple[str, Row]]:
    """Build for each target with each number of blocks that there is memory for."""
    for blocks in every:
        if (need := needed(family, blocks, scheme)) > host_memory:
            yield str(blocks), {"reason": f"takes about {need / GIB:.1f} GiB of host memory"}
            continue
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            # In a process of its own: the network's memory is free again when the builder starts.
            command = [sys.executable, "-m", "export.measure_build", "--family", family]
            command += ["--quantization", str(scheme), "--blocks", str(blocks), "--export", folder]
            subprocess.run(command, check=True)
            row: Row = {target: build(Path(folder), target, side) for target in targets}
        sys.stderr.write(f"{scheme}, {blocks} double blocks: {json.dumps(row)}\n")
        yield str(blocks), row


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print or write the result."""
    made = argparse.ArgumentParser(prog="python -m export.measure_build", description=__doc__)
    made.add_argument("--family", default=DEFAULT)
    made.add_argument("--quantization", choices=list(SCHEMES), required=True)
    made.add_argument("--target", action="append", default=[], help="may be repeated")
    made.add_argument("--blocks", type=int, nargs="+", default=[1], help="double blocks")
    made.add_argument("--side", type=int, default=1024, help="pixels of the largest picture")
    made.add_argument("--host-memory", type=float, default=24, help="GiB that may be taken")
    made.add_argument("--scratch", type=Path, help="folder for graphs and plans")
    made.add_argument("--out", type=Path, help="JSON file")
    made.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    given = made.parse_args(arguments)
    scheme = SCHEMES[given.quantization]
    try:
        if given.export is not None:
            export(given.family, given.blocks[0], scheme, given.export)
            return 0
        description = described(given.family, scheme, given.side)
        rows = held(given.out, description)
        for blocks, row in measure(
            given.family,
            scheme,
            given.target or ["12.0"],
            given.blocks,
            side=given.side,
            host_memory=int(given.host_memory * GIB),
            scratch=given.scratch or Path(tempfile.gettempdir()),
        ):
            rows[blocks] = row
            found = description | {"by_double_blocks": dict(sorted(rows.items(), key=_number))}
            if given.out is not None:  # after each, so that an end by time loses none
                write_result(given.out, "build", found)
    except ExportError as error:
        print(error, file=sys.stderr)
        return 1
    if given.out is None:
        print(json.dumps(found, indent=1))
    return 0


def _number(item: tuple[str, Row]) -> int:
    return int(item[0])


if __name__ == "__main__":
    sys.exit(main())

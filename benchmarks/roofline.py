"""The least time that a graph can take: `python -m benchmarks.roofline`.

The floor is the larger of two times: that of all its matrix products at the peak rate, and that of
moving all its weights, inputs and outputs once at the peak bandwidth. No graph reaches it; the
distance shows what is left to gain. Torch counts the products from shapes alone, so the full size
needs no weights. Published peaks are those of the data sheets, dense, without sparsity; this
machine's own are measured.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import percentiles
from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.families.instantcharacter.graphs import PARTS, TABLE, WHOLE
from demo_model.config import TOON
from export.environment import write_result
from export.families.instantcharacter.config import FLUX, ModelConfig
from export.families.instantcharacter.family import FAMILY
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.step_caching import bundle_graphs
from export.families.instantcharacter.unquantized import UNQUANTIZED
from export.graphs import ExportGraph, empty_inputs
from export.quantization.fp8 import FP8
from export.quantization.quantize import quantizable

RESULTS = Path(__file__).parent / "results"
RUNS, WARM_UPS = 7, 2
STEPS = 28
CONFIGS: Mapping[str, ModelConfig] = {"toon": TOON, "flux": FLUX}
PER_STEP = (WHOLE, *PARTS)
ALL_STEPS = ("modulation", "subject_resampler")


@dataclass(frozen=True)
class Peaks:
    """What a device can do at best: TFLOP/s of its 16- or 32-bit products and of FP8, and TB/s."""

    tflops: float
    fp8_tflops: float
    tb_per_s: float


GPUS: Mapping[str, Peaks] = {
    "H200 SXM": Peaks(989, 1979, 4.8),
    "H100 SXM": Peaks(989, 1979, 3.35),
    "B200": Peaks(2250, 4500, 8.0),
    "L40S": Peaks(362, 733, 0.864),
    "RTX 4090": Peaks(165, 330, 1.008),
    "RTX 5090": Peaks(210, 419, 1.792),
}


@dataclass(frozen=True)
class Work:
    """The work of one run of a graph.

    Attributes:
        flop: Matrix products and convolutions; a multiply-add counts as two.
        fp8_flop: The part of `flop` in layers that export can quantize.
        weights: Number of weights.
        fp8_weights: The part of `weights` that export can quantize.
        io_values: Number of input and output values.
    """

    flop: float
    fp8_flop: float
    weights: int
    fp8_weights: int
    io_values: int

    def floor_ms(self, peaks: Peaks, *, num_bytes: int, fp8: bool = False) -> float:
        """The least time on a device.

        Args:
            peaks: The device.
            num_bytes: Size of an unquantized weight and of an activation.
            fp8: Run what can be quantized in FP8.
        """
        narrow = self.fp8_flop if fp8 else 0.0
        compute = (self.flop - narrow) / peaks.tflops + narrow / peaks.fp8_tflops
        saved = self.fp8_weights * (num_bytes - 1) if fp8 else 0
        moved = (self.weights + self.io_values) * num_bytes - saved
        return 1000 * max(compute, moved / peaks.tb_per_s) / 1e12


def work(config: ModelConfig, side: int) -> dict[str, Work]:
    """The work of every graph for a square picture; what makes all steps at once makes `STEPS`."""
    with torch.device("meta"), torch.no_grad():
        network = InstantCharacter(config).eval().requires_grad_(False)
        makers = {
            **bundle_graphs(network, step_caching=False),
            **bundle_graphs(network, step_caching=True),
        }
        return {name: _count(name, make(), config, side) for name, make in makers.items()}


def dimensions(config: ModelConfig, side: int, graph: str) -> dict[str, int]:
    """Every dimension of a graph for one square picture."""
    found = dict(FAMILY.dims(config, side))
    return TABLE.dims(found | (dict.fromkeys(("T", "U"), STEPS) if graph in ALL_STEPS else {}))


def _count(name: str, graph: ExportGraph, config: ModelConfig, side: int) -> Work:
    inputs = empty_inputs(TABLE, name, dimensions(config, side, name), torch.float32)
    counter = FlopCounterMode(display=False)
    with counter:
        outputs = graph.module(*inputs.values())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    layers = quantizable(graph.module, FP8, UNQUANTIZED) if name in PER_STEP else ()
    narrow = dict(layers)
    used = counter.get_flop_counts()
    root = type(graph.module).__name__
    ran = [layer for layer in narrow if f"{root}.{layer}" in used]
    touched = {
        layer: module
        for layer, module in graph.module.named_modules()
        if name not in PER_STEP or f"{root}.{layer}" in used
    }
    weights = sum(w.numel() for m in touched.values() for w in m.parameters(recurse=False))
    return Work(
        float(counter.get_total_flops()),
        float(sum(sum(used[f"{root}.{layer}"].values()) for layer in ran)),
        weights,
        sum(w.numel() for layer in ran for w in narrow[layer].parameters()),
        sum(x.numel() for x in (*inputs.values(), *outputs)),
    )


def own_peaks(side: int = 1536, mib: int = 256) -> Peaks:
    """This machine's peaks: the best of some large fp32 products and copies."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    source = torch.zeros(mib * 2**18)
    target = torch.empty_like(source)

    def best_s(run: Callable[[], object]) -> float:
        times = []
        for _ in range(RUNS + WARM_UPS):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    tflops = 2 * side**3 / best_s(lambda: torch.mm(a, b)) / 1e12
    moved = 2 * source.numel() * 4 / best_s(lambda: target.copy_(source)) / 1e12
    return Peaks(round(tflops, 4), round(tflops, 4), round(moved, 4))


WITHOUT_STYLE = {"r": 0}
"""The rank of the factors of a style, where the graphs of a bundle take any."""


def measured_ms(bundle: Bundle, runtime: Runtime, config: ModelConfig, side: int) -> dict[str, Any]:
    """Time every graph of a bundle by itself, on arbitrary inputs."""
    found, random = {}, np.random.default_rng(0)
    for name, graph in bundle.manifest.graphs.items():
        dims, inputs = dimensions(config, side, name) | WITHOUT_STYLE, {}
        for key, spec in graph.inputs.items():
            shape = [n if isinstance(n, int) else dims[n] for n in spec.shape]
            values = random.standard_normal(shape) if "float" in spec.dtype else np.zeros(shape)
            inputs[key] = runtime.upload(values.astype(spec.dtype))
        engine, times = runtime.load(name), []
        for _ in range(WARM_UPS + RUNS):
            start = time.perf_counter()
            runtime.download(next(iter(engine(**inputs).values())))
            times.append(1000 * (time.perf_counter() - start))
        found[name] = percentiles(times[WARM_UPS:])
    return found


def measure(name: str, side: int) -> dict[str, Any]:
    """Floors of both networks, and the bundle's graphs measured on this machine."""
    own, bundle = own_peaks(), Bundle.open(name)
    in_cache = replace(own, tb_per_s=math.inf)  # the tiny graphs stay in cache
    counted = {network: work(config, size) for network, config, size in _networks(side)}
    times = measured_ms(bundle, OnnxRuntime(bundle), TOON, side)
    graphs = {}
    for graph, figures in times.items():
        floor = counted["toon"][graph].floor_ms(in_cache, num_bytes=4)
        share = floor / figures["p50_ms"]
        graphs[graph] = {**figures, "floor_ms": round(floor, 4), "share_of_floor": round(share, 4)}
    floors = {
        gpu: {
            graph: {
                precision: round(done.floor_ms(peaks, num_bytes=2, fp8=fp8), 4)
                for precision, fp8 in (("bf16", False), ("fp8", True))
            }
            for graph, done in counted["flux"].items()
        }
        for gpu, peaks in GPUS.items()
    }
    return {
        "request": {"size": f"{side}*{side}", "num_inference_steps": STEPS},
        "network": bundle.name,
        "own_peaks": asdict(own),
        "graphs": graphs,
        "full_size": {
            "size": "1024*1024",
            "peaks": {gpu: asdict(peaks) for gpu, peaks in GPUS.items()},
            "work": {graph: asdict(done) for graph, done in counted["flux"].items()},
            "floors_ms": floors,
        },
    }


def _networks(side: int) -> tuple[tuple[str, ModelConfig, int], ...]:
    return (("toon", TOON, side), ("flux", FLUX, 1024))


def show(result: dict[str, Any]) -> None:
    """Print both tables."""
    table = Table("graph", "ms", "floor ms", "share", title="here")
    for name, row in result["graphs"].items():
        cells = (f"{row['p50_ms']:.2f}", f"{row['floor_ms']:.2f}", f"{row['share_of_floor']:.0%}")
        table.add_row(name, *cells)
    console = Console(width=140)
    console.print(table)
    floors = result["full_size"]["floors_ms"]
    table = Table("full size, floor in ms: bf16 / fp8", *floors)
    for name in next(iter(floors.values())):
        table.add_row(
            name, *("{bf16:.2f} / {fp8:.2f}".format(**floors[gpu][name]) for gpu in floors)
        )
    console.print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__)
    parser.add_argument("--bundle", default="toon", help="a shipped name or a folder")
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--out", type=Path, default=RESULTS / "roofline-cpu.json")
    given = parser.parse_args()
    show(write_result(given.out, "roofline", measure(given.bundle, given.side)))


if __name__ == "__main__":
    main()

"""The full size in torch, one optimisation after the other: `python -m benchmarks.full_size`.

FLUX.1-dev with InstantCharacter at its real sizes, with random weights: zeros would draw less power
and flatter every figure. The ladder starts with eager code as published, then hoists the projector,
batches the resampler and the modulations, compiles the step in bf16, runs its products in FP8,
caches steps, and takes eight steps. Each rung is shown beside its floor and written as soon as it
is measured, so that running out of time or memory loses none. Needs a GPU with 80 GB; `--network
toon` tries the program anywhere.
"""

from __future__ import annotations

import argparse
import gc
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.contenders import FP8_SINCE, Class
from benchmarks.figures import percentiles
from benchmarks.roofline import CONFIGS, GPUS, Peaks, Work, own_peaks, work
from benchmarks.torch_contenders import EXACT
from benchmarks.torch_loop import Inputs, Switches, TorchLoop
from export.environment import write_result
from export.families.instantcharacter.config import ModelConfig
from export.families.instantcharacter.network import InstantCharacter
from export.precision import convert

RESULTS = Path(__file__).parent / "results"
CACHED_SHARE = 0.64
"""Part of the steps that the cached row computes, 18 of 28: random weights say nothing about a
threshold, so the row is timed at this share and its quality is not looked at."""
FEW_STEPS = 8
"""Denoise steps of a few-step LoRA."""


@dataclass(frozen=True)
class Rung:
    """One row of the ladder.

    Attributes:
        kind: What it does to the picture.
        switches: The optimisations that are on.
        steps: Denoise steps, where they are not those of the run.
    """

    kind: Class
    switches: Switches
    steps: int | None = None


COMPILED = replace(EXACT, compile=True)
FP8 = replace(COMPILED, fp8=True)
LADDER: Mapping[str, Rung] = {
    "eager, as published": Rung(Class.EXACT, Switches()),
    "+ projector hoisted": Rung(Class.EXACT, Switches(hoist=True)),
    "+ resampler batched": Rung(Class.EXACT, Switches(hoist=True, batch=True)),
    "+ modulations batched": Rung(Class.EXACT, EXACT),
    "+ compiled": Rung(Class.EXACT, COMPILED),
    "+ FP8 products": Rung(Class.NEAR_LOSSLESS, FP8),
    "FP8, 8 steps": Rung(Class.NEAR_LOSSLESS, FP8, FEW_STEPS),
    "compiled, cached": Rung(Class.CACHED, replace(COMPILED, share=CACHED_SHARE)),
    "FP8, cached": Rung(Class.CACHED, replace(FP8, share=CACHED_SHARE)),
}
NOT_REACHED = "not reached: the run ended before"
NO_TENSORRT = {
    "TensorRT": "TensorRT for data-centre GPUs is not installed, and TensorRT-RTX does not run on "
    "this kind: python -m export.all --flavour tensorrt, then benchmarks.latency --plans"
}


def random_network(
    config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> InstantCharacter:
    """A network with random weights, created on the device so that the host needs no memory."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = InstantCharacter(config)
    network.to(dtype).to_empty(device=device)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if not tensor.is_floating_point():
                count = tensor.shape[-1] if tensor.ndim else 1
                tensor.copy_(torch.arange(count, device=device).expand(tensor.shape))
            elif tensor.ndim > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5)
            else:
                tensor.normal_(1.0 if name.endswith("weight") else 0.0, 0.02)
    return network.eval().requires_grad_(False)


def random_inputs(config: ModelConfig, side: int, steps: int) -> Inputs:
    """An arbitrary prompt and reference."""
    generator = torch.Generator().manual_seed(0)
    length = config.text_encoder["max_position_embeddings"]
    vocabulary = min(config.text_encoder["vocab_size"], config.text_encoder_2["vocab_size"])

    def ids(count: int) -> torch.Tensor:
        return torch.randint(4, vocabulary, (1, count), generator=generator)

    crop = config.projector.crop_px
    crops = torch.randint(0, 256, (1, 5, crop, crop, 3), generator=generator, dtype=torch.uint8)
    return Inputs(ids(length), ids(config.max_sequence_length), crops, side, side, steps, seed=0)


def measure(
    config: ModelConfig,
    *,
    side: int,
    steps: int,
    runs: int,
    rungs: int = len(LADDER),
    minutes: float = float("inf"),
    keep: Callable[[dict[str, Any]], object] = lambda figures: None,
) -> dict[str, Any]:
    """Every rung of the ladder on the best device here.

    Args:
        config: The sizes of the network.
        side: Pixels of the square picture.
        steps: Denoise steps.
        runs: Measured pictures, after two that warm up.
        rungs: Only the first of them.
        minutes: No rung begins later than that.
        keep: Gets all figures after each rung; rungs that are to come say so.
    """
    end = time.monotonic() + 60 * minutes
    ladder = dict(list(LADDER.items())[:rungs])
    cuda = torch.cuda.is_available()
    name, peaks = _peaks()
    counted = work(config, side)["transformer"] if peaks else None
    rows: dict[str, dict[str, Any]] = {
        rung: {"class": row.kind, "reason": NOT_REACHED} for rung, row in ladder.items()
    }
    rows |= {row: {"class": Class.NEAR_LOSSLESS, "reason": why} for row, why in NO_TENSORRT.items()}
    figures = {
        "request": {"size": f"{side}*{side}", "num_inference_steps": steps},
        "network": config.name,
        "weights": "random",
        "peaks": {"device": name, **(asdict(peaks) if peaks else {})},
        "rows": rows,
    }
    for rung, row in track(ladder.items(), "Measuring", transient=True):
        if time.monotonic() > end:
            continue
        if row.switches.fp8 and (reason := _no_fp8(cuda)):
            rows[rung] = {"class": row.kind, "reason": reason}
            continue
        try:
            rows[rung] = _rung(config, row, side, row.steps or steps, runs, counted, peaks)
        except torch.OutOfMemoryError as error:
            rows[rung] = {"class": row.kind, "reason": f"out of memory: {error}".partition("\n")[0]}
        gc.collect()
        if cuda:
            torch.compiler.reset()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        keep(figures)
    return figures


def _rung(
    config: ModelConfig,
    rung: Rung,
    side: int,
    steps: int,
    runs: int,
    counted: Work | None,
    peaks: Peaks | None,
) -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32
    network = random_network(config, torch.device("cuda" if cuda else "cpu"), dtype)
    convert(network, dtype)
    loop, inputs = TorchLoop(network, rung.switches), random_inputs(config, side, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Inductor warns about what this machine lacks
        timed = [loop.draw(inputs) for _ in range(2 + runs)][2:]
    step = percentiles([ms for one in timed for ms in one.steps_ms])
    floor = (
        counted.floor_ms(peaks, num_bytes=dtype.itemsize, fp8=rung.switches.fp8)
        if counted and peaks
        else None
    )
    return {
        "class": rung.kind,
        "switches": asdict(rung.switches),
        "num_inference_steps": steps,
        "step": step,
        "picture": percentiles([sum(one.stages_ms.values()) for one in timed]),
        "stages_p50_ms": {
            stage: round(float(np.median([one.stages_ms[stage] for one in timed])), 3)
            for stage in timed[0].stages_ms
        },
        "computed_steps": float(np.mean([one.computed_steps for one in timed])),
        "floor_ms": floor and round(floor, 4),
        "share_of_floor": floor
        and (round(floor / step["p50_ms"], 4) if rung.kind is not Class.CACHED else None),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
    }


def _peaks() -> tuple[str, Peaks | None]:
    """This device's name, and its peaks where they are published or can be measured."""
    if not torch.cuda.is_available():
        return "this CPU", own_peaks()
    name = torch.cuda.get_device_name()
    known = (gpu for gpu in GPUS if all(word in name for word in gpu.removesuffix(" SXM").split()))
    found = next(known, None)
    return name, GPUS[found] if found else None


def _no_fp8(cuda: bool) -> str | None:
    if not cuda:
        return "FP8 products need an NVIDIA GPU of compute capability 8.9 or newer; none is here"
    found = torch.cuda.get_device_capability()
    return None if found >= FP8_SINCE else f"FP8 products need 8.9 or newer; this GPU has {found}"


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("", "class", "step ms", "picture ms", "share of floor", "computed")
    for name, row in result["rows"].items():
        if "reason" in row:
            table.add_row(name, row["class"], row["reason"])
            continue
        share = row["share_of_floor"]
        table.add_row(
            name,
            row["class"],
            f"{row['step']['p50_ms']:.2f}",
            f"{row['picture']['p50_ms']:.0f}",
            "" if share is None else f"{share:.0%}",
            f"{row['computed_steps']:.1f}",
        )
    Console(width=140).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__)
    parser.add_argument("--network", choices=CONFIGS, default="flux")
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--runs", type=int, default=5, help="measured pictures")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu/full-size.json")
    parser.add_argument("--rungs", type=int, default=len(LADDER), help="only the first ones")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no rung begins later")
    given = parser.parse_args()
    figures = measure(
        CONFIGS[given.network],
        side=given.side,
        steps=given.steps,
        runs=given.runs,
        rungs=given.rungs,
        minutes=given.minutes,
        keep=lambda figures: write_result(given.out, "full-size", figures),
    )
    show(write_result(given.out, "full-size", figures))


if __name__ == "__main__":
    main()

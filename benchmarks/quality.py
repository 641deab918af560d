"""What speed costs in quality, picture by picture: `python -m benchmarks.quality`.

Every contender draws the same pictures from the same noise; torch in fp32 is the reference. PSNR
between two exact runs is fragile, so there are two controls: the same model with other kernels, and
another seed, which has only the request in common. Identity and the judge's verdicts are compared
pairwise, with 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from benchmarks.comparison import HeldOut, summary
from benchmarks.contenders import Class
from benchmarks.figures import interval
from benchmarks.metrics import NO_LPIPS, Picture
from benchmarks.variants import without_encoders
from benchmarks.ways import FEW_STEPS, SCALES, THRESHOLDS, Way, few_step_bundles, ways
from castmate.engines.bundle import Bundle
from castmate.engines.manifest import StepCachingSpec
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import Cache, GenerateRequest, GenerateResult
from demo_model.checkpoint import load_shipped
from export.calibrate import calibrate
from export.environment import write_result
from export.samples import Prompts, Sample, samples
from export.trajectory import decode, denoise

RESULTS = Path(__file__).parent / "results"
TORCH = without_encoders()
REFERENCE, CONTROL = "torch fp32", "other kernels (control)"
CALIBRATION = 8
ASKED = ("steps", "subject_scale", "style")


@dataclass
class Drawing:
    """A picture and what it took to draw it."""

    picture: Picture
    total_ms: float = 0.0
    denoise_ms: float = 0.0
    computed_steps: int | None = None


class Studio:
    """Draws with Castmate in any way."""

    def __init__(self, bundle: Bundle, runtime: OnnxRuntime, size: int, steps: int) -> None:
        self._bundle, self._pipeline = bundle, Pipeline(bundle, runtime)
        self._size, self._steps = f"{size}*{size}", steps

    def draw(self, sample: Sample, reference: Reference, way: Way) -> Drawing:
        """One picture, without the safety checker."""
        pipeline, cache = self._pipeline, Cache.OFF
        if way.threshold:
            spec = StepCachingSpec(balanced=way.threshold, fast=way.threshold, chosen_on="")
            manifest = self._bundle.manifest.model_copy(update={"step_caching": spec})
            pipeline.bundle, cache = replace(self._bundle, manifest=manifest), Cache.FAST
        request = GenerateRequest.parse(
            {
                "prompt": sample.prompt,
                "image": "-",
                "size": self._size,
                "seed": sample.seed + way.seed_offset,
                "num_inference_steps": way.steps or self._steps,
                "enable_safety_checker": False,
                "cache": cache,
                "subject_scale": way.subject_scale,
                "style": way.style,
            }
        )
        result = pipeline.generate(request, reference, lambda done, total: None)
        return Drawing(
            _pixels(result),
            result.timings_ms["total"],
            result.timings_ms["denoise"],
            result.computed_steps,
        )


class OtherKernels(OnnxRuntime):
    """The same model without ONNX Runtime's fusions."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._options.graph_optimization_level = level


def measure(
    name: str,
    folder: Path,
    *,
    count: int,
    side: int,
    steps: int,
    thresholds: Sequence[float] = THRESHOLDS,
    few_steps: Sequence[int] = FEW_STEPS,
    scales: Sequence[float] = SCALES,
) -> dict[str, Any]:
    """Draw everything and compare it.

    Args:
        name: The bundle's name or folder.
        folder: Gets the references.
        count: Pictures for each contender.
        side: Pixels of the square pictures.
        steps: Denoise steps.
        thresholds: The points of the curve.
        few_steps: Numbers of steps to draw in as well.
        scales: Of the subject in so few steps.
    """
    bundle = Bundle.open(name)
    held_out = HeldOut(count, side, folder)
    drawn = held_out.samples
    every = ways(bundle, thresholds=thresholds, few_steps=few_steps, scales=scales)
    with Progress(transient=True) as progress:
        total = count * (len(every) + 2 + len(TORCH))
        task = progress.add_task("Drawing", total=total)
        found = _with_torch(bundle, drawn, steps, progress, task)
        studios = {
            name: Studio(some, OnnxRuntime(some), side, steps)
            for name, some in {"": bundle, **few_step_bundles(bundle)}.items()
        }
        control = Studio(bundle, OtherKernels(bundle), side, steps)
        warming = list({(way.bundle, way.steps, way.style): way for way in every[::-1]}.values())
        for number, sample in enumerate(drawn):
            reference = Reference.from_bytes(sample.reference.read_bytes(), "the reference")
            order = every if number % 2 == 0 else every[::-1]
            for way in warming:  # what is computed once for a character and a schedule
                studios[way.bundle].draw(sample, reference, way)
            for way in order:
                drawing = studios[way.bundle].draw(sample, reference, way)
                found.setdefault(way.name, []).append(drawing)
                progress.advance(task)
            found.setdefault(CONTROL, []).append(control.draw(sample, reference, every[0]))
            progress.advance(task)
    kinds = {way.name: way for way in every}
    pictures = {row: [drawing.picture for drawing in some] for row, some in found.items()}
    scored = held_out.scores(pictures, REFERENCE, bundle)
    rows = {
        row: {
            "class": kinds[row].kind if row in kinds else _kind(row),
            "control": "control" in row,
            "threshold": kinds[row].threshold if row in kinds else 0.0,
            **_asked(kinds.get(row)),
            **summary(scored[row], scored[REFERENCE]),
            **_speed(found[row], found["castmate"]),
        }
        for row in found
    }
    return {
        "request": {"size": f"{side}*{side}", "num_inference_steps": steps},
        "pictures": count,
        "network": bundle.name,
        "rows": rows,
        "lpips": NO_LPIPS,
        "judge": "the demo model's judge, trained on renders only",
    }


def _with_torch(
    bundle: Bundle, drawn: Sequence[Sample], steps: int, progress: Progress, task: TaskID
) -> dict[str, list[Drawing]]:
    """The reference in fp32, and what its steps become in bf16 and FP8."""
    network, prompts = load_shipped(bundle), Prompts.of(bundle)
    calibration = calibrate(network, prompts, samples(CALIBRATION, 512), steps, Progress())
    networks = {REFERENCE: network} | {
        variant.name: variant.of(network, calibration) for variant in TORCH
    }
    found: dict[str, list[Drawing]] = {}
    for name, some in networks.items():
        for sample in drawn:
            latents = denoise(some, sample, prompts, steps)
            found.setdefault(name, []).append(Drawing(decode(network, latents)))
            progress.advance(task)
    return found


def _speed(drawings: Sequence[Drawing], base: Sequence[Drawing]) -> dict[str, Any]:
    """Speed-up over computing every step; empty for what is not timed."""
    if drawings[0].computed_steps is None:
        return {"computed_steps": None, "speedup": None, "speedup_denoise": None}
    pairs = list(zip(drawings, base, strict=True))
    whole = [exact.total_ms / drawing.total_ms for drawing, exact in pairs]
    loop = [exact.denoise_ms / drawing.denoise_ms for drawing, exact in pairs]
    return {
        "computed_steps": interval([drawing.computed_steps or 0 for drawing in drawings]),
        "speedup": interval(whole, np.median),
        "speedup_denoise": interval(loop, np.median),
    }


def _asked(way: Way | None) -> dict[str, Any]:
    """What a way asks for otherwise than all others."""
    asked = {} if way is None else {name: getattr(way, name) for name in ASKED}
    return {name: value for name, value in asked.items() if value}


def _kind(name: str) -> Class:
    return Class.EXACT if name in (REFERENCE, CONTROL) else Class.NEAR_LOSSLESS


def _pixels(result: GenerateResult) -> Picture:
    return np.asarray(Image.open(BytesIO(result.images[0].data)).convert("RGB"))


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    columns = ("psnr_db", "ssim", "dino", "judge_look", "judge_look_change", "judge_prompt")
    table = Table("", "class", *columns, "computed", "faster")
    for name, row in result["rows"].items():
        cells = [f"{row[column]['value']:.3f}" if column in row else "-" for column in columns]
        for key in ("computed_steps", "speedup"):
            cells.append(f"{row[key]['value']:.2f}" if row[key] else "-")
        table.add_row(name, row["class"], *cells)
    Console(width=140).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--bundle", default="toon", help="a shipped name or a folder")
    parser.add_argument("--count", type=int, default=32, help="pictures each (default 32)")
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--out", type=Path, default=RESULTS / "quality-cpu.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(
            given.bundle,
            Path(folder),
            count=given.count,
            side=given.side,
            steps=given.steps,
        )
    show(write_result(given.out, "quality", figures))


if __name__ == "__main__":
    main()

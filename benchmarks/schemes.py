"""Every quantization scheme: bytes, GPUs and quality, on the CPU: `python -m benchmarks.schemes`.

Bytes are counted at full size. Quality is that of the demo model in torch, whose layers round as
the hardware does; held-out characters are drawn with the same noise as in fp32. There are two
controls: bf16, whose difference is rounding, and another seed: only the request is the same.
Speed is not measured: no CPU has such arithmetic.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from benchmarks.comparison import HeldOut, summary
from benchmarks.variants import Variant, variants
from castmate.engines.bundle import Bundle
from castmate.engines.plan import Flavour
from demo_model.checkpoint import load_shipped
from export.calibrate import Calibration, calibrate
from export.environment import write_result
from export.families.instantcharacter.network import InstantCharacter
from export.family import DEFAULT, family_of, published, unquantized
from export.precision import Precision
from export.quantization.none import NONE
from export.quantization.quantize import errors
from export.quantization.registry import SCHEMES
from export.quantization.scheme import Scheme
from export.samples import Prompts, Sample, samples
from export.sizes import graph_sizes, meta_network
from export.trajectory import decode, denoise

RESULTS = Path(__file__).parent / "results"
EXACT, OTHER_SEED = "fp32", "another seed (control)"
SEED_OFFSET = 5000
ERROR_STEPS = 4
"""Of the picture on whose inputs the error of each layer is found."""


def counted() -> dict[str, dict[str, Any]]:
    """Bytes at full size and GPUs, by scheme."""
    family = family_of(DEFAULT)
    network = meta_network(published(DEFAULT).config, DEFAULT)
    found = {}
    for name, scheme in SCHEMES.items():
        sizes = graph_sizes(network, scheme, family.kept(encoders=True), family.sensitive)
        num_bytes = {graph: size.num_bytes(Precision.BF16) for graph, size in sizes.items()}
        found[name] = {
            "transformer_bytes": num_bytes["transformer"],
            "all_bytes": sum(num_bytes.values()),
            "targets": {
                flavour.value: sorted(
                    set.intersection(*(set(kernel.targets[flavour]) for kernel in scheme.kernels))
                    if scheme.kernels
                    else (),
                    key=float,
                )
                for flavour in Flavour
            },
            "gains": list(scheme.gains),
        }
    return found


def measure(
    bundle: Bundle,
    every: Sequence[Variant],
    folder: Path,
    *,
    count: int,
    calibrated: int,
    side: int,
    steps: int,
) -> dict[str, Any]:
    """Calibrate, draw with every variant, compare with fp32.

    Args:
        bundle: The demo model's.
        every: What is compared.
        folder: Gets the references.
        count: Pictures of each variant.
        calibrated: Trajectories to calibrate on; they are none of those pictures.
        side: Pixels of the square pictures.
        steps: Denoise steps.
    """
    network, prompts = load_shipped(bundle), Prompts.of(bundle)
    held_out = HeldOut(count, side, folder)
    latents: dict[str, list[Tensor]] = {}
    with Progress(transient=True) as progress:
        calibration = calibrate(network, prompts, samples(calibrated, side), steps, progress)
        task = progress.add_task("Drawing", total=count * (2 + len(every)))

        def draw(name: str, some: InstantCharacter, seed_offset: int = 0) -> None:
            for sample in held_out.samples:
                asked = replace(sample, seed=sample.seed + seed_offset)
                latents.setdefault(name, []).append(denoise(some, asked, prompts, steps))
                progress.advance(task)

        draw(EXACT, network)
        draw(OTHER_SEED, network, SEED_OFFSET)
        for variant in every:
            draw(variant.name, variant.of(network, calibration))
    pictures = {name: [decode(network, one) for one in found] for name, found in latents.items()}
    scores = held_out.scores(pictures, EXACT, bundle)
    rows = {
        name: [
            {"latents_relative_l2": relative_l2(one, exact), **score}
            for one, exact, score in zip(found, latents[EXACT], scores[name], strict=True)
        ]
        for name, found in latents.items()
    }
    return {
        "network": bundle.name,
        "pictures": count,
        "calibrated": calibrated,
        "side_px": side,
        "steps": steps,
        "schemes": counted(),
        "variants": {name: summary(found, rows[EXACT]) for name, found in rows.items()},
        "layer_relative_l2": layer_errors(
            network, calibration, held_out.samples[0], prompts, {one.scheme for one in every}
        ),
    }


def relative_l2(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference by that of the exact latents."""
    return float((found - exact).norm() / exact.norm())


def layer_errors(
    network: InstantCharacter,
    calibration: Calibration,
    sample: Sample,
    prompts: Prompts,
    some: Collection[Scheme],
) -> dict[str, dict[str, float]]:
    """The error of each layer alone, by scheme, largest first; no layer is spared."""
    return {
        name: {
            layer: round(error, 5)
            for layer, error in sorted(
                errors(
                    network,
                    calibration.amax,
                    lambda: denoise(network, sample, prompts, ERROR_STEPS),
                    scheme,
                    unquantized(network, encoders=True),
                ).items(),
                key=lambda item: -item[1],
            )
        }
        for name, scheme in SCHEMES.items()
        if scheme in some and scheme is not NONE
    }


def _show(result: dict[str, Any]) -> None:
    columns = ("psnr_db", "ssim", "dino", "dino_change", "judge_look", "judge_prompt")
    table = Table("against fp32", *columns)
    for name, row in result["variants"].items():
        table.add_row(name, *(f"{row[column]['value']:.3f}" for column in columns))
    Console(width=120).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schemes", description=__doc__)
    parser.add_argument("--bundle", default="toon", help="a shipped name or a folder")
    parser.add_argument("--count", type=int, default=16, help="pictures of each variant")
    parser.add_argument("--calibrated", type=int, default=8, help="trajectories")
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--out", type=Path, default=RESULTS / "schemes-toon.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(
            Bundle.open(given.bundle),
            variants(),
            Path(folder),
            count=given.count,
            calibrated=given.calibrated,
            side=given.side,
            steps=given.steps,
        )
    _show(result)
    write_result(given.out, "schemes", result)
    print(given.out)


if __name__ == "__main__":
    main()

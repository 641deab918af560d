"""What FP8 costs in quality, numerically on the CPU: `python -m benchmarks.quantization`.

Calibrates the demo model on one set of trajectories and draws another set with each variant and
with the same noise. Speed is not measured here: no CPU has such arithmetic. bf16 is the control: a
difference of its size is rounding, not quantization. `benchmarks.schemes` has the other schemes.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.subject import reference_crops
from demo_model.checkpoint import load_shipped
from export.calibrate import Calibration, calibrate
from export.environment import write_result
from export.families.instantcharacter.merges import merges
from export.families.instantcharacter.network import InstantCharacter
from export.family import sensitive, unquantized
from export.precision import convert
from export.quantization.fp8 import FP8, FP8_ATTENTION
from export.quantization.none import NONE
from export.quantization.quantize import errors, quantize
from export.quantization.scheme import Scheme
from export.samples import Prompts, Sample, samples
from export.trajectory import decode, denoise

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Variant:
    """One way to run the network.

    Attributes:
        name: In the tables.
        quantization: The scheme.
        encoders: Whether encoders are quantized as well.
        dtype: Of everything else.
        spares: Whether sensitive layers are left to the wider scheme.
    """

    name: str
    quantization: Scheme
    encoders: bool = False
    dtype: torch.dtype = torch.float32
    spares: bool = True


VARIANTS = (
    Variant("bf16 (control)", NONE, dtype=torch.bfloat16),
    *(Variant(str(scheme), scheme) for scheme in (FP8, FP8_ATTENTION)),
    Variant("fp8 + encoders", FP8, encoders=True),
    Variant("fp8-attention + encoders", FP8_ATTENTION, encoders=True),
)


def measure(
    network: InstantCharacter, prompts: Prompts, *, count: int, side: int, steps: int
) -> dict[str, Any]:
    """Calibrate, draw with every variant, compare with fp32.

    Args:
        network: In fp32.
        prompts: Its tokenizers.
        count: Trajectories to calibrate on, and as many others to draw.
        side: Pixels of the square pictures.
        steps: Denoise steps.
    """
    drawn = samples(count, side, first_seed=1000)
    with Progress() as progress:
        calibration = calibrate(network, prompts, samples(count, side), steps, progress)
        task = progress.add_task("Drawing", total=(1 + len(VARIANTS)) * count)

        def draw(some: InstantCharacter) -> list[Tensor]:
            latents = []
            for sample in drawn:
                latents.append(denoise(some, sample, prompts, steps))
                progress.advance(task)
            return latents

        exact = draw(network)
        rows = {
            variant.name: _compare(
                network, drawn, exact, draw(apply(network, calibration, variant))
            )
            for variant in VARIANTS
        }
    layers = {
        str(scheme): errors(
            network,
            calibration.amax,
            lambda: [denoise(network, sample, prompts, steps) for sample in drawn[:1]],
            scheme,
            unquantized(network, encoders=True),
        )
        for scheme in (FP8, FP8_ATTENTION)
    }
    return {
        "network": network.config.name,
        "pictures": count,
        "side_px": side,
        "steps": steps,
        "variants": rows,
        "layer_relative_l2": {
            name: dict(sorted(found.items(), key=lambda item: -item[1]))
            for name, found in layers.items()
        },
    }


def apply(
    network: InstantCharacter, calibration: Calibration, variant: Variant
) -> InstantCharacter:
    """A copy of the network as a variant runs it."""
    made = copy.deepcopy(network)
    convert(made, variant.dtype)
    kept, groups = unquantized(network, encoders=variant.encoders), merges(made.denoiser)
    spared = sensitive(network) if variant.spares else ()
    quantize(made, calibration.amax, variant.quantization, kept, groups, spared)
    return made


def _compare(
    network: InstantCharacter,
    drawn: Sequence[Sample],
    exact: Sequence[Tensor],
    found: Sequence[Tensor],
) -> dict[str, float]:
    l2, psnr, identity = [], [], []
    for sample, before, after in zip(drawn, exact, found, strict=True):
        l2.append(float((after - before).norm() / before.norm()))
        pictures = [decode(network, latents) for latents in (before, after)]
        mse = float(np.square(pictures[0].astype(float) - pictures[1]).mean())
        psnr.append(10 * np.log10(255**2 / max(mse, 1e-9)))
        likeness = [_identity(network, sample.reference, picture) for picture in pictures]
        identity.append(likeness[1] - likeness[0])
    return {
        "latents_relative_l2": round(float(np.mean(l2)), 6),
        "latents_relative_l2_median": round(float(np.median(l2)), 6),
        "psnr_db_mean": round(float(np.mean(psnr)), 2),
        "psnr_db_median": round(float(np.median(psnr)), 2),
        "psnr_db_min": round(float(np.min(psnr)), 2),
        "identity_change": round(float(np.mean(identity)), 5),
    }


@torch.no_grad()
def _identity(network: InstantCharacter, reference: Path, picture: np.ndarray) -> float:
    """Cosine of the mean DINOv2 features of reference and picture."""
    encoder, features = network.crop_encoders[1], []
    for image in (Image.open(reference).convert("RGB"), Image.fromarray(picture)):
        crops = torch.from_numpy(reference_crops(image, network.config.projector.crop_px))
        features.append(encoder(crops).low_res_deep.mean(1))
    return float(torch.cosine_similarity(*features))


def _show(result: dict[str, Any]) -> None:
    columns = ("latents_relative_l2_median", "psnr_db_median", "psnr_db_min", "identity_change")
    table = Table("against fp32", *columns)
    for name, row in result["variants"].items():
        table.add_row(name, *(str(row[column]) for column in columns))
    Console(width=120).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantization", description=__doc__)
    parser.add_argument("--bundle", default="toon", help="a shipped name or a folder")
    parser.add_argument("--count", type=int, default=8, help="trajectories of each set")
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--out", type=Path, default=RESULTS / "fp8-toon.json")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    result = measure(
        load_shipped(bundle),
        Prompts.of(bundle),
        count=arguments.count,
        side=arguments.side,
        steps=arguments.steps,
    )
    _show(result)
    write_result(arguments.out, "quantization", result)
    print(arguments.out)


if __name__ == "__main__":
    main()

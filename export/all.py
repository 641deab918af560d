"""From published weights to a bundle of engines in one command: `python -m export.all`.

Load, fuse LoRAs, calibrate, export to ONNX, build. What is finished is kept: the same command goes
on where it stopped. Each step is also a module of its own.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import Progress

from castmate.engines.bundle import Bundle
from castmate.engines.manifest import MANIFEST
from castmate.engines.plan import Flavour
from castmate.errors import CastmateError
from export.build import Options, build_bundle
from export.bundle import write_bundle
from export.calibrate import Calibration, best_device, calibrate
from export.errors import ExportError
from export.family import Config, Network, merges, published, unquantized
from export.family import parser as family_parser
from export.lora.fuse import FusedNetwork, Lora
from export.precision import Precision
from export.presets.preset import Preset, names
from export.quantization.quantize import quantize, ranges_needed
from export.quantization.registry import SCHEMES
from export.quantization.scheme import Ranges
from export.recipe import Recipe
from export.samples import Prompts, TokenizerFile, samples

CALIBRATION = "calibration.json"


def make(recipe: Recipe, folder: Path, config: Config | None = None) -> Path:
    """Go the whole way.

    Args:
        recipe: Every choice.
        folder: Gets `calibration.json`, `onnx/` and `plans/`.
        config: Sizes of the network; those that are published by default.

    Returns:
        The folder of the finished bundle.

    Raises:
        ExportError: A step cannot go on; what was finished is kept.
    """
    family = published(recipe.family)
    config = family.config if config is None else config
    preset, description, licences = recipe.preset, family.description, family.licences
    if preset is not None:
        config, description = preset.configured(config), preset.description
        licences = preset.licensed(licences)
    recipe.check(config, folder)
    recipe.keep(folder)
    graphs = folder / "onnx"
    if not (graphs / MANIFEST).exists():
        loras = (*(preset.loras() if preset else ()), *recipe.loras)
        tokenizers = family.load_tokenizers(recipe.sources, config, folder)
        network = family.load_network(recipe.sources, recipe.precision.dtype, config)
        FusedNetwork(network).apply(loras)
        scheme, kept = recipe.quantization, unquantized(network)
        ranges: Ranges = {}
        if ranges_needed(network.denoiser, scheme, kept):
            ranges = _calibration(recipe, folder / CALIBRATION, network, tokenizers).amax
        quantize(network.denoiser, ranges, scheme, kept, merges(network))
        write_bundle(
            network,
            graphs,
            description=description,
            licences=licences,
            tokenizers=tokenizers,
            precision=recipe.precision,
            quantization=scheme,
            step_caching=recipe.caching,
            loras=[lora.spec() for lora in loras],
            defaults=recipe.defaults,
            limits=preset.limits if preset else {},
        )
        del network
    if recipe.flavour is None:
        return graphs
    build_bundle(Bundle.open(graphs), folder / "plans", Options(recipe.flavour, recipe.target))
    return folder / "plans"


def _calibration(
    recipe: Recipe,
    path: Path,
    network: Network,
    tokenizers: Mapping[str, TokenizerFile],
) -> Calibration:
    if path.exists():
        return Calibration.load(path, network.config.name)
    prompts = Prompts.of_files(tokenizers)
    with Progress() as progress:
        drawn = samples(recipe.samples, recipe.side, defaults=recipe.defaults)
        recorded = calibrate(network, prompts, drawn, recipe.steps, progress, device=best_device())
    recorded.save(path)
    return recorded


def parser(arguments: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The command line; defaults are the recipe's."""
    made = family_parser("python -m export.all", __doc__, arguments)
    made.add_argument("--out", type=Path, required=True, help="folder for everything")
    made.add_argument("--precision", type=Precision, choices=Precision, default=Recipe.precision)
    made.add_argument("--quantization", choices=list(SCHEMES), default=Recipe.quantization.name)
    made.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="fused into the network; may be repeated",
    )
    made.add_argument(
        "--steps-preset", metavar="NAME|FILE", help=f"draws in few steps: {', '.join(names())}"
    )
    made.add_argument("--step-caching", action="store_true")
    for name in ("samples", "side"):
        made.add_argument(f"--{name}", type=int, default=getattr(Recipe, name))
    made.add_argument("--steps", type=int, help="of a calibrated picture; default: the model's")
    made.add_argument("--flavour", type=Flavour, choices=Flavour, help="default: stop at ONNX")
    made.add_argument("--target", default="", help="compute capability of the GPU, such as 8.9")
    return made


def recipe_of(given: argparse.Namespace) -> Recipe:
    """The recipe that flags describe.

    Raises:
        ExportError: A LoRA's scale is no number.
    """
    preset = Preset.read(given.steps_preset) if given.steps_preset else None
    sources = published(given.family).sources.of(given)
    plain = (
        "family",
        "precision",
        "step_caching",
        "samples",
        "side",
        "flavour",
        "target",
    )
    recipe = Recipe(
        preset.loaded_from(sources) if preset else sources,
        preset=preset,
        loras=tuple(map(_lora, given.lora)),
        quantization=SCHEMES[given.quantization],
        **{name: getattr(given, name) for name in plain},
    )
    steps = recipe.defaults.num_inference_steps if given.steps is None else given.steps
    return replace(recipe, steps=steps)


def _lora(text: str) -> Lora:
    path, colon, scale = text.rpartition(":")
    if not colon:
        return Lora(Path(text))
    try:
        if math.isfinite(strength := float(scale)):
            return Lora(Path(path), strength)
    except ValueError:
        pass
    raise ExportError(f"--lora {text}: the scale {scale!r} is no number, such as 0.8.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the bundle and say where it is."""
    given = parser(arguments).parse_args(arguments)
    try:
        print(make(recipe_of(given), given.out))
    except (ExportError, CastmateError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

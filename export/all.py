"""From published weights to a bundle of engines in one command: `python -m export.all`.

Load, fuse LoRAs, calibrate, export to ONNX, build. What is finished is kept: the same command goes
on where it stopped. Each step is also a module of its own.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from castmate.engines.bundle import Bundle
from castmate.engines.manifest import MANIFEST
from castmate.engines.plan import Flavour
from castmate.errors import CastmateError
from export.build import Options, build_bundle
from export.bundle import write_bundle
from export.calibrate import Calibration, calibrate, fingerprint
from export.errors import ExportError
from export.family import Config, Network, merges, published, sensitive, unquantized
from export.family import parser as family_parser
from export.forecast import check_room, forecast, show
from export.golden import record
from export.lora.fuse import FusedNetwork, Lora
from export.lora.styles import Style, prepare
from export.placement import Placement
from export.precision import Precision
from export.presets.preset import Preset, names
from export.quantization.quantize import CalibrationError, quantize, ranges_needed
from export.quantization.registry import SCHEMES
from export.quantization.scheme import Ranges
from export.recipe import Recipe
from export.samples import Prompts, TokenizerFile, samples
from export.targets import found_target

CALIBRATION = "calibration.json"


def make(
    recipe: Recipe, folder: Path, config: Config | None = None, *, allow_fallback: bool = False
) -> Path:
    """Go the whole way.

    Args:
        recipe: Every choice.
        folder: Gets `calibration.json`, `onnx/` and `plans/`.
        config: Sizes of the network; those that are published by default.
        allow_fallback: See `export.build.Options`.

    Returns:
        The folder of the finished bundle.

    Raises:
        ExportError: A step cannot go on; what was finished is kept.
    """
    config = published(recipe.family).config if config is None else config
    if recipe.preset is not None:
        config = recipe.preset.configured(config)
    recipe.check(config)
    check_room(forecast(recipe, config), folder)
    recipe.keep(folder)
    graphs = folder / "onnx"
    if not (graphs / MANIFEST).exists():
        _export(recipe, folder, graphs, config)
        _return_memory()
    if recipe.flavour is None:
        return graphs
    options = Options(
        recipe.flavour, recipe.target, max_side=recipe.max_side, allow_fallback=allow_fallback
    )
    build_bundle(Bundle.open(graphs), folder / "plans", options)
    return folder / "plans"


def _export(recipe: Recipe, folder: Path, graphs: Path, config: Config) -> None:
    """All that torch does; when this returns, nothing of the network is left."""
    family, scheme, preset = published(recipe.family), recipe.quantization, recipe.preset
    loras = (*(preset.loras() if preset else ()), *recipe.loras)
    licences = family.licences(recipe.sources)
    tokenizers = family.load_tokenizers(recipe.sources, config, folder)
    network = family.load_network(recipe.sources, recipe.precision.dtype, config)
    weights = fingerprint(network)
    FusedNetwork(network).apply(loras)
    styles = prepare(network, recipe.styles)
    kept = unquantized(network, encoders=recipe.quantize_encoders)
    narrower = sensitive(network)
    ranges: Ranges = {}
    if needed := ranges_needed(network, scheme, kept, narrower):
        found = _given(recipe, folder, config.name, weights, needed)
        ranges = (found or _record(recipe, folder, network, weights, tokenizers)).amax
    golden = record(network, tokenizers, step_caching=recipe.step_caching)
    quantize(network, ranges, scheme, kept, merges(network), narrower)
    write_bundle(
        network,
        graphs,
        description=preset.description if preset else family.description,
        licences=preset.licensed(licences) if preset else licences,
        tokenizers=tokenizers,
        golden=golden,
        precision=recipe.precision,
        quantization=scheme,
        encoders=recipe.quantize_encoders,
        step_caching=recipe.caching,
        loras=[lora.spec() for lora in loras],
        defaults=recipe.defaults,
        limits=preset.limits if preset else {},
        styles=styles,
    )


def _given(
    recipe: Recipe, folder: Path, name: str, weights: str, needed: Collection[str]
) -> Calibration | None:
    """A calibration that is there already: named, recorded here before, or shipped.

    Raises:
        CalibrationError: One that was named or recorded here does not fit; a shipped one that does
            not is passed over.
    """
    for path in (recipe.calibration, folder / CALIBRATION):
        if path is not None and path.exists():
            return Calibration.load(path, name, weights)
    # A shipped one is of the usual trajectory.
    shipped = None if recipe.preset else published(recipe.family).calibration
    if shipped is None or not shipped.exists():
        return None
    try:
        found = Calibration.load(shipped, name, weights)
    except CalibrationError as error:
        print(f"{error} These weights are calibrated now.", file=sys.stderr)
        return None
    return found if set(needed) <= set(found.amax) else None


def _record(
    recipe: Recipe,
    folder: Path,
    network: Network,
    weights: str,
    tokenizers: Mapping[str, TokenizerFile],
) -> Calibration:
    """Calibrate, and keep what was recorded; `weights` are those without LoRAs."""
    prompts = Prompts.of_files(tokenizers)
    with Progress() as progress:
        drawn = samples(recipe.samples, recipe.side, defaults=recipe.defaults)
        recorded = replace(
            calibrate(network, prompts, drawn, recipe.steps, progress, placement=Placement.best()),
            weights=weights,
        )
    recorded.save(folder / CALIBRATION)
    return recorded


def _return_memory() -> None:
    """Before a builder starts, which needs the host's memory, and may need this GPU's."""
    gc.collect()
    torch.cuda.empty_cache()


def parser(arguments: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The command line; defaults are the recipe's."""
    made = family_parser("python -m export.all", __doc__, arguments)
    made.add_argument("--out", type=Path, required=True, help="folder for everything")
    made.add_argument("--precision", type=Precision, choices=Precision, default=Recipe.precision)
    made.add_argument("--quantization", choices=list(SCHEMES), default=Recipe.quantization.name)
    made.add_argument(
        "--quantize-encoders",
        action=argparse.BooleanOptionalAction,
        default=Recipe.quantize_encoders,
        help="T5, the image encoders and the projector as well",
    )
    made.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="fused into the network; may be repeated",
    )
    made.add_argument(
        "--style",
        action="append",
        default=[],
        metavar="NAME=FILE[:SCALE]",
        help="a LoRA that requests choose by this name; may be repeated",
    )
    made.add_argument(
        "--steps-preset", metavar="NAME|FILE", help=f"draws in few steps: {', '.join(names())}"
    )
    made.add_argument("--step-caching", action="store_true")
    made.add_argument("--calibration", type=Path, help="file of export.calibrate to use")
    for name in ("samples", "side"):
        made.add_argument(f"--{name}", type=int, default=getattr(Recipe, name))
    made.add_argument("--steps", type=int, help="of a calibrated picture; default: the model's")
    made.add_argument("--flavour", type=Flavour, choices=Flavour, help="default: stop at ONNX")
    made.add_argument(
        "--target",
        default=Recipe.target,
        help="compute capability of the GPU, such as 8.9; default: that of the GPU here",
    )
    made.add_argument(
        "--max-side",
        type=int,
        help="pixels of a side that the engines accept; less takes less GPU memory",
    )
    made.add_argument(
        "--plan",
        action="store_true",
        help="print time, disk and memory of each step, and do nothing",
    )
    made.add_argument("--allow-fallback", action="store_true", help="keep slow engines")
    return made


def recipe_of(given: argparse.Namespace) -> Recipe:
    """The recipe that flags describe.

    Raises:
        ExportError: A LoRA's scale is no number, a style has no good name, or there is no GPU to
            find the target of.
    """
    preset = Preset.read(given.steps_preset) if given.steps_preset else None
    sources = published(given.family).sources.of(given)
    plain = (
        "family",
        "precision",
        "quantize_encoders",
        "step_caching",
        "calibration",
        "samples",
        "side",
        "flavour",
        "max_side",
    )
    recipe = Recipe(
        preset.loaded_from(sources) if preset else sources,
        preset=preset,
        loras=tuple(Lora.parse(text, "--lora") for text in given.lora),
        styles=tuple(map(Style.parse, given.style)),
        quantization=SCHEMES[given.quantization],
        target=given.target or (found_target() if given.flavour else ""),
        **{name: getattr(given, name) for name in plain},
    )
    steps = recipe.defaults.num_inference_steps if given.steps is None else given.steps
    return replace(recipe, steps=steps)


def _plan(recipe: Recipe, folder: Path) -> None:
    """Say what every step takes; then refuse what `make` would refuse."""
    config = published(recipe.family).config
    if recipe.preset is not None:
        config = recipe.preset.configured(config)
    recipe.check(config)
    steps = forecast(recipe, config)
    show(steps, Console())
    check_room(steps, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the bundle and say where it is, or what that would take."""
    given = parser(arguments).parse_args(arguments)
    try:
        recipe = recipe_of(given)
        if given.plan:
            _plan(recipe, given.out)
        else:
            print(make(recipe, given.out, allow_fallback=given.allow_fallback))
    except (ExportError, CastmateError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

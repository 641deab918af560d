"""From published weights to a bundle of engines in one command: `python -m export.all`.

Load, fuse styles, calibrate, export to ONNX, build. What is finished is kept: the same command goes
on where it stopped. Each step is also a module of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
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
from export.lora import Style, StyledTransformer
from export.precision import Precision
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
    recipe.check(config, folder)
    recipe.keep(folder)
    graphs = folder / "onnx"
    if not (graphs / MANIFEST).exists():
        tokenizers = family.load_tokenizers(recipe.sources, config, folder)
        network = family.load_network(recipe.sources, recipe.precision.dtype, config)
        StyledTransformer(network.get_submodule("transformer")).apply(recipe.styles)
        scheme, kept = recipe.quantization, unquantized(network)
        ranges: Ranges = {}
        if ranges_needed(network.denoiser, scheme, kept):
            ranges = _calibration(recipe, folder / CALIBRATION, network, tokenizers).amax
        quantize(network.denoiser, ranges, scheme, kept, merges(network))
        write_bundle(
            network,
            graphs,
            description=family.description,
            licences=family.licences,
            tokenizers=tokenizers,
            precision=recipe.precision,
            quantization=scheme,
            step_caching=family.step_caching if recipe.step_caching else None,
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
        drawn = samples(recipe.samples, recipe.side)
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
        "--style", action="append", default=[], metavar="FILE[:SCALE]", help="may be repeated"
    )
    made.add_argument("--step-caching", action="store_true")
    for name in ("samples", "steps", "side"):
        made.add_argument(f"--{name}", type=int, default=getattr(Recipe, name))
    made.add_argument("--flavour", type=Flavour, choices=Flavour, help="default: stop at ONNX")
    made.add_argument("--target", default="", help="compute capability of the GPU, such as 8.9")
    return made


def recipe_of(given: argparse.Namespace) -> Recipe:
    """The recipe that flags describe.

    Raises:
        ExportError: A style's scale is no number.
    """
    names = (
        "family",
        "precision",
        "step_caching",
        "samples",
        "steps",
        "side",
        "flavour",
        "target",
    )
    return Recipe(
        published(given.family).sources.of(given),
        styles=tuple(map(_style, given.style)),
        quantization=SCHEMES[given.quantization],
        **{name: getattr(given, name) for name in names},
    )


def _style(text: str) -> Style:
    path, colon, scale = text.rpartition(":")
    if not colon:
        return Style(Path(text))
    try:
        return Style(Path(path), float(scale))
    except ValueError:
        raise ExportError(f"--style {text}: the scale {scale!r} is no number.") from None


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

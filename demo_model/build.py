"""Rewrites the shipped bundles: `python -m demo_model.build [--checkpoint toon.pt]`.

It uses the weights of a training run or those already in the bundle, so a changed graph needs no
training. Before a change that makes the bundle unreadable to this code, save its weights with
`--save FOLDER`; afterwards they are the checkpoint. The export is that of any other model; only the
tokenizer, the description, the licence and the LoRAs in `loras/` are the demo's own.

Beside `toon` it writes `toon-8`, the same weights with the LoRA of few steps fused. The two have
the same styles, and share the files that the LoRA does not change.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from castmate.engines.bundle import Bundle
from castmate.engines.licences import Licence
from castmate.engines.manifest import IdentitySpec, StepCachingSpec
from demo_model import identity_weights, judge, matte
from demo_model.checkpoint import TOKENIZER, load_network, load_shipped, save_network
from demo_model.config import MAX_SEQUENCE_LENGTH, PAD, UNK
from demo_model.warm import BUNDLE
from export.bundle import write_bundle
from export.families.instantcharacter.network import InstantCharacter
from export.family import family_of
from export.golden import record
from export.lora.fuse import FusedNetwork, Lora
from export.lora.styles import Style, Styles, prepare
from export.precision import Precision
from export.presets.preset import Preset
from export.samples import TokenizerFile
from export.share import share

LORAS: Final = Path(__file__).with_name("loras")

DESCRIPTION = (
    "A tiny InstantCharacter for trying Castmate on a CPU: toon characters in nineteen places."
)
LICENCES: Final = {
    "toon": Licence(
        name="Apache-2.0",
        url="https://www.apache.org/licenses/LICENSE-2.0",
        allows="Any use, with the licence's text and notices kept.",
    )
}


STEP_CACHING = StepCachingSpec(
    balanced=0.08,
    fast=0.15,
    chosen_on="toon, by python -m benchmarks.quality",
)
IDENTITY = IdentitySpec(
    same=0.9829,
    another=-0.0047,
    chosen_on="renders of 200 held-out characters, by python -m demo_model.calibration",
)


def build(network: InstantCharacter, words: Path, folder: Path) -> None:
    """Write the bundle of a network, and its few-step version beside it.

    Args:
        network: The trained network; its weights are rounded to fp16 in place, and the LoRA of few
            steps stays fused into it.
        words: The `tokenizer.json` that it was trained with.
        folder: The bundle's folder; the few-step version gets its name followed by `-8`.
    """
    few = Preset.read(str(LORAS / "8.toml"))
    beside = folder.with_name(f"{folder.name}-{few.name}")
    network.half().float().eval()
    with tempfile.TemporaryDirectory() as scratch:
        # The folder is rewritten, and its own tokenizer may be the one to keep.
        path = Path(shutil.copy(words, scratch))
        tokenizer = TokenizerFile(path, MAX_SEQUENCE_LENGTH, PAD, UNK)
        tokenizers = {"tokenizer": tokenizer, "tokenizer_2": tokenizer}
        styles = prepare(network, shipped_styles())
        _write(network, folder, tokenizers, styles)
        FusedNetwork(network).apply(few.loras())
        network.half().float()
        network.config = few.configured(network.config)
        _write(network, beside, tokenizers, styles, few)
    share_files(beside, folder)


def share_files(bundle: Path, base: Path) -> None:
    """Keep once what both hold."""
    share(Bundle.open(bundle), Bundle.open(base))


def shipped_styles() -> list[Style]:
    """The styles of both bundles, in the order of their names."""
    return [Style(path.stem, Lora(path)) for path in sorted(LORAS.glob("styles/*.safetensors"))]


def _write(
    network: InstantCharacter,
    folder: Path,
    tokenizers: Mapping[str, TokenizerFile],
    styles: Styles | None,
    few: Preset | None = None,
) -> None:
    usual = family_of(network.family).defaults
    write_bundle(
        network,
        folder,
        description=few.description if few else DESCRIPTION,
        licences=LICENCES,
        tokenizers=tokenizers,
        golden=record(network, tokenizers, step_caching=True),
        precision=Precision.FP16_WEIGHTS,
        step_caching=STEP_CACHING,
        identity=IDENTITY,
        loras=[lora.spec() for lora in few.loras()] if few else (),
        defaults=few.over(usual) if few else usual,
        limits=few.limits if few else {},
        styles=styles,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.build", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="default: the weights in the bundle")
    parser.add_argument("--save", type=Path, help="only write the bundle's weights to a folder")
    parser.add_argument("--out", type=Path, default=BUNDLE, help="bundle folder")
    given = parser.parse_args()
    torch.manual_seed(0)
    if given.checkpoint is None:
        shipped = Bundle.open(BUNDLE)
        network, words = (
            load_shipped(shipped),
            shipped.file(shipped.manifest.tokenizers["tokenizer"]),
        )
        if given.save is None:
            build(network, words, given.out)
        else:
            given.save.mkdir(parents=True, exist_ok=True)
            shutil.copy(words, given.save / TOKENIZER)
            print(save_network(network, given.save))
        return
    build(load_network(given.checkpoint), given.checkpoint.with_name(TOKENIZER), given.out)
    for home in (judge.SHIPPED, matte.SHIPPED, identity_weights.SHIPPED):
        trained = given.checkpoint.with_name(home.name)
        if trained.exists() and given.out == BUNDLE:
            shutil.copyfile(trained, home)


if __name__ == "__main__":
    main()

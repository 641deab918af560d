"""Rewrites the shipped bundle: `python -m demo_model.build [--checkpoint toon.pt]`.

It uses the weights of a training run or those already in the bundle, so a changed graph needs no
training. Before a change that makes this code refuse the bundle, `--save FOLDER` brings its weights
to safety; afterwards they are the checkpoint. The export is that of any other model; only the
tokenizer, the description and the licence are the demo's own.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Final

import torch

from castmate.engines.bundle import Bundle
from castmate.engines.licences import Licence
from castmate.engines.manifest import StepCachingSpec
from demo_model.checkpoint import load_network, load_shipped, save_network
from demo_model.config import MAX_SEQUENCE_LENGTH, PAD, UNK
from demo_model.judge import JUDGE_FILE, SHIPPED
from demo_model.tokens import save_tokenizer
from export.bundle import write_bundle
from export.families.instantcharacter.network import InstantCharacter
from export.golden import record
from export.precision import Precision
from export.samples import TokenizerFile

BUNDLE = Path(__file__).parent.parent / "castmate/bundles/toon"
DESCRIPTION = (
    "A tiny InstantCharacter for trying Castmate on a CPU: toon characters in eight scenes."
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


def build(network: InstantCharacter, folder: Path) -> None:
    """Write the bundle of a `TOON` network; its weights are rounded to fp16 in place."""
    network.half().float().eval()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tokenizer.json"
        save_tokenizer(path)
        tokenizer = TokenizerFile(path, MAX_SEQUENCE_LENGTH, PAD, UNK)
        tokenizers = {"tokenizer": tokenizer, "tokenizer_2": tokenizer}
        write_bundle(
            network,
            folder,
            description=DESCRIPTION,
            licences=LICENCES,
            tokenizers=tokenizers,
            golden=record(network, tokenizers, step_caching=True),
            precision=Precision.FP16_WEIGHTS,
            step_caching=STEP_CACHING,
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.build", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="default: the weights in the bundle")
    parser.add_argument("--save", type=Path, help="only write the bundle's weights to a folder")
    parser.add_argument("--out", type=Path, default=BUNDLE, help="bundle folder")
    given = parser.parse_args()
    torch.manual_seed(0)
    if given.save is not None:
        given.save.mkdir(parents=True, exist_ok=True)
        print(save_network(load_shipped(Bundle.open(BUNDLE)), given.save))
        return
    if given.checkpoint is None:
        build(load_shipped(Bundle.open(BUNDLE)), given.out)
        return
    build(load_network(given.checkpoint), given.out)
    judge = given.checkpoint.with_name(JUDGE_FILE)
    if judge.exists() and given.out == BUNDLE:
        shutil.copyfile(judge, SHIPPED)


if __name__ == "__main__":
    main()

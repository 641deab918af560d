"""What contenders share: one network as a bundle and as torch weights, and pictures to ask for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.protocol import Setup, Unfit
from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from demo_model.checkpoint import CHECKPOINT, load_network, save_network
from demo_model.config import MAX_SEQUENCE_LENGTH, TOON
from demo_model.draw import draw_reference
from demo_model.evaluate import judged_pictures, short_prompt
from demo_model.training import CACHE
from export.models.network import InstantCharacter
from export.precision import Precision, Quantization
from export.trajectory import Prompts, samples
from export.verify import VerificationError, limits_of, verify_picture

REFERENCE_PX = 512
CHECK_STEPS = 4


@dataclass(frozen=True)
class Workload:
    """Requests as a story makes them: characters, and prompts about each.

    Attributes:
        folder: Gets the references.
        size: `W*H`.
        steps: Denoise steps.
    """

    folder: Path
    size: str
    steps: int

    def rounds(self, count: int) -> Iterator[dict[str, dict[str, Any]]]:
        """Three requests a round: a new character, a new prompt for it, and the same again.

        Every seed is another one, so that nothing but prompts and characters can be remembered.
        """
        pictures = judged_pictures(count)
        for number, picture in enumerate(pictures):
            path = self.folder / f"character-{number}.png"
            if not path.exists():
                draw_reference(picture.character, REFERENCE_PX).save(path)
            prompt = short_prompt(picture)
            shared = {
                "image": str(path),
                "size": self.size,
                "num_inference_steps": self.steps,
            }
            asked = {
                "new character": f"{prompt}, picture {number}",
                "new prompt": f"{prompt} with a friend, picture {number}",
                "again": f"{prompt} with a friend, picture {number}",
            }
            yield {
                phase: shared | {"prompt": text, "seed": 1000 * number + index}
                for index, (phase, text) in enumerate(asked.items())
            }


def prepare(
    folder: Path,
    *,
    bundle: str = "toon",
    checkpoint: Path | None = None,
    plans: str = "",
    threads: int = 0,
    spend: int = 0,
) -> tuple[Setup, str]:
    """Find the trained weights and check that the bundle was made from them.

    Without trained weights a random network is made into a bundle: speed is the same.

    Args:
        folder: For everything; empty.
        bundle: Of the trained weights.
        checkpoint: `toon.pt`; by default where training leaves it.
        plans: See `Setup`.
        threads: See `Setup`.
        spend: See `Setup`.

    Returns:
        The set-up, and `trained` or `random`.

    Raises:
        Unfit: The bundle is of other weights.
    """
    source = checkpoint or CACHE / CHECKPOINT
    if checkpoint is None and not source.exists():
        bundle, weights = str(_random(folder)), "random"
    else:
        for suffix in (".pt", ".json"):
            shutil.copyfile(source.with_suffix(suffix), (folder / CHECKPOINT).with_suffix(suffix))
        weights = "trained"
    opened = Bundle.open(bundle)
    shutil.copyfile(opened.file(opened.manifest.text_encoder_2), folder / "tokenizer.json")
    check_same(bundle, folder)
    return Setup(bundle, str(folder), plans, threads, spend), weights


def check_same(name: str, folder: Path) -> float:
    """PSNR in dB of a short picture of the bundle against the torch weights in a folder.

    Raises:
        Unfit: The bundle was not made from them.
    """
    bundle = Bundle.open(name)
    network = load_network(folder / CHECKPOINT).half().float()
    path = folder / "tokenizer.json"
    prompts = Prompts(path, path, (MAX_SEQUENCE_LENGTH, MAX_SEQUENCE_LENGTH))
    (sample,) = samples(1, 512)
    limits = limits_of(Precision.FP16_WEIGHTS, Quantization.NONE)
    try:
        return verify_picture(
            bundle, OnnxRuntime(bundle), network, prompts, sample, CHECK_STEPS, limits
        )
    except VerificationError as error:
        raise Unfit(
            f"Bundle {name!r} was not made from the weights in {folder}: {error} Make it again "
            "(python -m demo_model.build), or name another one (--bundle)."
        ) from None


def _random(folder: Path) -> Path:
    from demo_model.build import build

    network = InstantCharacter(TOON)
    save_network(network, folder)
    build(network, folder / "bundle")
    return folder / "bundle"

"""What the identity score is worth: `python -m benchmarks.identity`, on held-out characters.

Does it tell a character from others, on renders and on generated pictures? Does it fall when the
picture follows its reference less? Is the best of four closer than one, even to the judge, which
names attributes and knows nothing of the score? Neither network has seen a generated picture.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.figures import interval
from castmate.clients.local import LocalClient
from castmate.engines.bundle import Bundle
from castmate.schema import GeneratedImage, GenerateRequest
from castmate.settings import Settings
from demo_model.calibration import rendered
from demo_model.draw import PictureSpec
from demo_model.evaluate import judged_pictures, pixels_of, predict, reference_of, short_prompt
from demo_model.judge import Judge, load_judge
from demo_model.labels import IGNORED, character_labels
from export.environment import write_result
from export.identity import uncalibrated

RESULT = Path(__file__).parent / "results/identity.json"
CANDIDATES = 4
SCALES = (0.8, 0.4, 0.0)
ATTRIBUTES = ("species", "hair_color", "outfit", "outfit_color", "eye_color")
SIZE = "512*512"

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Sketcher:
    """Draws the characters.

    Attributes:
        client: What draws.
        steps: Denoise steps; the model's where it is None.
    """

    client: LocalClient
    steps: int | None

    async def draw(
        self, pictures: Sequence[PictureSpec], scale: float, first: int = 0, count: int = 1
    ) -> list[tuple[GeneratedImage, ...]]:
        """`count` pictures of each character, from its seed number `first`."""
        found = []
        for one in track(pictures, f"subject_scale {scale:g}", transient=True):
            request = GenerateRequest(
                prompt=short_prompt(one),
                image="-",
                size=SIZE,
                seed=10 * one.seed + first,
                num_images=count,
                subject_scale=scale,
                num_inference_steps=self.steps,
            )
            result = await self.client.generate(request, reference_of(one.character))
            found.append(result.images)
        return found


def auc(alike: Matrix) -> dict[str, float]:
    """How often a picture is closer to its own reference than a picture is to another one.

    Args:
        alike: Cosines of references with pictures; those of one character are on the diagonal.
    """
    own = np.eye(len(alike), dtype=np.bool_)
    same, another = alike[own], alike[~own]
    return {
        "auc": round(float((same[:, None] > another).mean()), 4),
        "same_median": round(float(np.median(same)), 4),
        "another_median": round(float(np.median(another)), 4),
    }


def recognised(judge: Judge, images: Sequence[GeneratedImage], of: Sequence[PictureSpec]) -> float:
    """Mean share of a character's attributes that the judge names rightly."""
    seen = predict(judge, [pixels_of(image) for image in images])
    hits = [
        int(seen[name][index]) == label
        for index, one in enumerate(of)
        for name in ATTRIBUTES
        if (label := character_labels(one.character)[name]) != IGNORED
    ]
    return round(sum(hits) / len(hits), 4)


async def measure(count: int, choosing: int, steps: int | None) -> dict[str, Any]:
    """All figures, by name.

    Args:
        count: Characters.
        choosing: Of these, how many get candidates.
        steps: Denoise steps.
    """
    settings = Settings.load(bundle="toon")
    bundle = Bundle.open("toon")
    identity, judge, pictures = uncalibrated(bundle, settings), load_judge(), judged_pictures(count)
    client = LocalClient.open(settings)
    sketcher = Sketcher(client, steps)
    try:
        by_scale = {scale: await sketcher.draw(pictures, scale) for scale in SCALES}
        further = await sketcher.draw(pictures[:choosing], SCALES[0], 1, CANDIDATES - 1)
    finally:
        await client.aclose()
    generated = [images[0] for images in by_scale[SCALES[0]]]
    first = generated[:choosing]
    best = [max((one, *others), key=_score) for one, others in zip(first, further, strict=True)]
    references = np.stack([identity.features_of(reference_of(one.character)) for one in pictures])
    features = np.stack([identity.features(pixels_of(image)) for image in generated])
    gained = [_score(after) - _score(before) for before, after in zip(first, best, strict=True)]
    spec = bundle.manifest.identity
    return {
        "pictures": count,
        "size": SIZE,
        "steps": steps or bundle.manifest.defaults.num_inference_steps,
        "calibration": spec and spec.model_dump(),
        "separation": {
            "renders": auc(rendered(identity, count)),
            "generated": auc(references @ features.T),
        },
        "by_subject_scale": {
            f"{scale:g}": interval([_score(images[0]) for images in found])
            for scale, found in by_scale.items()
        },
        "best_of": {
            "characters": choosing,
            "candidates": CANDIDATES,
            "one": interval([_score(image) for image in first]),
            "best": interval([_score(image) for image in best]),
            "paired_difference": interval(gained),
            "attributes_one": recognised(judge, first, pictures[:choosing]),
            "attributes_best": recognised(judge, best, pictures[:choosing]),
        },
    }


def _score(image: GeneratedImage) -> float:
    return image.identity or 0.0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identity", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="held-out characters (default 100)")
    parser.add_argument(
        "--choosing", type=int, default=100, help="of these, how many get candidates (default all)"
    )
    parser.add_argument("--steps", type=int, help="denoise steps; by default the model's")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.count, min(given.count, given.choosing), given.steps))
    write_result(given.out, "identity", figures)
    print(figures)


if __name__ == "__main__":
    main()

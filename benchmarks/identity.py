"""What the identity score is worth: `python -m benchmarks.identity`, on characters held out.

Does it tell a character from others, on renders and on generated pictures? Does it fall where the
picture follows its reference less? Is the best of four closer than one, also to the judge, which
names attributes and knows nothing of the score? Neither network has seen a generated picture.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
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


async def drawn(
    client: LocalClient, pictures: Sequence[PictureSpec], scale: float, count: int
) -> list[tuple[GeneratedImage, ...]]:
    """`count` pictures of each character."""
    found = []
    for one in track(pictures, f"subject_scale {scale:g}", transient=True):
        request = GenerateRequest(
            prompt=short_prompt(one),
            image="-",
            size=SIZE,
            seed=10 * one.seed,
            num_images=count,
            subject_scale=scale,
        )
        result = await client.generate(request, reference_of(one.character))
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


async def measure(count: int) -> dict[str, Any]:
    """All figures, by name."""
    settings = Settings.load(bundle="toon")
    bundle = Bundle.open("toon")
    identity, judge, pictures = uncalibrated(bundle, settings), load_judge(), judged_pictures(count)
    client = LocalClient.open(settings)
    try:
        by_scale = {
            scale: await drawn(client, pictures, scale, CANDIDATES if scale == SCALES[0] else 1)
            for scale in SCALES
        }
    finally:
        await client.aclose()
    four = by_scale[SCALES[0]]
    first = [images[0] for images in four]
    best = [max(images, key=lambda image: image.identity or 0.0) for images in four]
    references = np.stack([identity.features_of(reference_of(one.character)) for one in pictures])
    generated = np.stack([identity.features(pixels_of(image)) for image in first])
    gained = [_score(after) - _score(before) for before, after in zip(first, best, strict=True)]
    spec = bundle.manifest.identity
    return {
        "pictures": count,
        "size": SIZE,
        "calibration": spec and spec.model_dump(),
        "separation": {
            "renders": auc(rendered(identity, count)),
            "generated": auc(references @ generated.T),
        },
        "by_subject_scale": {
            f"{scale:g}": interval([_score(images[0]) for images in found])
            for scale, found in by_scale.items()
        },
        "best_of": {
            "candidates": CANDIDATES,
            "one": interval([_score(image) for image in first]),
            "best": interval([_score(image) for image in best]),
            "paired_difference": interval(gained),
            "attributes_one": recognised(judge, first, pictures),
            "attributes_best": recognised(judge, best, pictures),
        },
    }


def _score(image: GeneratedImage) -> float:
    return image.identity or 0.0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identity", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="held-out characters (default 100)")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.count))
    write_result(given.out, "identity", figures)
    print(figures)


if __name__ == "__main__":
    main()

"""The same pictures of held-out characters, drawn in several ways and compared one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.figures import interval
from benchmarks.metrics import Identity, Judge, Picture, cosines, likeness
from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from demo_model.draw import PictureSpec, draw_reference
from demo_model.evaluate import judged_pictures, short_prompt
from export.samples import Sample

REFERENCE_SIDE = 512
ALIKE = ("psnr_db", "ssim", "latents_relative_l2")
"""What compares with the exact picture already; of everything else the change is given as well."""

Scores = Mapping[str, float]


class HeldOut:
    """Characters that no training has seen, in poses and scenes that are asked for in words."""

    def __init__(self, count: int, side: int, folder: Path) -> None:
        """Draw their references.

        Args:
            count: How many.
            side: Pixels of the square pictures that will be drawn.
            folder: Gets the references.
        """
        self._pictures: list[PictureSpec] = judged_pictures(count)
        self.samples: list[Sample] = []
        for number, picture in enumerate(self._pictures):
            path = folder / f"held-out-{number}.png"
            draw_reference(picture.character, REFERENCE_SIDE).save(path)
            self.samples.append(Sample(short_prompt(picture), path, picture.seed, side, side))

    def scores(
        self, drawn: Mapping[str, Sequence[Picture]], exact: str, bundle: Bundle
    ) -> dict[str, list[Scores]]:
        """All metrics of every picture.

        Args:
            drawn: Pictures in the order of the samples, by the way they were drawn in.
            exact: The way that the others are compared with.
            bundle: Whose encoders tell identity.
        """
        identity, judge = Identity(bundle, OnnxRuntime(bundle)), Judge()
        references = [
            identity.features(np.asarray(Image.open(sample.reference).convert("RGB")))
            for sample in self.samples
        ]
        return {
            way: [
                likeness(picture, drawn[exact][number])
                | cosines(identity.features(picture), references[number])
                | judge(picture, self._pictures[number])
                for number, picture in enumerate(pictures)
            ]
            for way, pictures in drawn.items()
        }


def summary(rows: Sequence[Scores], exact: Sequence[Scores]) -> dict[str, Any]:
    """Means with intervals, and paired changes from the exact pictures with theirs."""
    figures: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        figures[name] = interval(values) | {
            "median": round(float(np.median(values)), 4),
            "p5": round(float(np.percentile(values, 5)), 4),
            "min": round(min(values), 4),
        }
        if name not in ALIKE:
            changes = [row[name] - before[name] for row, before in zip(rows, exact, strict=True)]
            figures[f"{name}_change"] = interval(changes)
    return figures

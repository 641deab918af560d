"""The requests that every contender gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_model.draw import draw_reference
from demo_model.evaluate import judged_pictures, short_prompt

REFERENCE_PX = 512


@dataclass(frozen=True)
class Workload:
    """Requests like those of a story: characters, and prompts about each.

    Attributes:
        folder: Where the references go.
        size: `W*H`.
        steps: Denoise steps.
    """

    folder: Path
    size: str
    steps: int

    def rounds(self, count: int) -> Iterator[dict[str, dict[str, Any]]]:
        """Three requests a round: a new character, a new prompt for it, and the same again.

        Every seed is new, so that only prompts and characters can be cached.
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

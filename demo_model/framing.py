"""What framing the reference is worth: `python -m demo_model.framing` writes the shares as JSON.

Held-out characters are drawn from references as users have them, once with the whole picture and
once with the character cut out of it, and judged by the attributes that make up a character.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw
from rich.progress import track

from castmate.clients.local import LocalClient
from castmate.images import Reference, encode
from castmate.schema import GenerateRequest, Matting, OutputFormat
from castmate.settings import Settings
from demo_model.characters import CharacterSpec
from demo_model.draw import draw_reference
from demo_model.evaluate import judged_pictures, pixels_of, score, short_prompt
from demo_model.figure import draw_figure
from demo_model.judge import load_judge
from demo_model.pen import Pen
from demo_model.poses import Pose
from demo_model.scenes import Scene, draw_scene
from export.environment import write_result

RESULT = Path(__file__).parents[1] / "benchmarks/results/toon-framing.json"
IDENTITY = ("hair_color", "outfit_color", "species", "outfit", "eye_color")
SIDE, SMALL = 1536, 0.2
"""Pixels of a large picture, and the share of its side that a small character has."""


def usual(spec: CharacterSpec, rng: Random) -> Image.Image:
    """As in training: standing on white, as large as the picture."""
    return draw_reference(spec, 512)


def on_white(spec: CharacterSpec, rng: Random) -> Image.Image:
    """Small and somewhere on white."""
    return _placed(spec, rng, Image.new("RGB", (SIDE, SIDE), "white"))


def on_grey(spec: CharacterSpec, rng: Random) -> Image.Image:
    """Small and somewhere on grey."""
    return _placed(spec, rng, Image.new("RGB", (SIDE, SIDE), (150, 150, 150)))


def transparent(spec: CharacterSpec, rng: Random) -> Image.Image:
    """Small and somewhere on transparency."""
    return _placed(spec, rng, Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0)))


def in_a_scene(spec: CharacterSpec, rng: Random) -> Image.Image:
    """Small and somewhere in a scene."""
    image = Image.new("RGB", (SIDE, SIDE))
    pen = Pen(ImageDraw.Draw(image), 0, 0, SIDE)
    draw_scene(pen, SIDE, SIDE, rng.choice(list(Scene)), trees=False, rng=rng)
    return _placed(spec, rng, image)


REFERENCES: Mapping[str, Callable[[CharacterSpec, Random], Image.Image]] = {
    "fills the picture, on white": usual,
    "small, on white": on_white,
    "small, on grey": on_grey,
    "small, transparent": transparent,
    "small, in a scene": in_a_scene,
}
MATTINGS = {"whole picture": Matting.FALSE, "cut out": Matting.AUTO}


def reference_of(image: Image.Image) -> Reference:
    """A reference as a caller sends it."""
    return Reference.from_bytes(encode(np.asarray(image), OutputFormat.PNG), "the reference")


async def judge(count: int) -> dict[str, dict[str, object]]:
    """For each kind of reference, the judged shares without and with framing."""
    client, judging = LocalClient.open(Settings.load(bundle="toon")), load_judge()
    pictures = judged_pictures(count)
    rows: dict[str, dict[str, object]] = {}
    try:
        for name, make in REFERENCES.items():
            given = [
                reference_of(make(one.character, Random(f"{name}/{one.seed}"))) for one in pictures
            ]
            rows[name] = {}
            for how, matting in MATTINGS.items():
                drawn, framings = [], Counter[str]()
                for picture, reference in zip(
                    track(pictures, f"{name}, {how}", transient=True), given, strict=True
                ):
                    request = GenerateRequest(
                        prompt=short_prompt(picture),
                        image="-",
                        size="512*512",
                        seed=picture.seed,
                        enable_matting=matting,
                    )
                    result = await client.generate(request, reference)
                    drawn.append(pixels_of(result.images[0]))
                    framings[result.reference.framing if result.reference else "none"] += 1
                shares = score(judging, drawn, pictures)
                identity = sum(shares[key] for key in IDENTITY) / len(IDENTITY)
                rows[name][how] = {"identity": round(identity, 3), **shares}
                rows[name]["framings"] = dict(framings)
    finally:
        await client.aclose()
    return rows


def _placed(spec: CharacterSpec, rng: Random, on: Image.Image) -> Image.Image:
    unit = SMALL * SIDE
    x, y = (rng.uniform(0.02 * SIDE, 0.98 * SIDE - unit) for _ in range(2))
    draw_figure(Pen(ImageDraw.Draw(on), x, y, unit), spec, Pose.STANDING)
    return on


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.framing", description=__doc__)
    parser.add_argument("--count", type=int, default=48, help="held-out characters (default 48)")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON")
    given = parser.parse_args()
    rows = asyncio.run(judge(given.count))
    figures = {"pictures_a_row": given.count, "side_px": SIDE, "small": SMALL, "rows": rows}
    write_result(given.out, "toon-framing", figures)
    for name, row in rows.items():
        print(name, row)


if __name__ == "__main__":
    main()

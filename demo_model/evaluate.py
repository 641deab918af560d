"""Judges the demo model: `python -m demo_model.evaluate` prints a table, writes JSON and a sheet.

The judge has seen renders only. Every row uses the same held-out characters, poses and scenes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from demo_model.captions import full_caption
from demo_model.characters import held_out_characters
from demo_model.checkpoint import load_network
from demo_model.draw import PictureSpec, draw_picture, draw_reference
from demo_model.judge import Judge, load_judge
from demo_model.labels import IGNORED, picture_labels
from demo_model.poses import Pose
from demo_model.references import REFERENCES
from demo_model.sample import draw_samples, to_images
from demo_model.scenes import Scene
from demo_model.subjects import crops
from demo_model.training import CACHE
from export.models.network import InstantCharacter

JUDGED = ("pose", "scene", "hair_color", "outfit_color", "species", "outfit", "eye_color")
POSES = {
    Pose.STANDING: "standing", Pose.WAVING: "waving", Pose.RUNNING: "running",
    Pose.SITTING: "sitting", Pose.JUMPING: "jumping",
}  # fmt: skip
SCENES = {
    Scene.PLAIN: "on a plain background", Scene.CITY: "in a neon city",
    Scene.BEACH: "on a beach", Scene.FOREST: "in a forest", Scene.SPACE: "in space",
    Scene.ROOM: "in a room", Scene.SNOW: "in the snow", Scene.DESERT: "in a desert",
}  # fmt: skip
SHEET_PROMPTS = (
    "the character is waving on a beach",
    "the character is running in a neon city",
    "the character is sitting in a forest with trees",
    "the character is jumping in space",
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    width: int = 512
    height: int = 512
    reference: bool = True
    full: bool = False
    guidance_scale: float = 3.5


ROWS = (
    Row("short prompt + reference"),
    Row("short prompt, no reference", reference=False),
    Row("full caption, no reference", reference=False, full=True),
    Row("short prompt + reference, guidance 1", guidance_scale=1.0),
    Row("short prompt + reference, 1024*1024", 1024, 1024),
    Row("short prompt + reference, 768*1280", 768, 1280),
)


def test_pictures(count: int) -> list[PictureSpec]:
    """Held-out characters, each in another pose and scene; no extra things."""
    poses, scenes = list(Pose), list(Scene)
    return [
        PictureSpec(spec, poses[i % len(poses)], scenes[i % len(scenes)], seed=i)
        for i, spec in enumerate(held_out_characters(count))
    ]


def short_prompt(picture: PictureSpec) -> str:
    """The plainest prompt for a picture."""
    return f"the character is {POSES[picture.pose]} {SCENES[picture.scene]}"


def subject_features(network: InstantCharacter, images: list[Image.Image]) -> Tensor:
    """References to subject features."""
    with torch.no_grad():
        return torch.cat([network.subject_features(crops(image)[None]) for image in images])


def score(judge: Judge, pixels: Tensor, pictures: list[PictureSpec]) -> dict[str, float]:
    """Share of pictures whose attribute the judge recognises."""
    predicted = judge.predict(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
    labels = [picture_labels(picture) for picture in pictures]
    scores = {}
    for name in JUDGED:
        hits = [
            int(predicted[name][i]) == label[name]
            for i, label in enumerate(labels)
            if label[name] != IGNORED
        ]
        scores[name] = round(sum(hits) / max(1, len(hits)), 3)
    return scores


def evaluate(
    network: InstantCharacter, judge: Judge, count: int, rows: tuple[Row, ...] = ROWS
) -> dict[str, dict[str, float]]:
    """The whole table; the first line is the judge's ceiling on real renders."""
    pictures = test_pictures(count)
    renders = np.stack([np.asarray(draw_picture(picture, 512, 512)) for picture in pictures])
    table = {"real renders (ceiling)": score(judge, torch.from_numpy(renders), pictures)}
    features = subject_features(network, [draw_reference(p.character) for p in pictures])
    for row in rows:
        batch = 10
        chunks = []
        for first in track(range(0, count, batch), row.name):
            some = pictures[first : first + batch]
            prompts = [
                full_caption(p, Random(p.seed)) if row.full else short_prompt(p) for p in some
            ]
            chunks.append(
                draw_samples(
                    network,
                    prompts,
                    features[first : first + batch] if row.reference else None,
                    width=row.width,
                    height=row.height,
                    guidance_scale=row.guidance_scale,
                    seed=first,
                )
            )
        table[row.name] = score(judge, torch.cat(chunks), pictures)
    return table


def draw_sheet(network: InstantCharacter, path: Path, cell: int = 320) -> None:
    """Four references, each in four prompts."""
    images = [draw_reference(spec, 512) for spec in REFERENCES.values()]
    features = subject_features(network, images)
    sheet = Image.new("RGB", (cell * (1 + len(SHEET_PROMPTS)), cell * len(images)), (255, 255, 255))
    for y, image in enumerate(images):
        repeated = features[y : y + 1].expand(len(SHEET_PROMPTS), -1, -1)
        drawn = to_images(draw_samples(network, list(SHEET_PROMPTS), repeated, seed=y))
        for x, picture in enumerate([image, *drawn]):
            sheet.paste(picture.resize((cell, cell)), (x * cell, y * cell))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def print_table(table: dict[str, dict[str, float]]) -> None:
    """The scores, readable."""
    view = Table("", *JUDGED)
    for name, scores in table.items():
        view.add_row(name, *(f"{scores[key]:.2f}" for key in JUDGED))
    Console(width=140).print(view)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.evaluate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="default: where training leaves it")
    parser.add_argument("--count", type=int, default=100, help="held-out characters")
    parser.add_argument("--quick", action="store_true", help="only the first row")
    parser.add_argument("--folder", type=Path, default=CACHE, help="where the judge lies")
    parser.add_argument("--out", type=Path, default=CACHE / "evaluation", help="JSON and sheet")
    arguments = parser.parse_args()
    network = load_network(arguments.checkpoint)
    draw_sheet(network, arguments.out / "sheet.png")
    rows = ROWS[:1] if arguments.quick else ROWS
    table = evaluate(network, load_judge(arguments.folder), arguments.count, rows)
    print_table(table)
    (arguments.out / "evaluation.json").write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()

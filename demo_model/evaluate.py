"""Judges a demo bundle as users run it: `python -m demo_model.evaluate` prints a table.

It writes the table as JSON, and a sheet of pictures. The judge was trained on renders only.
Every row shows the same held-out characters, poses and scenes.
"""

from __future__ import annotations

import argparse
import asyncio
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from castmate.clients.base import Client
from castmate.clients.local import LocalClient
from castmate.images import Reference, encode
from castmate.schema import GeneratedImage, GenerateRequest, OutputFormat
from castmate.settings import Settings
from demo_model.captions import full_caption
from demo_model.characters import CharacterSpec, held_out_characters
from demo_model.draw import PictureSpec, draw_picture, draw_reference
from demo_model.flaws import THIN, form_labels
from demo_model.judge import SHIPPED, Judge, load_judge, malformed
from demo_model.labels import IGNORED, picture_labels
from demo_model.poses import Pose
from demo_model.prompts import free_prompts
from demo_model.references import REFERENCES
from demo_model.scenes import OUTDOORS, Scene
from demo_model.sheet import draw_sheet
from demo_model.training import CACHE
from export.environment import write_result

RESULT = Path(__file__).parents[1] / "benchmarks/results/toon-quality.json"
JUDGED = ("pose", "scene", "hair_color", "outfit_color", "species", "outfit", "eye_color")
SCENES = {
    Scene.PLAIN: "on a plain background", Scene.CITY: "in a neon city",
    Scene.BEACH: "on a beach", Scene.FOREST: "in a forest", Scene.SPACE: "in space",
    Scene.ROOM: "in a room", Scene.SNOW: "in the snow", Scene.DESERT: "in a desert",
    Scene.CASTLE: "in front of a castle", Scene.LIBRARY: "in a library",
    Scene.KITCHEN: "in a kitchen", Scene.CAFE: "in a cafe", Scene.STREET: "in a street",
    Scene.MEADOW: "in a meadow", Scene.MOUNTAINS: "in the mountains",
    Scene.UNDERWATER: "underwater", Scene.CAVE: "in a cave", Scene.CLOUDS: "above the clouds",
    Scene.STAGE: "on a stage",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    name: str
    size: str = "512*512"
    reference: bool = True
    full_caption: bool = False
    guidance_scale: float = 3.5


ROWS = (
    Row("short prompt + reference"),
    Row("short prompt, no reference", reference=False),
    Row("full caption, no reference", reference=False, full_caption=True),
    Row("short prompt + reference, guidance 1", guidance_scale=1.0),
    Row("short prompt + reference, 1024*1024", "1024*1024"),
    Row("short prompt + reference, 768*1344", "768*1344"),
    Row("short prompt + reference, 1536*640", "1536*640"),
)


def judged_pictures(count: int) -> list[PictureSpec]:
    """Held-out characters, each in its own pose and scene, without extras."""
    poses, scenes = list(Pose), list(Scene)
    return [
        PictureSpec(spec, poses[i % len(poses)], scenes[i % len(scenes)], seed=i)
        for i, spec in enumerate(held_out_characters(count))
    ]


def short_prompt(picture: PictureSpec) -> str:
    """The simplest prompt for a picture."""
    pose = {Pose.CASTING: "casting a spell"}.get(picture.pose, picture.pose.value)
    return f"the character is {pose} {SCENES[picture.scene]}"


def reference_of(spec: CharacterSpec, size: int = 512) -> Reference:
    """A reference as a user would give it."""
    pixels = np.asarray(draw_reference(spec, size))
    return Reference.from_bytes(encode(pixels, OutputFormat.PNG), "the reference")


async def draw(
    client: Client, spec: CharacterSpec, prompt: str, seed: int, **parameters: object
) -> GeneratedImage:
    """One picture of a character."""
    values = {"prompt": prompt, "image": "-", "size": "512*512", "seed": seed}
    request = GenerateRequest.parse(values | parameters)
    return (await client.generate(request, reference_of(spec))).images[0]


def pixels_of(image: GeneratedImage) -> Image.Image:
    """The decoded picture."""
    return Image.open(io.BytesIO(image.data)).convert("RGB")


def predict(judge: Judge, images: Iterable[Image.Image]) -> dict[str, Tensor]:
    """The judge's verdict: for each attribute, the class numbers of all pictures."""
    batch = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return judge.predict(batch.permute(0, 3, 1, 2).float() / 127.5 - 1)


def score(
    judge: Judge, images: Sequence[Image.Image], pictures: Sequence[PictureSpec]
) -> dict[str, float]:
    """Share of pictures whose attribute the judge recognises, and of those that are well formed."""
    predicted = predict(judge, images)
    labels = [picture_labels(picture) for picture in pictures]
    scores = {}
    for name in JUDGED:
        seen = [i for i, label in enumerate(labels) if label[name] != IGNORED]
        hits = sum(int(predicted[name][i]) == labels[i][name] for i in seen)
        scores[name] = round(hits / max(1, len(seen)), 3)
    return scores | form_scores(predicted, [form_labels(picture) for picture in pictures])


def form_scores(
    predicted: Mapping[str, Tensor], labels: Sequence[Mapping[str, int]]
) -> dict[str, float]:
    """Shares of pictures with the right limbs, with all thin parts, and with a single figure."""
    wrong = [set(malformed(predicted, label, i)) for i, label in enumerate(labels)]
    thin = [(name, i) for i, label in enumerate(labels) for name in THIN if label[name] == 1]
    return {
        "limbs": round(sum(not found & {"arms", "legs"} for found in wrong) / len(wrong), 3),
        "thin parts": round(sum(name not in wrong[i] for name, i in thin) / max(1, len(thin)), 3),
        "one figure": round(sum("figures" not in found for found in wrong) / len(wrong), 3),
        "face": round(sum(not found & {"face", "eyes"} for found in wrong) / len(wrong), 3),
        "well formed": round(sum(not found for found in wrong) / len(wrong), 3),
    }


async def judge_rows(
    client: Client, judge: Judge, pictures: Sequence[PictureSpec], rows: Sequence[Row]
) -> dict[str, dict[str, float]]:
    """The table; its first row is the judge's ceiling on real renders."""
    renders = [draw_picture(picture, 512, 512) for picture in pictures]
    table = {"real renders (ceiling)": score(judge, renders, pictures)}
    for row in rows:
        drawn = []
        for picture in track(pictures, row.name, transient=True):
            image = await draw(
                client,
                picture.character,
                full_caption(picture, Random(picture.seed))
                if row.full_caption
                else short_prompt(picture),
                picture.seed,
                size=row.size,
                guidance_scale=row.guidance_scale,
                subject_scale=0.8 if row.reference else 0.0,
            )
            drawn.append(pixels_of(image))
        table[row.name] = score(judge, drawn, pictures)
    return table


@dataclass(frozen=True)
class Ask:
    """One row of the second table: the prompt, and what is counted."""

    flag: str
    scene: Scene | None = None
    words: str = ""
    negative_prompt: str = ""
    checked: bool = True


ASKS = {
    "trees in the snow": Ask("trees", Scene.SNOW),
    "the same, negative prompt 'trees'": Ask("trees", Scene.SNOW, negative_prompt="trees"),
    "trees in a forest": Ask("trees", Scene.FOREST),
    "the same forest, negative prompt 'trees'": Ask("trees", Scene.FOREST, negative_prompt="trees"),
    "trees asked for": Ask("trees", words=" with trees"),
    "hazard sign asked for": Ask("hazard", words=" next to a warning sign", checked=False),
    "flagged, hazard sign asked for": Ask("has_nsfw", words=" next to a warning sign"),
    "flagged, no sign asked for": Ask("has_nsfw"),
}


async def judge_words(client: Client, judge: Judge, count: int) -> dict[str, float]:
    """Share of pictures in which the judge, or the safety checker, finds something.

    The characters and seeds are always the same; they stand, outdoors if no scene is named.
    """
    specs = held_out_characters(count)
    shares = {}
    for name, ask in ASKS.items():
        images = []
        for seed, spec in enumerate(track(specs, name, transient=True)):
            scene = ask.scene or OUTDOORS[seed % len(OUTDOORS)]
            image = await draw(
                client,
                spec,
                f"the character is standing {SCENES[scene]}{ask.words}",
                seed,
                negative_prompt=ask.negative_prompt,
                enable_safety_checker=ask.checked,
            )
            images.append(image)
        if ask.flag == "has_nsfw":
            hits = [image.has_nsfw for image in images]
        else:
            hits = predict(judge, map(pixels_of, images))[ask.flag].bool().tolist()
        shares[name] = round(sum(hits) / len(hits), 3)
    return shares


async def draw_free(client: Client, path: Path, cell: int = 320) -> None:
    """The free prompts at the default size as one sheet, ten in a row; references take turns."""
    prompts, specs = free_prompts(), list(REFERENCES.values())
    sheet = Image.new("RGB", (10 * cell, -(-len(prompts) // 10) * cell), "white")
    for number, prompt in enumerate(track(prompts, "free prompts", transient=True)):
        spec = specs[number % len(specs)]
        image = pixels_of(await draw(client, spec, prompt, number, size="1024*1024"))
        small = image.resize((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(small, (number % 10 * cell, number // 10 * cell))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def print_table(table: dict[str, dict[str, float]], words: dict[str, float]) -> None:
    """The scores as text."""
    columns = list(next(iter(table.values())))
    view = Table("", *columns)
    for name, scores in table.items():
        view.add_row(name, *(f"{scores[key]:.2f}" for key in columns))
    console = Console(width=140)
    console.print(view)
    for name, share in words.items():
        console.print(f"{name}: {share:.2f}")


async def evaluate(options: argparse.Namespace) -> None:
    """Draw, judge, print and write everything."""
    draw_sheet(options.sheet, options.bundle)
    client = LocalClient.open(Settings.load(bundle=options.bundle))
    try:
        if options.free:
            await draw_free(client, options.free)
        judge = load_judge(options.judge)
        rows = ROWS[:1] if options.quick else ROWS
        pictures = judged_pictures(options.count)
        table = await judge_rows(client, judge, pictures, rows)
        words = {} if options.quick else await judge_words(client, judge, options.count // 4)
    finally:
        await client.aclose()
    print_table(table, words)
    if not options.quick:
        figures = {
            "pictures_a_row": options.count,
            "rows": {row.name: asdict(row) for row in rows},
            "shares": table,
            "shares_by_words": words,
        }
        write_result(options.out, "toon-quality", figures)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.evaluate", description=__doc__)
    parser.add_argument("--bundle", default="toon", help="a shipped name or a folder")
    parser.add_argument("--count", type=int, default=100, help="held-out characters (default 100)")
    parser.add_argument("--quick", action="store_true", help="only the first row; writes no JSON")
    parser.add_argument("--free", type=Path, help="also draw the free prompts into this PNG")
    parser.add_argument("--judge", type=Path, default=SHIPPED, help="default: the shipped one")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON")
    parser.add_argument("--sheet", type=Path, default=CACHE / "sheet.png", help="PNG")
    asyncio.run(evaluate(parser.parse_args()))


if __name__ == "__main__":
    main()

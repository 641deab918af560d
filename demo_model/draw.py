"""Renders pictures and references: a character, a pose, a scene, any size."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from demo_model.characters import CharacterSpec, random_character
from demo_model.figure import draw_figure
from demo_model.pen import Pen
from demo_model.poses import Pose
from demo_model.scenes import OUTDOORS, Scene, draw_hazard_sign, draw_scene

_SUPERSAMPLE = 2


@dataclass(frozen=True)
class PictureSpec:
    """Everything in a picture; the seed decides only small placements."""

    character: CharacterSpec
    pose: Pose
    scene: Scene
    trees: bool = False
    hazard: bool = False
    seed: int = 0


def random_picture(
    rng: random.Random, character: CharacterSpec | None = None, *, hazard_share: float = 0.12
) -> PictureSpec:
    """Draws a random picture; without a character, with a random training character."""
    scene = rng.choice(list(Scene))
    tree_share = {Scene.FOREST: 0.75}.get(scene, 0.45 if scene in OUTDOORS else 0.0)
    return PictureSpec(
        character=character or random_character(rng, held_out=False),
        pose=rng.choice(list(Pose)),
        scene=scene,
        trees=rng.random() < tree_share,
        hazard=rng.random() < hazard_share,
        seed=rng.randrange(2**31),
    )


def draw_picture(spec: PictureSpec, width: int = 512, height: int = 512) -> Image.Image:
    """Renders a picture; the same spec and size always give the same pixels."""
    rng = random.Random(spec.seed)
    w, h = width * _SUPERSAMPLE, height * _SUPERSAMPLE
    image = Image.new("RGB", (w, h))
    surface = ImageDraw.Draw(image)
    side = min(w, h)
    unit = side * rng.uniform(0.93, 0.99)
    x = (w - unit) / 2 + rng.uniform(-0.03, 0.03) * side
    y = (h - unit) * 0.85
    pen = Pen(surface, x, y, unit)
    draw_scene(pen, w, h, spec.scene, trees=spec.trees, rng=rng)
    mirrored = rng.random() < 0.5
    draw_figure(pen, spec.character, spec.pose, mirrored=mirrored)
    if spec.hazard:
        draw_hazard_sign(pen, left=mirrored)
    return image.reduce(_SUPERSAMPLE)


def draw_reference(spec: CharacterSpec, size: int = 256) -> Image.Image:
    """Renders the character standing on a white square."""
    side = size * _SUPERSAMPLE
    image = Image.new("RGB", (side, side), (255, 255, 255))
    pen = Pen(ImageDraw.Draw(image), side * 0.01, side * 0.01, side * 0.98)
    draw_figure(pen, spec, Pose.STANDING)
    return image.reduce(_SUPERSAMPLE)

"""Renders pictures and references: a character, a pose, a scene, any size."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import StrEnum

from PIL import Image, ImageDraw, ImageOps

from demo_model.characters import CharacterSpec, OutfitColor, random_character
from demo_model.faces import Emotion, X, Y
from demo_model.figure import WHOLE, Anatomy, Manner, draw_figure
from demo_model.pen import Pen
from demo_model.poses import JOINTS, Pose
from demo_model.props import NOTHING, Held, Prop, poses_with
from demo_model.scenes import OUTDOORS, UNDER_THE_SKY, Scene, draw_hazard_sign, draw_scene
from demo_model.stage import Daytime, Weather

_SUPERSAMPLE = 2


class Camera(StrEnum):
    """What part of the character a picture shows."""

    WHOLE = "whole"
    CLOSE = "close"
    BEHIND = "behind"


class Style(StrEnum):
    """How a picture is painted."""

    TOON = "toon"
    WATERCOLOR = "watercolor"
    SKETCH = "sketch"


@dataclass(frozen=True)
class PictureSpec:
    """Everything in a picture; the seed decides only small placements."""

    character: CharacterSpec
    pose: Pose
    scene: Scene
    trees: bool = False
    hazard: bool = False
    seed: int = 0
    held: Held = NOTHING
    emotion: Emotion = Emotion.HAPPY
    weather: Weather = Weather.CLEAR
    daytime: Daytime = Daytime.DAY
    camera: Camera = Camera.WHOLE
    style: Style = Style.TOON


def random_picture(
    rng: random.Random, character: CharacterSpec | None = None, *, hazard_share: float = 0.06
) -> PictureSpec:
    """Draws a random picture; without a character, with a random training character."""
    scene = rng.choice(list(Scene))
    tree_share = {Scene.FOREST: 0.75}.get(scene, 0.45 if scene in OUTDOORS else 0.0)
    outdoors = scene in UNDER_THE_SKY
    camera = rng.choices(list(Camera), (82, 11, 7))[0]
    prop = Prop.NONE if rng.random() < 0.5 else rng.choice(list(Prop))
    poses = (Pose.STANDING,) if camera is Camera.CLOSE else poses_with(prop)
    if camera is Camera.CLOSE and prop is not Prop.HAT:
        prop = Prop.NONE
    hazard = rng.random() < hazard_share and camera is not Camera.CLOSE
    clear = rng.random() < 0.6 or scene in (Scene.CLOUDS, Scene.SNOW) or not outdoors
    return PictureSpec(
        character=character or random_character(rng, held_out=False),
        pose=Pose.STANDING if rng.random() < 0.08 else rng.choice(poses),
        scene=scene,
        trees=rng.random() < tree_share,
        hazard=hazard,
        seed=rng.randrange(2**31),
        held=Held(
            Prop.NONE if hazard and prop is Prop.SIGN else prop, rng.choice(list(OutfitColor))
        ),
        emotion=rng.choices(list(Emotion), (50, 13, 12, 12, 13))[0],
        weather=Weather.CLEAR if clear else rng.choice(list(Weather)[1:]),
        daytime=rng.choices(list(Daytime), (60, 20, 20))[0] if outdoors else Daytime.DAY,
        camera=camera,
        style=rng.choices(list(Style), (80, 10, 10))[0],
    )


def draw_picture(
    spec: PictureSpec, width: int = 512, height: int = 512, *, anatomy: Anatomy = WHOLE
) -> Image.Image:
    """Renders a picture; the same spec and size always give the same pixels."""
    w, h = width * _SUPERSAMPLE, height * _SUPERSAMPLE
    image = Image.new("RGB", (w, h))
    surface = ImageDraw.Draw(image)
    rng, unit, x, y = _placed(spec, w, h)
    mirrored = rng.random() < 0.5
    draw_scene(
        Pen(surface, x, y, unit), w, h, spec.scene, trees=spec.trees, rng=rng,
        daytime=spec.daytime, weather=spec.weather,
    )  # fmt: skip
    pen = Pen(surface, *_framed(spec, unit, x, y))
    manner = Manner(spec.emotion, spec.held, spec.camera is Camera.BEHIND, anatomy)
    for place in _crowd(pen, anatomy.figures):
        draw_figure(place, spec.character, spec.pose, mirrored=mirrored, manner=manner)
    if spec.hazard:
        draw_hazard_sign(pen, left=mirrored)
    return _painted(image.reduce(_SUPERSAMPLE), spec.style)


def is_mirrored(spec: PictureSpec) -> bool:
    """Whether the figure of a picture is mirrored, as its seed decides."""
    rng, *_ = _placed(spec, 1, 1)
    return rng.random() < 0.5


def head_of(spec: PictureSpec, width: int, height: int) -> tuple[float, float, float]:
    """Middle and radius of the head in a picture, in pixels."""
    _, unit, x, y = _placed(spec, width, height)
    x, y, unit = _framed(spec, unit, x, y)
    joints = JOINTS[spec.pose].mirrored() if is_mirrored(spec) else JOINTS[spec.pose]
    pen = Pen(ImageDraw.Draw(Image.new("L", (1, 1))), x, y, unit)
    middle = pen.moved(0.0, joints.shift, joints.lean).place([(X, Y)])[0]
    return (*middle, 0.24 * unit)


def _placed(spec: PictureSpec, w: float, h: float) -> tuple[random.Random, float, float, float]:
    """Side and corner of the figure's square, and the randomness that is left."""
    rng = random.Random(spec.seed)
    side = min(w, h)
    unit = side * rng.uniform(0.93, 0.99)
    x = (w - unit) / 2 + rng.uniform(-0.03, 0.03) * side
    return rng, unit, x, (h - unit) * 0.85


def _framed(spec: PictureSpec, unit: float, x: float, y: float) -> tuple[float, float, float]:
    """Corner and side of the figure's square as the camera sees it."""
    if spec.camera is not Camera.CLOSE:
        return x, y, unit
    larger = 1.75 * unit
    return x - (larger - unit) / 2, y - 0.135 * larger, larger


def _crowd(pen: Pen, figures: int) -> list[Pen]:
    """The usual pen for one figure; several stand side by side."""
    if figures == 1:
        return [pen]
    unit = 0.68 * pen.unit
    steps = [0.56 * (number - (figures - 1) / 2) for number in range(figures)]
    left, top = pen.x + (pen.unit - unit) / 2, pen.y + pen.unit - unit
    return [replace(pen, x=left + step * pen.unit, y=top, unit=unit) for step in steps]


def draw_reference(spec: CharacterSpec, size: int = 256) -> Image.Image:
    """Renders the character standing on a white square."""
    side = size * _SUPERSAMPLE
    image = Image.new("RGB", (side, side), (255, 255, 255))
    pen = Pen(ImageDraw.Draw(image), side * 0.01, side * 0.01, side * 0.98)
    draw_figure(pen, spec, Pose.STANDING)
    return image.reduce(_SUPERSAMPLE)


def _painted(image: Image.Image, style: Style) -> Image.Image:
    if style is Style.WATERCOLOR:
        return Image.blend(image, Image.new("RGB", image.size, (255, 246, 230)), 0.45)
    if style is Style.SKETCH:
        grey = ImageOps.grayscale(image)
        return ImageOps.colorize(grey, black=(30, 28, 34), white=(255, 252, 244))
    return image

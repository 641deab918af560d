"""Backgrounds: places made of large flat shapes, and two things that can stand in them."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum

from demo_model import places
from demo_model.pen import OUTLINE, Pen, shade
from demo_model.stage import Daytime, Stage, Weather


class Scene(StrEnum):
    """Where a picture is set."""

    PLAIN = "plain"
    CITY = "neon city"
    BEACH = "beach"
    FOREST = "forest"
    SPACE = "space"
    ROOM = "room"
    SNOW = "snow"
    DESERT = "desert"
    CASTLE = "castle"
    LIBRARY = "library"
    KITCHEN = "kitchen"
    CAFE = "cafe"
    STREET = "street"
    MEADOW = "meadow"
    MOUNTAINS = "mountains"
    UNDERWATER = "underwater"
    CAVE = "cave"
    CLOUDS = "clouds"
    STAGE = "stage"


OUTDOORS = (Scene.BEACH, Scene.FOREST, Scene.SNOW, Scene.DESERT)
"""Scenes in which trees may stand."""
UNDER_THE_SKY = (
    *OUTDOORS, Scene.CASTLE, Scene.STREET, Scene.MEADOW, Scene.MOUNTAINS, Scene.CLOUDS,
)  # fmt: skip
"""Scenes that have weather and a time of day."""


def draw_scene(
    pen: Pen,
    width: float,
    height: float,
    scene: Scene,
    *,
    trees: bool,
    rng: random.Random,
    daytime: Daytime = Daytime.DAY,
    weather: Weather = Weather.CLEAR,
) -> None:
    """Fills the picture; `pen` only lends its drawing surface."""
    stage = Stage(pen, width, height, rng, daytime, weather)
    _SCENES[scene](stage)
    if trees:
        _TREES[scene](stage)
    stage.sky_marks()


def draw_hazard_sign(pen: Pen, *, left: bool) -> None:
    """A warning triangle on a post in front of everything: the stand-in for unsafe content."""
    x = 0.17 if left else 0.83
    pen.limb([(x, 0.80), (x, 0.985)], 0.035, (150, 150, 158))
    yellow = (255, 214, 10)
    pen.limb(
        [(x, 0.60), (x - 0.115, 0.80), (x + 0.115, 0.80), (x, 0.60)], 0.06, OUTLINE, outline=False
    )
    pen.limb(
        [(x, 0.60), (x - 0.115, 0.80), (x + 0.115, 0.80), (x, 0.60)], 0.035, yellow, outline=False
    )
    pen.polygon([(x, 0.60), (x - 0.115, 0.80), (x + 0.115, 0.80)], yellow, outline=False)
    pen.limb([(x, 0.665), (x, 0.735)], 0.034, (24, 20, 28), outline=False)
    pen.ellipse(x, 0.785, 0.018, 0.018, (24, 20, 28), outline=False)


def _plain(stage: Stage) -> None:
    color = stage.rng.choice([(252, 232, 205), (214, 236, 228), (226, 220, 244)])
    stage.band(0, 1, color)
    stage.disc(0.5, 0.45, 0.42, shade(color, 1.45))
    stage.band(0.86, 1, shade(color, 0.86))


def _city(stage: Stage) -> None:
    stage.band(0, 1, (38, 18, 74))
    stage.disc(0.72, 0.20, 0.15, (255, 120, 190))
    towers = [
        (0.0, 0.20, 0.18),
        (0.17, 0.34, 0.34),
        (0.36, 0.52, 0.22),
        (0.54, 0.70, 0.40),
        (0.72, 0.86, 0.30),
        (0.85, 1.0, 0.12),
    ]
    for index, (left, right, top) in enumerate(towers):
        color = (66, 34, 116) if index % 2 else (88, 44, 140)
        glow = (64, 232, 240) if index % 2 else (255, 86, 190)
        stage.box(left, top, right, 0.86, color)
        middle = (left + right) / 2
        y = top + 0.05
        while y < 0.78:
            stage.box(middle - 0.045, y, middle + 0.045, y + 0.06, glow)
            y += 0.13
    stage.band(0.84, 1, (24, 12, 48))
    stage.band(0.84, 0.86, (255, 60, 180))


def _beach(stage: Stage) -> None:
    stage.band(0, 0.56, (130, 212, 250))
    stage.disc(0.16, 0.16, 0.10, (255, 232, 110))
    stage.disc(0.72, 0.14, 0.09, (255, 255, 255), 0.04)
    stage.disc(0.82, 0.16, 0.09, (255, 255, 255), 0.04)
    stage.band(0.54, 0.74, (26, 150, 205))
    stage.band(0.72, 0.755, (225, 248, 250))
    stage.band(0.755, 1, (248, 222, 160))


def _forest(stage: Stage) -> None:
    stage.band(0, 1, (196, 236, 190))
    stage.disc(0.25, 0.66, 0.34, (142, 204, 122), 0.16)
    stage.disc(0.80, 0.68, 0.38, (122, 190, 108), 0.18)
    stage.band(0.68, 1, (92, 164, 78))
    stage.band(0.86, 1, (76, 144, 66))


def _space(stage: Stage) -> None:
    stage.band(0, 1, (16, 20, 56))
    for x, y, r in (
        (0.08, 0.10, 0.012),
        (0.30, 0.07, 0.016),
        (0.55, 0.13, 0.012),
        (0.93, 0.42, 0.016),
        (0.12, 0.52, 0.016),
        (0.90, 0.66, 0.012),
        (0.05, 0.33, 0.012),
        (0.62, 0.04, 0.014),
        (0.06, 0.74, 0.012),
    ):
        stage.disc(x, y, r, (255, 250, 214))
    stage.disc(0.80, 0.20, 0.24, (240, 200, 120), 0.05)
    stage.disc(0.80, 0.20, 0.14, (232, 120, 84))
    stage.disc(0.5, 1.16, 0.95, (148, 150, 172), 0.32)


def _room(stage: Stage) -> None:
    stage.band(0, 0.80, (250, 206, 168))
    stage.band(0.78, 0.81, (255, 246, 232))
    stage.band(0.81, 1, (164, 106, 66))
    stage.box(0.05, 0.10, 0.33, 0.48, (255, 246, 232))
    stage.box(0.075, 0.125, 0.305, 0.455, (150, 214, 246))
    stage.box(0.18, 0.125, 0.20, 0.455, (255, 246, 232))
    stage.box(0.72, 0.14, 0.94, 0.36, (120, 74, 48))
    stage.box(0.745, 0.165, 0.915, 0.335, (250, 236, 140))


def _snow(stage: Stage) -> None:
    stage.band(0, 1, (176, 210, 236))
    stage.disc(0.22, 0.72, 0.46, (216, 232, 246), 0.22)
    stage.disc(0.82, 0.74, 0.46, (228, 240, 250), 0.20)
    stage.band(0.74, 1, (248, 252, 255))
    for x, y in (
        (0.07, 0.10),
        (0.24, 0.20),
        (0.12, 0.38),
        (0.88, 0.12),
        (0.76, 0.06),
        (0.93, 0.34),
        (0.40, 0.05),
        (0.60, 0.10),
        (0.05, 0.60),
        (0.95, 0.56),
    ):
        stage.disc(x, y, 0.020, (255, 255, 255))


def _desert(stage: Stage) -> None:
    stage.band(0, 1, (255, 190, 110))
    stage.disc(0.80, 0.22, 0.13, (255, 244, 180))
    stage.shape([(0.0, 0.72), (0.24, 0.40), (0.48, 0.72)], (226, 140, 74))
    stage.shape([(0.24, 0.40), (0.48, 0.72), (0.30, 0.72)], (196, 112, 58))
    stage.disc(0.80, 0.84, 0.60, (244, 172, 92), 0.20)
    stage.band(0.72, 1, (238, 178, 98))
    stage.band(0.88, 1, (222, 158, 80))


def _round_tree(stage: Stage, x: float) -> None:
    stage.box(x - 0.028, 0.45, x + 0.028, 0.84, (122, 80, 50))
    stage.disc(x, 0.40, 0.135, (38, 112, 58))
    stage.disc(x, 0.25, 0.105, (46, 126, 66))


def _round_trees(stage: Stage) -> None:
    for x in (0.11, 0.89):
        _round_tree(stage, x)


def _pines(stage: Stage) -> None:
    for x in (0.11, 0.89):
        stage.box(x - 0.022, 0.66, x + 0.022, 0.84, (110, 74, 50))
        for top, bottom, half in ((0.44, 0.74, 0.115), (0.30, 0.56, 0.095), (0.18, 0.38, 0.07)):
            stage.shape([(x, top), (x - half, bottom), (x + half, bottom)], (30, 96, 80))


def _palms(stage: Stage) -> None:
    for x in (0.11, 0.89):
        stage.box(x - 0.022, 0.32, x + 0.022, 0.84, (150, 98, 58))
        for dx, dy in ((-0.07, 0.03), (0.07, 0.03), (-0.055, -0.035), (0.055, -0.035)):
            stage.disc(x + dx, 0.30 + dy, 0.085, (34, 136, 70), 0.034)


_SCENES: dict[Scene, Callable[[Stage], None]] = {
    Scene.PLAIN: _plain,
    Scene.CITY: _city,
    Scene.BEACH: _beach,
    Scene.FOREST: _forest,
    Scene.SPACE: _space,
    Scene.ROOM: _room,
    Scene.SNOW: _snow,
    Scene.DESERT: _desert,
    Scene.CASTLE: places.castle,
    Scene.LIBRARY: places.library,
    Scene.KITCHEN: places.kitchen,
    Scene.CAFE: places.cafe,
    Scene.STREET: places.street,
    Scene.MEADOW: places.meadow,
    Scene.MOUNTAINS: places.mountains,
    Scene.UNDERWATER: places.underwater,
    Scene.CAVE: places.cave,
    Scene.CLOUDS: places.clouds,
    Scene.STAGE: places.stage,
}
_TREES: dict[Scene, Callable[[Stage], None]] = {
    **dict.fromkeys(Scene, _round_trees),
    Scene.BEACH: _palms,
    Scene.DESERT: _palms,
    Scene.SNOW: _pines,
}

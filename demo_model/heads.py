"""Draws heads: five species, with hair or ears, eyes, and headwear."""

from __future__ import annotations

import math

from demo_model.characters import Accessory, CharacterSpec, EyeColor, HairStyle, Species
from demo_model.palette import (
    ANDROID_FACE,
    BLUSH,
    BOW,
    EAR_INSIDE,
    EYE_COLORS,
    GLOW,
    HAIR_COLORS,
    METAL,
    METAL_DARK,
    MOUTH,
    SCREEN,
    SKINS,
    WHITE,
)
from demo_model.pen import OUTLINE, Color, Pen, Point, shade

X, Y = 0.5, 0.345
RX, RY = 0.235, 0.205


def fur_color(spec: CharacterSpec) -> Color:
    """The hair colour: hair, fur or shell."""
    return HAIR_COLORS[spec.hair_color]


def draw_back_hair(pen: Pen, spec: CharacterSpec) -> None:
    """What is drawn behind the body."""
    if not spec.has_hair:
        return
    color = shade(fur_color(spec), 0.86)
    if spec.hair_style is HairStyle.LONG:
        pen.rounded((X - 0.285, Y - 0.12, X + 0.285, 0.745), 0.13, color)


def draw_head(pen: Pen, spec: CharacterSpec) -> None:
    """The whole head, in front of the body."""
    _HEADS[spec.species](pen, spec)
    if spec.accessory is Accessory.GLASSES:
        y = Y + 0.045
        for side in (-1, 1):
            box = (X + 0.10 * side - 0.078, y - 0.078, X + 0.10 * side + 0.078, y + 0.078)
            ring = [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])]
            pen.limb([*ring, ring[0]], 0.022, (40, 40, 48), outline=False)
        pen.limb([(X - 0.024, y - 0.02), (X + 0.024, y - 0.02)], 0.022, (40, 40, 48), outline=False)
    elif spec.accessory is Accessory.BOW:
        x, y = X - 0.02, Y - 0.185
        for side in (-1, 1):
            wing = [(x, y), (x + 0.115 * side, y - 0.062), (x + 0.115 * side, y + 0.062)]
            pen.polygon(wing, BOW)
        pen.ellipse(x, y, 0.032, 0.032, shade(BOW, 0.8))


def _arc(
    cx: float, cy: float, rx: float, ry: float, start: float, end: float, steps: int = 18
) -> list[Point]:
    angles = (math.radians(start + (end - start) * i / steps) for i in range(steps + 1))
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def _eyes(pen: Pen, iris: Color, *, white: Color = WHITE) -> None:
    for side in (-1, 1):
        x, y = X + 0.098 * side, Y + 0.045
        pen.ellipse(x, y, 0.060, 0.072, white)
        pen.ellipse(x, y + 0.006, 0.046, 0.058, iris, outline=False)
        pen.ellipse(x, y + 0.012, 0.024, 0.034, (26, 20, 34), outline=False)
        pen.ellipse(x + 0.016, y - 0.022, 0.017, 0.020, WHITE, outline=False)


def _smile(pen: Pen, color: Color = MOUTH, y: float = Y + 0.128) -> None:
    pen.limb(_arc(X, y, 0.036, 0.026, 10, 170, 6), 0.013, color, outline=False)


def _blush(pen: Pen) -> None:
    for side in (-1, 1):
        pen.ellipse(X + 0.168 * side, Y + 0.118, 0.034, 0.021, BLUSH, outline=False)


def _fringe(pen: Pen, spec: CharacterSpec) -> None:
    color = fur_color(spec)
    if spec.hair_style is HairStyle.SPIKY:
        spikes: list[Point] = []
        for i in range(7):
            angle = math.radians(188 + i * 164 / 6)
            spikes.append((X + 0.315 * math.cos(angle), Y - 0.01 + 0.30 * math.sin(angle)))
            angle = math.radians(188 + (i + 0.5) * 164 / 6)
            if i < 6:
                spikes.append((X + 0.235 * math.cos(angle), Y + 0.225 * math.sin(angle)))
        edge = [
            (X + 0.19, Y - 0.055),
            (X + 0.10, Y - 0.105),
            (X + 0.03, Y - 0.04),
            (X - 0.05, Y - 0.105),
            (X - 0.13, Y - 0.05),
            (X - 0.20, Y - 0.06),
        ]
        pen.polygon([*spikes, *edge], color)
        return
    if spec.hair_style is HairStyle.BUNS:
        for side in (-1, 1):
            pen.ellipse(X + 0.205 * side, Y - 0.185, 0.088, 0.088, color)
    cap = _arc(X, Y - 0.005, RX + 0.018, RY + 0.022, 170, 370)
    edge = [
        (X + 0.185, Y - 0.055),
        (X + 0.06, Y - 0.07),
        (X - 0.02, Y - 0.115),
        (X - 0.09, Y - 0.06),
        (X - 0.185, Y - 0.045),
    ]
    pen.polygon([*cap, *edge], color)
    pen.limb(
        _arc(X, Y - 0.005, RX - 0.055, RY - 0.045, 225, 275, 6),
        0.02,
        shade(color, 1.4),
        outline=False,
    )
    if spec.hair_style is HairStyle.LONG:
        for side in (-1, 1):
            pen.limb([(X + 0.238 * side, Y), (X + 0.250 * side, Y + 0.20)], 0.06, color)


def _human(pen: Pen, spec: CharacterSpec) -> None:
    skin = SKINS[spec.skin]
    for side in (-1, 1):
        pen.ellipse(X + 0.235 * side, Y + 0.05, 0.035, 0.045, skin)
    pen.ellipse(X, Y, RX, RY, skin)
    _blush(pen)
    _eyes(pen, EYE_COLORS[spec.eye_color])
    _smile(pen)
    _fringe(pen, spec)


def _android(pen: Pen, spec: CharacterSpec) -> None:
    pen.ellipse(X, Y, RX, RY, ANDROID_FACE)
    for side in (-1, 1):
        pen.limb(
            [(X + 0.105 * side, Y + 0.130), (X + 0.19 * side, Y + 0.115)],
            0.014,
            GLOW,
            outline=False,
        )
    _eyes(pen, EYE_COLORS[spec.eye_color], white=(40, 46, 66))
    _smile(pen, (70, 84, 110))
    _fringe(pen, spec)
    for side in (-1, 1):
        pen.ellipse(X + 0.240 * side, Y + 0.045, 0.045, 0.075, METAL)
        pen.ellipse(X + 0.240 * side, Y + 0.045, 0.020, 0.040, GLOW, outline=False)


def _robot(pen: Pen, spec: CharacterSpec) -> None:
    color = fur_color(spec)
    pen.limb([(X, Y - 0.18), (X, Y - 0.265)], 0.03, METAL)
    pen.ellipse(X, Y - 0.275, 0.042, 0.042, EYE_COLORS[spec.eye_color])
    for side in (-1, 1):
        pen.rounded(
            (X + 0.245 * side - 0.04, Y - 0.05, X + 0.245 * side + 0.04, Y + 0.11), 0.03, METAL_DARK
        )
    pen.rounded((X - 0.245, Y - 0.195, X + 0.245, Y + 0.205), 0.085, color)
    pen.rounded((X - 0.19, Y - 0.07, X + 0.19, Y + 0.155), 0.06, SCREEN)
    lamp = shade(EYE_COLORS[spec.eye_color], 1.25)
    if spec.eye_color is EyeColor.BROWN:
        lamp = (226, 140, 70)
    for side in (-1, 1):
        pen.ellipse(X + 0.095 * side, Y + 0.03, 0.048, 0.055, lamp, outline=False)
        pen.ellipse(X + 0.095 * side + 0.014, Y + 0.008, 0.016, 0.018, WHITE, outline=False)
    _smile(pen, lamp, Y + 0.095)


def _cat(pen: Pen, spec: CharacterSpec) -> None:
    color = fur_color(spec)
    for side in (-1, 1):
        outer = [
            (X + 0.235 * side, Y - 0.03),
            (X + 0.215 * side, Y - 0.285),
            (X + 0.045 * side, Y - 0.17),
        ]
        inner = [
            (X + 0.205 * side, Y - 0.09),
            (X + 0.192 * side, Y - 0.225),
            (X + 0.095 * side, Y - 0.16),
        ]
        pen.polygon(outer, color)
        pen.polygon(inner, EAR_INSIDE, outline=False)
    pen.ellipse(X, Y + 0.01, RX + 0.012, RY - 0.005, color)
    pen.ellipse(X, Y + 0.125, 0.085, 0.055, shade(color, 1.65), outline=False)
    _eyes(pen, EYE_COLORS[spec.eye_color])
    pen.ellipse(X, Y + 0.102, 0.020, 0.014, (236, 104, 124), outline=False)
    _smile(pen, OUTLINE, Y + 0.120)
    for side in (-1, 1):
        for dy in (0.0, 0.05):
            pen.limb(
                [(X + 0.155 * side, Y + 0.115 + dy * 0.6), (X + 0.285 * side, Y + 0.09 + dy)],
                0.010,
                OUTLINE,
                outline=False,
            )


def _rabbit(pen: Pen, spec: CharacterSpec) -> None:
    color = fur_color(spec)
    for side in (-1, 1):
        pen.ellipse(X + 0.115 * side, Y - 0.215, 0.066, 0.155, color)
        pen.ellipse(X + 0.115 * side, Y - 0.205, 0.032, 0.11, EAR_INSIDE, outline=False)
    pen.ellipse(X, Y + 0.01, RX, RY - 0.002, color)
    _blush(pen)
    pen.ellipse(X, Y + 0.13, 0.075, 0.05, shade(color, 1.65), outline=False)
    _eyes(pen, EYE_COLORS[spec.eye_color])
    pen.ellipse(X, Y + 0.108, 0.020, 0.014, (236, 104, 124), outline=False)
    pen.rounded((X - 0.024, Y + 0.135, X + 0.024, Y + 0.185), 0.008, WHITE)


_HEADS = {
    Species.HUMAN: _human,
    Species.ANDROID: _android,
    Species.ROBOT: _robot,
    Species.CAT: _cat,
    Species.RABBIT: _rabbit,
}

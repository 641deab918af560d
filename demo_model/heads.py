"""Draws heads: ten species, with hair or ears, from the front and from behind."""

from __future__ import annotations

import math

from demo_model.characters import Accessory, CharacterSpec, EyeColor, HairStyle, Species
from demo_model.faces import Face, X, Y, arc, draw_eyes, draw_mouth
from demo_model.palette import (
    ANDROID_FACE,
    BLUSH,
    BOW,
    EAR_INSIDE,
    EYE_COLORS,
    GLOW,
    GOLD,
    HAIR_COLORS,
    HEADPHONES,
    HORN,
    METAL,
    METAL_DARK,
    NOSE,
    PETAL,
    SCREEN,
    SKINS,
    WHITE,
)
from demo_model.pen import OUTLINE, Color, Pen, Point, shade

RX, RY = 0.235, 0.205
PINK_NOSE: Color = (236, 104, 124)


def fur_color(spec: CharacterSpec) -> Color:
    """The hair colour: hair, fur or shell."""
    return HAIR_COLORS[spec.hair_color]


def draw_back_hair(pen: Pen, spec: CharacterSpec) -> None:
    """What is drawn behind the body."""
    if spec.has_hair and spec.hair_style is HairStyle.LONG:
        color = shade(fur_color(spec), 0.86)
        pen.rounded((X - 0.285, Y - 0.12, X + 0.285, 0.745), 0.13, color)


def draw_head(
    pen: Pen, spec: CharacterSpec, face: Face | None = None, *, thin: bool = True
) -> None:
    """The whole head, in front of the body.

    Args:
        pen: Where to draw.
        spec: Whose head.
        face: Its mood; None shows the head from behind.
        thin: Whether bow, antenna and whiskers are there.
    """
    draw = _HUMANLIKE.get(spec.species, _animal)
    draw(pen, spec, face, thin)
    _headwear(pen, spec, front=face is not None, thin=thin)


def _headwear(pen: Pen, spec: CharacterSpec, *, front: bool, thin: bool) -> None:
    kind = spec.accessory
    if kind is Accessory.GLASSES and front:
        y = Y + 0.045 - (0.225 if spec.species is Species.FROG else 0.0)
        apart = 0.14 if spec.species is Species.FROG else 0.10
        for side in (-1, 1):
            x = X + apart * side
            ring = [(x - 0.078, y - 0.078), (x + 0.078, y - 0.078), (x + 0.078, y + 0.078),
                    (x - 0.078, y + 0.078)]  # fmt: skip
            pen.limb([*ring, ring[0]], 0.030, (40, 40, 48), outline=False)
        pen.limb([(X - 0.03, y - 0.02), (X + 0.03, y - 0.02)], 0.030, (40, 40, 48), outline=False)
    elif kind is Accessory.BOW and thin:
        x, y = X - 0.02, Y - 0.195
        for side in (-1, 1):
            wing = [(x, y), (x + 0.150 * side, y - 0.088), (x + 0.150 * side, y + 0.088)]
            pen.polygon(wing, BOW)
        pen.ellipse(x, y, 0.045, 0.045, shade(BOW, 0.8))
    elif kind is Accessory.CROWN:
        low, high = Y - 0.155, Y - 0.275
        points = [(X - 0.165, low), (X - 0.185, high), (X - 0.085, high + 0.062), (X, high - 0.02),
                  (X + 0.085, high + 0.062), (X + 0.185, high), (X + 0.165, low)]  # fmt: skip
        pen.polygon(points, GOLD)
        pen.ellipse(X, low - 0.035, 0.028, 0.028, (226, 60, 80), outline=False)
    elif kind is Accessory.HEADPHONES:
        pen.limb(arc(X, Y + 0.02, 0.268, 0.275, 185, 355), 0.046, HEADPHONES)
        for side in (-1, 1):
            pen.ellipse(X + 0.262 * side, Y + 0.045, 0.060, 0.085, HEADPHONES)
            pen.ellipse(X + 0.270 * side, Y + 0.045, 0.026, 0.050, GLOW, outline=False)
    elif kind is Accessory.FLOWER:
        x, y = (X, Y - 0.13) if spec.species is Species.FROG else (X + 0.155, Y - 0.155)
        for step in range(5):
            angle = 2 * math.pi * step / 5
            pen.ellipse(
                x + 0.055 * math.cos(angle), y + 0.055 * math.sin(angle), 0.046, 0.046, PETAL
            )
        pen.ellipse(x, y, 0.038, 0.038, GOLD)


def _blush(pen: Pen) -> None:
    for side in (-1, 1):
        pen.ellipse(X + 0.168 * side, Y + 0.118, 0.034, 0.021, BLUSH, outline=False)


def _hair(pen: Pen, spec: CharacterSpec, *, front: bool) -> None:
    """Hair over the forehead, or over the whole back of the head."""
    color = fur_color(spec)
    if not front:
        pen.ellipse(X, Y + 0.015, RX + 0.02, RY + 0.015, color)
    if spec.hair_style is HairStyle.SPIKY:
        _spikes(pen, color, front=front)
        return
    if spec.hair_style is HairStyle.BUNS:
        for side in (-1, 1):
            pen.ellipse(X + 0.205 * side, Y - 0.185, 0.105, 0.105, color)
    elif spec.hair_style is HairStyle.CURLY:
        for angle in range(150, 391, 30):
            x, y = arc(X, Y - 0.01, RX + 0.005, RY + 0.01, angle, angle, 1)[0]
            pen.ellipse(x, y, 0.085, 0.085, color)
    if not front:
        return
    cap = arc(X, Y - 0.005, RX + 0.018, RY + 0.022, 170, 370)
    edge = [
        (X + 0.185, Y - 0.055),
        (X + 0.06, Y - 0.07),
        (X - 0.02, Y - 0.115),
        (X - 0.09, Y - 0.06),
        (X - 0.185, Y - 0.045),
    ]
    pen.polygon([*cap, *edge], color, outline=spec.hair_style is not HairStyle.CURLY)
    pen.limb(
        arc(X, Y - 0.005, RX - 0.055, RY - 0.045, 225, 275, 6), 0.024, shade(color, 1.4),
        outline=False,
    )  # fmt: skip
    if spec.hair_style is HairStyle.LONG:
        for side in (-1, 1):
            pen.limb([(X + 0.238 * side, Y), (X + 0.250 * side, Y + 0.20)], 0.06, color)


def _spikes(pen: Pen, color: Color, *, front: bool) -> None:
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
    if not front:
        edge = arc(X, Y + 0.02, RX - 0.02, RY - 0.03, 0, 180, 8)
    pen.polygon([*spikes, *edge], color)


def _human(pen: Pen, spec: CharacterSpec, face: Face | None, thin: bool) -> None:
    del thin
    skin = SKINS[spec.skin]
    for side in (-1, 1):
        pen.ellipse(X + 0.235 * side, Y + 0.05, 0.042, 0.050, skin)
    pen.ellipse(X, Y, RX, RY, skin)
    if face:
        _blush(pen)
        draw_eyes(pen, face, EYE_COLORS[spec.eye_color])
        draw_mouth(pen, face)
    _hair(pen, spec, front=face is not None)


def _android(pen: Pen, spec: CharacterSpec, face: Face | None, thin: bool) -> None:
    del thin
    pen.ellipse(X, Y, RX, RY, ANDROID_FACE)
    if face:
        for side in (-1, 1):
            marks = [(X + 0.112 * side, Y + 0.140), (X + 0.19 * side, Y + 0.118)]
            pen.limb(marks, 0.022, GLOW, outline=False)
        draw_eyes(pen, face, EYE_COLORS[spec.eye_color], white=(40, 46, 66))
        draw_mouth(pen, face, (70, 84, 110))
    _hair(pen, spec, front=face is not None)
    for side in (-1, 1):
        pen.ellipse(X + 0.240 * side, Y + 0.045, 0.050, 0.078, METAL)
        pen.ellipse(X + 0.240 * side, Y + 0.045, 0.024, 0.042, GLOW, outline=False)


def _robot(pen: Pen, spec: CharacterSpec, face: Face | None, thin: bool) -> None:
    color = fur_color(spec)
    if thin:
        pen.limb([(X, Y - 0.18), (X, Y - 0.260)], 0.048, METAL)
        pen.ellipse(X, Y - 0.272, 0.055, 0.055, EYE_COLORS[spec.eye_color])
    for side in (-1, 1):
        pen.rounded(
            (X + 0.245 * side - 0.04, Y - 0.05, X + 0.245 * side + 0.04, Y + 0.11), 0.03, METAL_DARK
        )
    pen.rounded((X - 0.245, Y - 0.195, X + 0.245, Y + 0.205), 0.085, color)
    if face is None:
        for y in (Y - 0.04, Y + 0.03, Y + 0.10):
            pen.limb([(X - 0.10, y), (X + 0.10, y)], 0.03, shade(color, 0.6), outline=False)
        return
    pen.rounded((X - 0.19, Y - 0.07, X + 0.19, Y + 0.165), 0.06, SCREEN)
    lamp = shade(EYE_COLORS[spec.eye_color], 1.25)
    if spec.eye_color is EyeColor.BROWN:
        lamp = (226, 140, 70)
    draw_eyes(pen, face, lamp, white=SCREEN, line=lamp, height=0.015)
    draw_mouth(pen, face, lamp, Y + 0.108)


def _ears(pen: Pen, spec: CharacterSpec, color: Color, *, front: bool) -> None:
    inside = EAR_INSIDE if front else color
    for side in (-1, 1):
        if spec.species in (Species.CAT, Species.FOX):
            tall = 0.03 if spec.species is Species.FOX else 0.0
            pen.polygon(
                [(X + 0.235 * side, Y - 0.03), (X + (0.215 + tall) * side, Y - 0.285 - tall),
                 (X + 0.045 * side, Y - 0.17)], color,
            )  # fmt: skip
            if spec.species is Species.FOX:
                inside = (62, 44, 52)
            pen.polygon(
                [(X + 0.205 * side, Y - 0.09), (X + (0.192 + tall) * side, Y - 0.225 - tall),
                 (X + 0.095 * side, Y - 0.16)], inside, outline=False,
            )  # fmt: skip
        elif spec.species is Species.RABBIT:
            pen.ellipse(X + 0.115 * side, Y - 0.215, 0.070, 0.155, color)
            pen.ellipse(X + 0.115 * side, Y - 0.205, 0.035, 0.11, inside, outline=False)
        elif spec.species is Species.BEAR:
            pen.ellipse(X + 0.180 * side, Y - 0.165, 0.090, 0.085, color)
            pen.ellipse(X + 0.180 * side, Y - 0.165, 0.048, 0.045, inside, outline=False)
        elif spec.species is Species.DRAGON:
            horn = [(X + 0.075 * side, Y - 0.16), (X + 0.205 * side, Y - 0.315),
                    (X + 0.185 * side, Y - 0.11)]  # fmt: skip
            pen.polygon(horn, HORN)
            fin = [(X + 0.20 * side, Y - 0.05), (X + 0.33 * side, Y - 0.02),
                   (X + 0.30 * side, Y + 0.06), (X + 0.21 * side, Y + 0.11)]  # fmt: skip
            pen.polygon(fin, shade(color, 0.72))
        elif spec.species is Species.FROG:
            pen.ellipse(X + 0.14 * side, Y - 0.155, 0.108, 0.105, color)


def _animal(pen: Pen, spec: CharacterSpec, face: Face | None, thin: bool) -> None:
    color, species = fur_color(spec), spec.species
    _ears(pen, spec, color, front=face is not None)
    if species is Species.FROG:
        pen.ellipse(X, Y + 0.03, RX + 0.028, RY - 0.025, color)
    else:
        pen.ellipse(X, Y + 0.01, RX + (0.012 if species is Species.CAT else 0.0), RY - 0.004, color)
    if face is None:
        if species is Species.DRAGON:
            for y in (Y - 0.10, Y, Y + 0.10):
                pen.polygon([(X - 0.05, y + 0.05), (X, y - 0.05), (X + 0.05, y + 0.05)], HORN)
    elif species is Species.FROG:
        draw_eyes(pen, face, EYE_COLORS[spec.eye_color], height=0.205, apart=0.14)
        draw_mouth(pen, face, OUTLINE, Y + 0.085)
        for side in (-1, 1):
            pen.ellipse(X + 0.19 * side, Y + 0.075, 0.04, 0.028, BLUSH, outline=False)
    else:
        _muzzle(pen, spec, face, thin)
    if species is Species.DOG:
        for side in (-1, 1):
            ear = [(X + 0.205 * side, Y - 0.115), (X + 0.275 * side, Y + 0.01),
                   (X + 0.262 * side, Y + 0.105)]  # fmt: skip
            pen.limb(ear, 0.105, shade(color, 0.66))


def _muzzle(pen: Pen, spec: CharacterSpec, face: Face, thin: bool) -> None:
    color, species = fur_color(spec), spec.species
    pale = shade(color, 1.65)
    if species is Species.FOX:
        for side in (-1, 1):
            cheek = [(X, Y + 0.20), (X + 0.21 * side, Y + 0.095), (X + 0.085 * side, Y + 0.06),
                     (X, Y + 0.09)]  # fmt: skip
            pen.polygon(cheek, (252, 246, 240), outline=False)
    else:
        pen.ellipse(X, Y + 0.128, 0.095, 0.062, pale, outline=False)
    draw_eyes(pen, face, EYE_COLORS[spec.eye_color])
    if species is Species.DRAGON:
        for side in (-1, 1):
            pen.ellipse(X + 0.035 * side, Y + 0.095, 0.015, 0.012, OUTLINE, outline=False)
    elif species in (Species.DOG, Species.BEAR, Species.FOX):
        pen.ellipse(X, Y + 0.098, 0.042, 0.030, NOSE, outline=False)
    else:
        pen.ellipse(X, Y + 0.103, 0.028, 0.020, PINK_NOSE, outline=False)
    draw_mouth(pen, face, OUTLINE, Y + 0.140)
    if species is Species.RABBIT:
        _blush(pen)
        pen.rounded((X - 0.028, Y + 0.158, X + 0.028, Y + 0.200), 0.008, WHITE)
    if species is Species.CAT and thin:
        line = OUTLINE if sum(color) > 260 else (250, 250, 252)
        for side in (-1, 1):
            for low in (0.0, 0.062):
                hair = [
                    (X + 0.155 * side, Y + 0.108 + low * 0.7),
                    (X + 0.330 * side, Y + 0.075 + low),
                ]
                pen.limb(hair, 0.024, line, outline=False)


_HUMANLIKE = {Species.HUMAN: _human, Species.ANDROID: _android, Species.ROBOT: _robot}

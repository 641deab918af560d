"""Clothes: what covers arms, legs and trunk."""

from __future__ import annotations

from demo_model.characters import CharacterSpec, Outfit, Species
from demo_model.heads import fur_color
from demo_model.palette import (
    ANDROID_FACE,
    GOLD,
    METAL,
    METAL_DARK,
    OUTFIT_COLORS,
    SHOES,
    SKINS,
    TROUSERS,
    WHITE,
)
from demo_model.pen import Color, Pen, Point, shade
from demo_model.poses import Limb


def body_color(spec: CharacterSpec) -> Color:
    """Colour of the bare hands and legs."""
    if spec.species is Species.HUMAN:
        return SKINS[spec.skin]
    if spec.species is Species.ANDROID:
        return ANDROID_FACE
    if spec.species is Species.ROBOT:
        return METAL
    return fur_color(spec)


def _sleeve(spec: CharacterSpec) -> Color:
    if spec.outfit is Outfit.ARMOUR:
        return METAL
    if spec.outfit is Outfit.OVERALLS:
        return WHITE
    if spec.outfit in (Outfit.DRESS, Outfit.SHIRT):
        return body_color(spec)
    return OUTFIT_COLORS[spec.outfit_color]


def _trousers(spec: CharacterSpec) -> Color:
    if spec.outfit in (Outfit.DRESS, Outfit.SHIRT):
        return body_color(spec)
    if spec.outfit in (Outfit.OVERALLS, Outfit.SUIT):
        return OUTFIT_COLORS[spec.outfit_color]
    return METAL_DARK if spec.outfit is Outfit.ARMOUR else TROUSERS


def _shoes(spec: CharacterSpec) -> Color:
    return METAL if spec.outfit is Outfit.ARMOUR else SHOES


def draw_arm(pen: Pen, spec: CharacterSpec, arm: Limb) -> None:
    """An arm with its sleeve and hand."""
    pen.limb(arm, 0.082, _sleeve(spec))
    pen.ellipse(*arm[2], 0.055, 0.055, body_color(spec))
    if spec.outfit is Outfit.ROBE:
        pen.limb(arm[1:], 0.105, OUTFIT_COLORS[spec.outfit_color])
        pen.ellipse(*arm[2], 0.050, 0.050, body_color(spec))
    elif spec.outfit in (Outfit.ARMOUR, Outfit.DRESS, Outfit.SHIRT):
        pen.ellipse(*arm[0], 0.067, 0.058, OUTFIT_COLORS[spec.outfit_color])


def draw_leg(pen: Pen, spec: CharacterSpec, leg: Limb, *, soles: bool) -> None:
    """A leg; its shoe too, if it is seen from the side."""
    pen.limb(leg, 0.095, _trousers(spec))
    if spec.outfit is Outfit.SHIRT:
        pen.limb(leg[:2], 0.110, TROUSERS)
    if not soles:
        x, y = leg[2]
        pen.ellipse(x, y + 0.012, 0.075, 0.048, _shoes(spec))


def draw_sole(pen: Pen, spec: CharacterSpec, foot: Point) -> None:
    """A shoe that points at the viewer."""
    pen.ellipse(*foot, 0.075, 0.085, _shoes(spec))
    pen.ellipse(foot[0], foot[1] + 0.01, 0.042, 0.05, shade(_shoes(spec), 1.35), outline=False)


def draw_torso(pen: Pen, spec: CharacterSpec, *, short: bool, front: bool) -> None:
    """The trunk; a short one does not cover the soles of somebody who sits."""
    _TORSOS[spec.outfit](pen, OUTFIT_COLORS[spec.outfit_color], short, front)


def _coat(pen: Pen, color: Color, short: bool, front: bool) -> None:
    low = 0.83 if short else 0.885
    pen.polygon([(0.41, 0.545), (0.59, 0.545), (0.655, low), (0.345, low)], color)
    pen.limb([(0.5, 0.68), (0.5, low)], 0.018, shade(color, 0.72), outline=False)
    if front:
        pen.polygon([(0.455, 0.545), (0.545, 0.545), (0.5, 0.675)], WHITE)
        for y in (0.715, 0.785):
            pen.ellipse(0.55, y, 0.022, 0.022, GOLD, outline=False)


def _dress(pen: Pen, color: Color, short: bool, front: bool) -> None:
    low = 0.84 if short else 0.875
    pen.polygon(
        [(0.42, 0.545), (0.58, 0.545), (0.57, 0.67), (0.70, low), (0.30, low), (0.43, 0.67)], color
    )
    hem = [(0.325, low - 0.022), (0.675, low - 0.022)]
    pen.limb(hem, 0.034, shade(color, 1.6), outline=False)
    pen.limb([(0.445, 0.675), (0.555, 0.675)], 0.036, shade(color, 0.72), outline=False)
    if not front:
        for side in (-1, 1):
            pen.polygon([(0.5, 0.69), (0.5 + 0.075 * side, 0.65), (0.5 + 0.075 * side, 0.74)],
                        shade(color, 0.72), outline=False)  # fmt: skip


def _armour(pen: Pen, color: Color, short: bool, front: bool) -> None:
    del short
    pen.polygon([(0.40, 0.545), (0.60, 0.545), (0.61, 0.70), (0.39, 0.70)], color)
    pen.polygon([(0.39, 0.70), (0.61, 0.70), (0.60, 0.82), (0.40, 0.82)], METAL)
    pen.limb([(0.40, 0.705), (0.60, 0.705)], 0.034, METAL_DARK, outline=False)
    if front:
        pen.ellipse(0.5, 0.625, 0.042, 0.042, GOLD)


def _hoodie(pen: Pen, color: Color, short: bool, front: bool) -> None:
    del short
    dark = shade(color, 0.72)
    pen.rounded((0.385, 0.535, 0.615, 0.82), 0.06, color)
    if not front:
        pen.ellipse(0.5, 0.60, 0.10, 0.075, dark)
        return
    pen.rounded((0.425, 0.71, 0.575, 0.79), 0.02, dark, outline=False)
    for x in (0.46, 0.54):
        pen.limb([(x, 0.575), (x, 0.665)], 0.022, WHITE, outline=False)


def _robe(pen: Pen, color: Color, short: bool, front: bool) -> None:
    low = 0.86 if short else 0.925
    pen.polygon([(0.405, 0.545), (0.595, 0.545), (0.68, low), (0.32, low)], color)
    hem = [(0.345, low - 0.024), (0.655, low - 0.024)]
    pen.limb(hem, 0.036, GOLD, outline=False)
    if front:
        pen.limb([(0.42, 0.57), (0.5, 0.66), (0.58, 0.57)], 0.030, GOLD, outline=False)
        pen.limb([(0.5, 0.67), (0.5, low - 0.03)], 0.026, shade(color, 0.7), outline=False)


def _shirt(pen: Pen, color: Color, short: bool, front: bool) -> None:
    del short
    pen.rounded((0.395, 0.535, 0.605, 0.80), 0.045, color)
    pen.limb([(0.415, 0.785), (0.585, 0.785)], 0.030, TROUSERS, outline=False)
    if front:
        pen.ellipse(0.5, 0.66, 0.055, 0.055, shade(color, 1.7), outline=False)


def _overalls(pen: Pen, color: Color, short: bool, front: bool) -> None:
    del short
    pen.rounded((0.395, 0.535, 0.605, 0.80), 0.045, WHITE)
    pen.rounded((0.395, 0.70, 0.605, 0.83), 0.03, color)
    if front:
        pen.rounded((0.43, 0.615, 0.57, 0.76), 0.02, color)
        pen.rounded((0.46, 0.68, 0.54, 0.735), 0.015, shade(color, 0.7), outline=False)
    for side in (-1, 1):
        ends = [(0.5 + 0.075 * side, 0.55), (0.5 + (0.05 if front else -0.05) * side, 0.70)]
        pen.limb(ends, 0.034, color, outline=False)


def _suit(pen: Pen, color: Color, short: bool, front: bool) -> None:
    del short
    pen.polygon([(0.40, 0.545), (0.60, 0.545), (0.61, 0.83), (0.39, 0.83)], color)
    if not front:
        pen.limb([(0.5, 0.74), (0.5, 0.82)], 0.018, shade(color, 0.7), outline=False)
        return
    pen.polygon([(0.44, 0.545), (0.56, 0.545), (0.5, 0.735)], WHITE)
    pen.polygon([(0.478, 0.565), (0.522, 0.565), (0.535, 0.66), (0.5, 0.71), (0.465, 0.66)],
                (196, 44, 60), outline=False)  # fmt: skip


_TORSOS = {
    Outfit.COAT: _coat,
    Outfit.DRESS: _dress,
    Outfit.ARMOUR: _armour,
    Outfit.HOODIE: _hoodie,
    Outfit.ROBE: _robe,
    Outfit.SHIRT: _shirt,
    Outfit.OVERALLS: _overalls,
    Outfit.SUIT: _suit,
}

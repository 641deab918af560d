"""Draws one character: body and clothes; `demo_model.heads` draws the head."""

from __future__ import annotations

from demo_model.characters import Accessory, CharacterSpec, Outfit, Species
from demo_model.heads import draw_back_hair, draw_head, fur_color
from demo_model.palette import (
    ANDROID_FACE,
    METAL,
    METAL_DARK,
    OUTFIT_COLORS,
    SCARF,
    SHOES,
    SKINS,
    TROUSERS,
    WHITE,
)
from demo_model.pen import Color, Pen, Point, shade
from demo_model.poses import JOINTS, Joints, Pose


def draw_figure(pen: Pen, spec: CharacterSpec, pose: Pose, *, mirrored: bool = False) -> None:
    """Draws a character into the pen's unit square, feet near its lower edge."""
    joints = JOINTS[pose]
    if mirrored:
        joints = _mirror(joints)
    body = pen.moved(0.0, joints.shift, joints.lean)
    if joints.airborne:
        pen.ellipse(0.5, 0.985, 0.20, 0.018, (70, 62, 84), outline=False)
    if spec.species is Species.CAT:
        side = -1 if mirrored else 1
        body.limb(
            [
                (0.5, 0.80),
                (0.5 + 0.20 * side, 0.86),
                (0.5 + 0.34 * side, 0.80),
                (0.5 + 0.37 * side, 0.67),
            ],
            0.06,
            fur_color(spec),
        )
    draw_back_hair(body, spec)
    if spec.outfit is Outfit.HOODIE:
        body.ellipse(0.5, 0.56, 0.19, 0.075, shade(OUTFIT_COLORS[spec.outfit_color], 0.8))
    for leg in joints.legs:
        _leg(body, spec, leg, soles=joints.soles)
    raised = [arm for arm in joints.arms if arm[2][1] < arm[0][1]]
    for arm in joints.arms:
        if arm not in raised:
            _arm(body, spec, arm)
    _torso(body, spec, short=joints.soles)
    if joints.soles:
        for leg in joints.legs:
            _sole(body, spec, leg[2])
    for arm in raised:
        _arm(body, spec, arm)
    if spec.accessory is Accessory.SCARF:
        body.limb([(0.405, 0.565), (0.5, 0.585), (0.595, 0.565)], 0.07, SCARF)
        body.limb([(0.58, 0.58), (0.60, 0.70)], 0.06, SCARF)
    draw_head(body, spec)


def body_color(spec: CharacterSpec) -> Color:
    """Colour of the bare hands and legs."""
    if spec.species is Species.HUMAN:
        return SKINS[spec.skin]
    if spec.species is Species.ANDROID:
        return ANDROID_FACE
    if spec.species is Species.ROBOT:
        return METAL
    return fur_color(spec)


def _mirror(joints: Joints) -> Joints:
    def flip(limb: tuple[Point, Point, Point]) -> tuple[Point, Point, Point]:
        first, second, third = limb
        return (
            (1 - first[0], first[1]),
            (1 - second[0], second[1]),
            (1 - third[0], third[1]),
        )

    return Joints(
        arms=(flip(joints.arms[1]), flip(joints.arms[0])),
        legs=(flip(joints.legs[1]), flip(joints.legs[0])),
        shift=joints.shift,
        lean=-joints.lean,
        soles=joints.soles,
        airborne=joints.airborne,
    )


def _sleeve(spec: CharacterSpec) -> Color:
    if spec.outfit is Outfit.ARMOUR:
        return METAL
    if spec.outfit is Outfit.DRESS:
        return body_color(spec)
    return OUTFIT_COLORS[spec.outfit_color]


def _trousers(spec: CharacterSpec) -> Color:
    if spec.outfit is Outfit.DRESS:
        return body_color(spec)
    return METAL_DARK if spec.outfit is Outfit.ARMOUR else TROUSERS


def _shoes(spec: CharacterSpec) -> Color:
    return METAL if spec.outfit is Outfit.ARMOUR else SHOES


def _arm(pen: Pen, spec: CharacterSpec, arm: tuple[Point, Point, Point]) -> None:
    pen.limb(arm, 0.082, _sleeve(spec))
    pen.ellipse(*arm[2], 0.055, 0.055, body_color(spec))
    if spec.outfit is Outfit.ARMOUR:
        pen.ellipse(*arm[0], 0.068, 0.06, OUTFIT_COLORS[spec.outfit_color])
    elif spec.outfit is Outfit.DRESS:
        pen.ellipse(*arm[0], 0.062, 0.055, OUTFIT_COLORS[spec.outfit_color])


def _leg(pen: Pen, spec: CharacterSpec, leg: tuple[Point, Point, Point], *, soles: bool) -> None:
    pen.limb(leg, 0.095, _trousers(spec))
    if not soles:
        x, y = leg[2]
        pen.ellipse(x, y + 0.012, 0.075, 0.048, _shoes(spec))


def _sole(pen: Pen, spec: CharacterSpec, foot: Point) -> None:
    pen.ellipse(*foot, 0.075, 0.085, _shoes(spec))
    pen.ellipse(foot[0], foot[1] + 0.01, 0.042, 0.05, shade(_shoes(spec), 1.35), outline=False)


def _torso(pen: Pen, spec: CharacterSpec, *, short: bool) -> None:
    color = OUTFIT_COLORS[spec.outfit_color]
    dark = shade(color, 0.72)
    if spec.outfit is Outfit.COAT:
        low = 0.83 if short else 0.885
        pen.polygon([(0.41, 0.545), (0.59, 0.545), (0.655, low), (0.345, low)], color)
        pen.polygon([(0.455, 0.545), (0.545, 0.545), (0.5, 0.675)], WHITE)
        pen.limb([(0.5, 0.68), (0.5, low)], 0.014, dark, outline=False)
        for y in (0.715, 0.775):
            pen.ellipse(0.545, y, 0.016, 0.016, (252, 214, 92), outline=False)
    elif spec.outfit is Outfit.DRESS:
        low = 0.84 if short else 0.875
        pen.polygon(
            [(0.42, 0.545), (0.58, 0.545), (0.57, 0.67), (0.70, low), (0.30, low), (0.43, 0.67)],
            color,
        )
        pen.limb(
            [(0.325, low - 0.022), (0.675, low - 0.022)], 0.03, shade(color, 1.6), outline=False
        )
        pen.limb([(0.445, 0.675), (0.555, 0.675)], 0.036, dark, outline=False)
    elif spec.outfit is Outfit.ARMOUR:
        pen.polygon([(0.40, 0.545), (0.60, 0.545), (0.61, 0.70), (0.39, 0.70)], color)
        pen.polygon([(0.39, 0.70), (0.61, 0.70), (0.60, 0.82), (0.40, 0.82)], METAL)
        pen.limb([(0.40, 0.705), (0.60, 0.705)], 0.034, METAL_DARK, outline=False)
        pen.ellipse(0.5, 0.625, 0.042, 0.042, (252, 214, 92))
    else:
        pen.rounded((0.385, 0.535, 0.615, 0.82), 0.06, color)
        pen.rounded((0.425, 0.71, 0.575, 0.79), 0.02, dark, outline=False)
        for x in (0.465, 0.535):
            pen.limb([(x, 0.57), (x, 0.665)], 0.016, WHITE, outline=False)

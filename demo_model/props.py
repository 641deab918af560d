"""Things that a character holds, wears for one picture, or stands beside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from demo_model.characters import OutfitColor
from demo_model.palette import GOLD, OUTFIT_COLORS, STEEL, WHITE, WOOD
from demo_model.pen import OUTLINE, Color, Pen, Point, shade
from demo_model.poses import Joints, Limb, Pose


class Prop(StrEnum):
    """One thing of a picture."""

    NONE = "none"
    BALL = "ball"
    UMBRELLA = "umbrella"
    BOOK = "book"
    SWORD = "sword"
    HAT = "hat"
    GUITAR = "guitar"
    BALLOON = "balloon"
    CUP = "cup"
    WAND = "wand"
    SIGN = "sign"


_ONE_HAND: dict[Prop, Limb] = {
    Prop.UMBRELLA: ((0.405, 0.60), (0.285, 0.645), (0.235, 0.565)),
    Prop.SWORD: ((0.405, 0.60), (0.285, 0.655), (0.19, 0.61)),
    Prop.BALLOON: ((0.405, 0.60), (0.285, 0.645), (0.19, 0.575)),
    Prop.CUP: ((0.405, 0.60), (0.285, 0.655), (0.21, 0.61)),
    Prop.WAND: ((0.405, 0.60), (0.285, 0.655), (0.19, 0.60)),
}
_BOTH_HANDS: dict[Prop, tuple[Limb, Limb]] = {
    Prop.BOOK: (
        ((0.405, 0.60), (0.325, 0.685), (0.375, 0.725)),
        ((0.595, 0.60), (0.675, 0.685), (0.625, 0.725)),
    ),
    Prop.GUITAR: (
        ((0.405, 0.60), (0.315, 0.69), (0.435, 0.735)),
        ((0.595, 0.60), (0.70, 0.665), (0.755, 0.60)),
    ),
}
_ONE_HAND_FREE = (
    Pose.STANDING, Pose.WAVING, Pose.SITTING, Pose.WALKING, Pose.POINTING, Pose.KNEELING,
)  # fmt: skip
_HANDS_FREE = (Pose.STANDING, Pose.SITTING, Pose.WALKING)


def poses_with(prop: Prop) -> tuple[Pose, ...]:
    """The poses in which a prop is drawn."""
    if prop in _ONE_HAND:
        return _ONE_HAND_FREE
    if prop in _BOTH_HANDS:
        return _HANDS_FREE
    if prop is Prop.BALL:
        return tuple(pose for pose in Pose if pose not in (Pose.FLYING, Pose.SLEEPING))
    return tuple(Pose)


@dataclass(frozen=True)
class Held:
    """A prop and its colour; swords, cups, wands and signs have their own."""

    prop: Prop = Prop.NONE
    color: OutfitColor = OutfitColor.RED


NOTHING = Held()


def holding(joints: Joints, prop: Prop) -> Joints:
    """The pose with the arms that hold a prop."""
    arms = joints.arms
    if prop in _ONE_HAND:
        arms = (_ONE_HAND[prop], *arms[1:])
    elif prop in _BOTH_HANDS:
        arms = _BOTH_HANDS[prop]
    return Joints(
        arms, joints.legs, joints.shift, joints.lean, joints.soles, joints.airborne,
        joints.hand_on_face,
    )  # fmt: skip


def draw_behind(pen: Pen, held: Held, *, mirrored: bool) -> None:
    """What is behind the body: canopy, balloon."""
    color, at = OUTFIT_COLORS[held.color], _Side(mirrored)
    if held.prop is Prop.UMBRELLA:
        canopy = [(0.24 + 0.31 * math.cos(a), 0.19 + 0.20 * math.sin(a)) for a in _half_turn()]
        low = [(0.55, 0.19), (0.45, 0.225), (0.345, 0.19), (0.24, 0.225), (0.135, 0.19),
               (0.03, 0.225), (-0.07, 0.19)]  # fmt: skip
        pen.limb(at.points([(0.24, 0.02), (0.235, 0.62)]), 0.03, WOOD)
        pen.polygon(at.points([*canopy, *low[1:]]), color)
        for middle in (0.135, 0.345):
            pen.limb(
                at.points([(0.24, 0.0), (middle, 0.18)]), 0.02, shade(color, 0.7), outline=False
            )
    elif held.prop is Prop.BALLOON:
        pen.limb(at.points([(0.19, 0.58), (0.13, 0.28)]), 0.018, OUTLINE, outline=False)
        pen.ellipse(*at(0.12, 0.155), 0.105, 0.13, color)
        pen.ellipse(*at(0.09, 0.105), 0.026, 0.036, shade(color, 1.6), outline=False)


def draw_in_hand(pen: Pen, held: Held, *, mirrored: bool) -> None:
    """What is in front of the body; hands are drawn over it."""
    color, at = OUTFIT_COLORS[held.color], _Side(mirrored)
    if held.prop is Prop.SWORD:
        pen.polygon(at.points([(0.155, 0.56), (0.075, 0.23), (0.125, 0.16), (0.225, 0.55)]), STEEL)
        pen.limb(at.points([(0.105, 0.585), (0.265, 0.545)]), 0.045, GOLD)
        pen.limb(at.points([(0.185, 0.57), (0.205, 0.665)]), 0.045, WOOD)
    elif held.prop is Prop.WAND:
        pen.limb(at.points([(0.205, 0.64), (0.125, 0.43)]), 0.042, WOOD)
        _star(pen, at(0.105, 0.375), 0.085, GOLD)
    elif held.prop is Prop.CUP:
        pen.limb(at.points([(0.145, 0.485), (0.095, 0.52), (0.145, 0.565)]), 0.036, WHITE)
        left, right = sorted((at(0.135, 0)[0], at(0.275, 0)[0]))
        pen.rounded((left, 0.455, right, 0.60), 0.03, WHITE)
        pen.rounded((left + 0.014, 0.467, right - 0.014, 0.497), 0.013, WOOD, outline=False)
    elif held.prop is Prop.BOOK:
        pen.polygon([(0.35, 0.615), (0.5, 0.645), (0.65, 0.615), (0.65, 0.765), (0.5, 0.80),
                     (0.35, 0.765)], color)  # fmt: skip
        pen.polygon([(0.375, 0.60), (0.5, 0.63), (0.625, 0.60), (0.625, 0.735), (0.5, 0.77),
                     (0.375, 0.735)], WHITE)  # fmt: skip
        pen.limb([(0.5, 0.64), (0.5, 0.755)], 0.018, (150, 146, 160), outline=False)
    elif held.prop is Prop.GUITAR:
        pen.limb(at.points([(0.52, 0.70), (0.83, 0.555)]), 0.055, WOOD)
        pen.ellipse(*at(0.40, 0.755), 0.115, 0.10, color)
        pen.ellipse(*at(0.51, 0.705), 0.085, 0.075, color)
        pen.ellipse(*at(0.43, 0.74), 0.045, 0.042, (60, 40, 36), outline=False)
        pen.limb(at.points([(0.455, 0.73), (0.80, 0.57)]), 0.022, (244, 232, 200), outline=False)


def draw_beside(pen: Pen, held: Held, pose: Pose, *, mirrored: bool) -> None:
    """What stands or lies on the ground; `pen` does not lean with the body."""
    color, at = OUTFIT_COLORS[held.color], _Side(mirrored)
    if held.prop is Prop.BALL:
        x, y = at(0.90, 0.885) if pose is Pose.KICKING else at(0.15, 0.885)
        pen.ellipse(x, y, 0.088, 0.088, color)
        pen.limb(
            [(x - 0.07, y - 0.01), (x, y + 0.02), (x + 0.07, y - 0.01)], 0.03, WHITE, outline=False
        )
    elif held.prop is Prop.SIGN:
        x = at(0.13, 0)[0]
        pen.limb([(x, 0.72), (x, 0.985)], 0.04, WOOD)
        pen.rounded((x - 0.125, 0.575, x + 0.125, 0.765), 0.03, color)
        for y in (0.63, 0.70):
            pen.limb([(x - 0.075, y), (x + 0.075, y)], 0.03, WHITE, outline=False)


def draw_hat(pen: Pen, color: OutfitColor, middle: Point) -> None:
    """A hat with a brim on a head at `middle`."""
    x, y = middle
    fill = OUTFIT_COLORS[color]
    crown = [
        (x - 0.165, y - 0.115),
        (x - 0.125, y - 0.305),
        (x + 0.125, y - 0.305),
        (x + 0.165, y - 0.115),
    ]
    pen.polygon(crown, fill)
    pen.polygon(
        [(x - 0.165, y - 0.12), (x - 0.152, y - 0.18), (x + 0.152, y - 0.18),
         (x + 0.165, y - 0.12)], shade(fill, 0.6), outline=False,
    )  # fmt: skip
    pen.ellipse(x, y - 0.105, 0.275, 0.05, fill)


def draw_effects(pen: Pen, pose: Pose, joints: Joints, *, mirrored: bool) -> None:
    """What a pose shows besides joints: a spell's light, a thought, sleep."""
    if pose is Pose.CASTING:
        for arm in joints.arms[:2]:
            raised = arm[2][1] < 0.6
            _star(
                pen,
                arm[2],
                0.12 if raised else 0.075,
                (255, 236, 120) if raised else (130, 236, 250),
            )
    elif pose is Pose.THINKING:
        at = _Side(mirrored)
        for x, y, r in ((0.76, 0.24, 0.022), (0.81, 0.17, 0.034)):
            pen.ellipse(*at(x, y), r, r, WHITE)
        pen.ellipse(*at(0.89, 0.075), 0.085, 0.062, WHITE)
        for dx in (-0.038, 0.0, 0.038):
            pen.ellipse(*at(0.89 + dx, 0.075), 0.014, 0.014, OUTLINE, outline=False)


def draw_sleep(pen: Pen) -> None:
    """Three letters Z above a sleeper, upright in any position of the body."""
    for x, y, size in ((0.44, 0.42, 0.05), (0.55, 0.27, 0.07), (0.70, 0.09, 0.095)):
        ring = [(x, y), (x + size, y), (x, y + size), (x + size, y + size)]
        pen.limb(ring, 0.036, OUTLINE, outline=False)
        pen.limb(ring, 0.02, WHITE, outline=False)


class _Side:
    """Places on the left, or on the right of a mirrored figure."""

    def __init__(self, mirrored: bool) -> None:
        self.mirrored = mirrored

    def __call__(self, x: float, y: float) -> Point:
        return (1 - x if self.mirrored else x, y)

    def points(self, points: list[Point]) -> list[Point]:
        return [self(x, y) for x, y in points]


def _half_turn() -> list[float]:
    return [math.pi * (1 + step / 16) for step in range(17)]


def _star(pen: Pen, middle: Point, radius: float, color: Color) -> None:
    points = []
    for step in range(10):
        r = radius if step % 2 == 0 else 0.45 * radius
        angle = math.pi * (step / 5 - 0.5)
        points.append((middle[0] + r * math.cos(angle), middle[1] + r * math.sin(angle)))
    pen.polygon(points, color)

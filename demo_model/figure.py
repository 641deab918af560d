"""Draws one character: body, clothes and what it holds; `demo_model.heads` draws the head."""

from __future__ import annotations

from dataclasses import dataclass

from demo_model.characters import Accessory, CharacterSpec, Outfit, Species
from demo_model.clothes import draw_arm, draw_leg, draw_sole, draw_torso
from demo_model.faces import Emotion, Face, X, Y
from demo_model.heads import draw_back_hair, draw_head, fur_color
from demo_model.palette import CAPE, OUTFIT_COLORS, SCARF, WHITE
from demo_model.pen import Pen, Point, shade
from demo_model.poses import JOINTS, Joints, Limb, Pose
from demo_model.props import (
    NOTHING,
    Held,
    Prop,
    draw_behind,
    draw_beside,
    draw_effects,
    draw_hat,
    draw_in_hand,
    draw_sleep,
    holding,
)


@dataclass(frozen=True)
class Anatomy:
    """The parts that a figure has; not whole only to train and test the judge.

    Attributes:
        arms: Number of arms; more than two need `extra`.
        legs: Number of legs, likewise.
        eyes: Number of eyes.
        thin: Whether bow, antenna and whiskers are present.
        extra: Additional limbs, in the unit square of the character.
        figures: How many times the whole figure is drawn.
    """

    arms: int = 2
    legs: int = 2
    eyes: int = 2
    thin: bool = True
    extra: tuple[Limb, ...] = ()
    figures: int = 1


WHOLE = Anatomy()


@dataclass(frozen=True)
class Manner:
    """What a figure shows besides its pose.

    Attributes:
        emotion: Mood of the face.
        held: What it holds or wears.
        behind: Whether it is seen from behind.
        anatomy: The parts that it has.
    """

    emotion: Emotion = Emotion.HAPPY
    held: Held = NOTHING
    behind: bool = False
    anatomy: Anatomy = WHOLE


PLAIN_MANNER = Manner()


def draw_figure(
    pen: Pen,
    spec: CharacterSpec,
    pose: Pose,
    *,
    mirrored: bool = False,
    manner: Manner = PLAIN_MANNER,
) -> None:
    """Draws a character into the pen's unit square, feet near its lower edge."""
    held, anatomy = manner.held, manner.anatomy
    joints = holding(JOINTS[pose], held.prop)
    if mirrored:
        joints = joints.mirrored()
    body = pen.moved(0.0, joints.shift, joints.lean)
    if joints.airborne:
        pen.ellipse(0.5, 0.985, 0.20, 0.018, (70, 62, 84), outline=False)
    if not manner.behind:
        _things_behind(body, spec, held, mirrored=mirrored)
    elif held.prop is not Prop.NONE:
        draw_in_hand(body, held, mirrored=mirrored)
    legs = (*joints.legs, *anatomy.extra)[: anatomy.legs]
    for leg in legs:
        draw_leg(body, spec, leg, soles=joints.soles)
    arms = (*joints.arms, *anatomy.extra)[: anatomy.arms]
    front = [arm for arm in arms if _in_front(arm, joints, held)]
    for arm in arms:
        if arm not in front:
            draw_arm(body, spec, arm)
    draw_torso(body, spec, short=joints.soles, front=not manner.behind)
    if joints.soles:
        for leg in legs:
            draw_sole(body, spec, leg[2])
    if not manner.behind:
        draw_in_hand(body, held, mirrored=mirrored)
    face_hand = joints.arms[1] if joints.hand_on_face else None
    for arm in front:
        if arm != face_hand:
            draw_arm(body, spec, arm)
    _top(body, spec, manner, mirrored=mirrored, closed=pose is Pose.SLEEPING)
    if face_hand and face_hand in arms and not manner.behind:
        draw_arm(body, spec, face_hand)
    draw_effects(body, pose, joints, mirrored=mirrored)
    draw_beside(pen, held, pose, mirrored=mirrored)
    if pose is Pose.SLEEPING:
        draw_sleep(pen)


def _in_front(arm: Limb, joints: Joints, held: Held) -> bool:
    """Whether an arm is drawn over the trunk: raised, across the belly, or with both hands full."""
    shoulder, _, hand = arm
    across = 0.42 < hand[0] < 0.58 and hand[1] < 0.75
    return hand[1] < shoulder[1] or across or held.prop in (Prop.BOOK, Prop.GUITAR)


def _top(body: Pen, spec: CharacterSpec, manner: Manner, *, mirrored: bool, closed: bool) -> None:
    """Scarf, head, hat; from behind also what hangs down the back."""
    if spec.accessory is Accessory.SCARF:
        body.limb([(0.405, 0.565), (0.5, 0.585), (0.595, 0.565)], 0.075, SCARF)
        body.limb([(0.58, 0.58), (0.60, 0.70)], 0.065, SCARF)
    face = None if manner.behind else Face(manner.emotion, closed, manner.anatomy.eyes)
    if face and spec.accessory is Accessory.CAPE:
        body.limb([(0.415, 0.56), (0.5, 0.585), (0.585, 0.56)], 0.045, CAPE)
    if face is None:
        _things_behind(body, spec, manner.held, mirrored=mirrored)
    draw_head(body, spec, face, thin=manner.anatomy.thin)
    if manner.held.prop is Prop.HAT:
        draw_hat(body, manner.held.color, (X, Y))


def _things_behind(body: Pen, spec: CharacterSpec, held: Held, *, mirrored: bool) -> None:
    """What is behind a figure: wings, tail, cape, long hair, a canopy."""
    draw_behind(body, held, mirrored=mirrored)
    if spec.accessory is Accessory.CAPE:
        body.polygon([(0.40, 0.55), (0.60, 0.55), (0.735, 0.90), (0.265, 0.90)], CAPE)
    _tail(body, spec, side=-1 if mirrored else 1)
    draw_back_hair(body, spec)
    if spec.outfit is Outfit.HOODIE:
        body.ellipse(0.5, 0.56, 0.19, 0.075, shade(OUTFIT_COLORS[spec.outfit_color], 0.8))


def _tail(body: Pen, spec: CharacterSpec, *, side: int) -> None:
    color = fur_color(spec)

    def points(*places: Point) -> list[Point]:
        return [(0.5 + x * side, y) for x, y in places]

    if spec.species is Species.CAT:
        body.limb(points((0, 0.80), (0.20, 0.86), (0.34, 0.80), (0.37, 0.67)), 0.06, color)
    elif spec.species is Species.FOX:
        body.limb(points((0, 0.80), (0.20, 0.85), (0.30, 0.80)), 0.10, color)
        body.ellipse(0.5 + 0.345 * side, 0.745, 0.085, 0.105, color)
        body.ellipse(0.5 + 0.36 * side, 0.69, 0.050, 0.055, WHITE, outline=False)
    elif spec.species is Species.DOG:
        body.limb(points((0, 0.79), (0.18, 0.80), (0.26, 0.70)), 0.075, color)
    elif spec.species is Species.DRAGON:
        for way in (-1, 1):
            wing = ((0.08, 0.62), (0.33, 0.47), (0.42, 0.62), (0.34, 0.66), (0.30, 0.74))
            body.polygon([(0.5 + way * x, y) for x, y in wing], shade(color, 0.72))
        body.limb(points((0, 0.80), (0.20, 0.87), (0.33, 0.83)), 0.085, color)
        body.polygon(points((0.30, 0.78), (0.45, 0.77), (0.37, 0.89)), shade(color, 0.72))

"""Poses: where the joints of a front-facing chibi body are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from demo_model.pen import Point

Limb = tuple[Point, Point, Point]
"""Shoulder, elbow, hand; or hip, knee, foot."""


class Pose(StrEnum):
    """What the character does."""

    STANDING = "standing"
    WAVING = "waving"
    RUNNING = "running"
    SITTING = "sitting"
    JUMPING = "jumping"
    WALKING = "walking"
    DANCING = "dancing"
    POINTING = "pointing"
    CHEERING = "cheering"
    THINKING = "thinking"
    CASTING = "casting"
    FLYING = "flying"
    SLEEPING = "sleeping"
    KNEELING = "kneeling"
    KICKING = "kicking"


@dataclass(frozen=True)
class Joints:
    """One pose in the unit square of the character; (0, 0) is its top left corner.

    Attributes:
        arms: The arm on the left of the picture and the other one.
        legs: Likewise.
        shift: How far the whole body moves down.
        lean: Rotation of the whole body, in radians.
        soles: Whether the feet point at the viewer.
        airborne: Whether the feet are off the ground.
        hand_on_face: Whether the second arm is in front of the head.
    """

    arms: tuple[Limb, ...]
    legs: tuple[Limb, ...]
    shift: float = 0.0
    lean: float = 0.0
    soles: bool = False
    airborne: bool = False
    hand_on_face: bool = False

    def mirrored(self) -> Joints:
        """The mirrored pose."""
        return Joints(
            arms=tuple(_flip(limb) for limb in self.arms),
            legs=tuple(_flip(limb) for limb in self.legs),
            shift=self.shift,
            lean=-self.lean,
            soles=self.soles,
            airborne=self.airborne,
            hand_on_face=self.hand_on_face,
        )


def _flip(limb: Limb) -> Limb:
    first, second, third = ((1 - x, y) for x, y in limb)
    return first, second, third


_DOWN_LEFT = ((0.405, 0.60), (0.345, 0.67), (0.32, 0.765))
_DOWN_RIGHT = ((0.595, 0.60), (0.655, 0.67), (0.68, 0.765))
_STRAIGHT = (
    ((0.44, 0.78), (0.435, 0.86), (0.43, 0.935)),
    ((0.56, 0.78), (0.565, 0.86), (0.57, 0.935)),
)

JOINTS: dict[Pose, Joints] = {
    Pose.STANDING: Joints((_DOWN_LEFT, _DOWN_RIGHT), _STRAIGHT),
    Pose.WAVING: Joints((_DOWN_LEFT, ((0.595, 0.61), (0.755, 0.64), (0.845, 0.45))), _STRAIGHT),
    Pose.RUNNING: Joints(
        (
            ((0.405, 0.61), (0.27, 0.68), (0.185, 0.60)),
            ((0.595, 0.61), (0.73, 0.63), (0.80, 0.74)),
        ),
        (
            ((0.44, 0.77), (0.33, 0.81), (0.25, 0.90)),
            ((0.56, 0.77), (0.66, 0.85), (0.80, 0.875)),
        ),
        lean=-0.12,
    ),
    Pose.SITTING: Joints(
        (
            ((0.405, 0.60), (0.33, 0.68), (0.355, 0.775)),
            ((0.595, 0.60), (0.67, 0.68), (0.645, 0.775)),
        ),
        (
            ((0.45, 0.79), (0.35, 0.84), (0.27, 0.85)),
            ((0.55, 0.79), (0.65, 0.84), (0.73, 0.85)),
        ),
        shift=0.055,
        soles=True,
    ),
    Pose.JUMPING: Joints(
        (
            ((0.405, 0.61), (0.245, 0.62), (0.155, 0.45)),
            ((0.595, 0.61), (0.755, 0.62), (0.845, 0.45)),
        ),
        (
            ((0.44, 0.77), (0.32, 0.80), (0.29, 0.89)),
            ((0.56, 0.77), (0.68, 0.80), (0.71, 0.89)),
        ),
        shift=-0.04,
        airborne=True,
    ),
    Pose.WALKING: Joints(
        (
            ((0.405, 0.60), (0.30, 0.655), (0.225, 0.715)),
            ((0.595, 0.60), (0.655, 0.68), (0.60, 0.755)),
        ),
        (
            ((0.455, 0.78), (0.43, 0.86), (0.385, 0.935)),
            ((0.55, 0.78), (0.625, 0.84), (0.71, 0.895)),
        ),
    ),
    Pose.DANCING: Joints(
        (
            ((0.405, 0.61), (0.25, 0.60), (0.19, 0.44)),
            ((0.595, 0.61), (0.73, 0.67), (0.86, 0.65)),
        ),
        (
            ((0.45, 0.78), (0.45, 0.86), (0.45, 0.935)),
            ((0.56, 0.77), (0.70, 0.79), (0.66, 0.895)),
        ),
        lean=0.13,
    ),
    Pose.POINTING: Joints(
        (
            ((0.405, 0.60), (0.295, 0.665), (0.385, 0.74)),
            ((0.595, 0.61), (0.74, 0.61), (0.885, 0.59)),
        ),
        _STRAIGHT,
    ),
    Pose.CHEERING: Joints(
        (
            ((0.405, 0.61), (0.215, 0.56), (0.165, 0.31)),
            ((0.595, 0.61), (0.785, 0.56), (0.835, 0.31)),
        ),
        _STRAIGHT,
    ),
    Pose.THINKING: Joints(
        (
            ((0.405, 0.60), (0.36, 0.70), (0.52, 0.71)),
            ((0.595, 0.61), (0.70, 0.68), (0.60, 0.555)),
        ),
        _STRAIGHT,
        hand_on_face=True,
    ),
    Pose.CASTING: Joints(
        (
            ((0.405, 0.60), (0.29, 0.66), (0.195, 0.64)),
            ((0.595, 0.61), (0.73, 0.60), (0.845, 0.525)),
        ),
        (
            ((0.44, 0.78), (0.40, 0.86), (0.365, 0.935)),
            ((0.56, 0.78), (0.60, 0.86), (0.635, 0.935)),
        ),
    ),
    Pose.FLYING: Joints(
        (
            ((0.405, 0.60), (0.345, 0.67), (0.34, 0.77)),
            ((0.595, 0.61), (0.775, 0.52), (0.80, 0.30)),
        ),
        (
            ((0.45, 0.78), (0.445, 0.87), (0.45, 0.945)),
            ((0.55, 0.78), (0.575, 0.86), (0.59, 0.915)),
        ),
        shift=-0.04,
        lean=0.85,
        airborne=True,
    ),
    Pose.SLEEPING: Joints(
        (
            ((0.405, 0.60), (0.37, 0.69), (0.47, 0.73)),
            ((0.595, 0.60), (0.63, 0.69), (0.53, 0.73)),
        ),
        (
            ((0.44, 0.78), (0.44, 0.86), (0.45, 0.935)),
            ((0.56, 0.78), (0.62, 0.845), (0.58, 0.925)),
        ),
        shift=0.20,
        lean=-1.38,
    ),
    Pose.KNEELING: Joints(
        (
            ((0.405, 0.60), (0.325, 0.68), (0.33, 0.775)),
            ((0.595, 0.60), (0.655, 0.67), (0.68, 0.765)),
        ),
        (
            ((0.445, 0.78), (0.315, 0.805), (0.315, 0.90)),
            ((0.56, 0.79), (0.62, 0.885), (0.735, 0.90)),
        ),
        shift=0.035,
    ),
    Pose.KICKING: Joints(
        (
            ((0.405, 0.61), (0.28, 0.60), (0.175, 0.55)),
            ((0.595, 0.61), (0.70, 0.66), (0.735, 0.575)),
        ),
        (
            ((0.45, 0.78), (0.45, 0.86), (0.445, 0.935)),
            ((0.56, 0.775), (0.70, 0.80), (0.845, 0.755)),
        ),
        lean=-0.10,
    ),
}

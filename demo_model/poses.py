"""Poses: where the joints of a front-facing chibi body are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from demo_model.pen import Point


class Pose(StrEnum):
    """What the character does."""

    STANDING = "standing"
    WAVING = "waving"
    RUNNING = "running"
    SITTING = "sitting"
    JUMPING = "jumping"


@dataclass(frozen=True)
class Joints:
    """One pose in the unit square of the character; (0, 0) is its top left corner.

    Attributes:
        arms: Shoulder, elbow, hand of the arm on the left of the picture and of the other.
        legs: Hip, knee, foot likewise.
        shift: How far the whole body moves down.
        lean: Rotation of the whole body, in radians.
        soles: Whether the feet point at the viewer.
        airborne: Whether the feet are off the ground.
    """

    arms: tuple[tuple[Point, Point, Point], tuple[Point, Point, Point]]
    legs: tuple[tuple[Point, Point, Point], tuple[Point, Point, Point]]
    shift: float = 0.0
    lean: float = 0.0
    soles: bool = False
    airborne: bool = False


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
}

"""Eyes, brows and mouths: how a face shows a mood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from demo_model.palette import MOUTH, TEAR, WHITE
from demo_model.pen import OUTLINE, Color, Pen, Point

X, Y = 0.5, 0.345
"""The middle of a head."""


class Emotion(StrEnum):
    """The mood of a face."""

    HAPPY = "happy"
    SAD = "sad"
    ANGRY = "angry"
    SURPRISED = "surprised"
    LAUGHING = "laughing"


@dataclass(frozen=True)
class Face:
    """How a face is drawn.

    Attributes:
        emotion: Its mood.
        closed: Whether the eyes are closed.
        eyes: Their number; other than two only in pictures that are wrong on purpose.
    """

    emotion: Emotion = Emotion.HAPPY
    closed: bool = False
    eyes: int = 2


def arc(
    cx: float, cy: float, rx: float, ry: float, start: float, end: float, steps: int = 18
) -> list[Point]:
    """Points of an ellipse from one angle to another, in degrees."""
    angles = (math.radians(start + (end - start) * i / steps) for i in range(steps + 1))
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def draw_eyes(
    pen: Pen,
    face: Face,
    iris: Color,
    *,
    white: Color = WHITE,
    line: Color = OUTLINE,
    height: float = 0.0,
    apart: float = 0.098,
) -> None:
    """The eyes and brows.

    Args:
        pen: Where to draw.
        face: Number and mood.
        iris: Colour of the iris.
        white: Colour around it.
        line: Colour of closed eyes and brows.
        height: How far the eyes are above their usual place.
        apart: Distance from the middle.
    """
    places = [(X - apart, Y + 0.045 - height), (X + apart, Y + 0.045 - height)]
    if face.eyes > 2:
        places.append((X, Y - 0.045 - height))
    for x, y in places[: face.eyes]:
        if face.closed:
            pen.limb(arc(x, y, 0.056, 0.036, 10, 170, 8), 0.026, line, outline=False)
        elif face.emotion is Emotion.LAUGHING:
            pen.limb(arc(x, y + 0.02, 0.056, 0.052, 190, 350, 8), 0.028, line, outline=False)
        else:
            wide = 0.010 if face.emotion is Emotion.SURPRISED else 0.0
            pen.ellipse(x, y, 0.060 + wide, 0.072 + wide, white)
            pen.ellipse(x, y + 0.006, 0.046 - wide, 0.058 - wide, iris, outline=False)
            pen.ellipse(x, y + 0.012, 0.024, 0.034 - wide, (26, 20, 34), outline=False)
            pen.ellipse(x + 0.016, y - 0.022, 0.017, 0.020, WHITE, outline=False)
    draw_brows(pen, face, line, height=height, apart=apart)


def draw_brows(
    pen: Pen, face: Face, line: Color, *, height: float = 0.0, apart: float = 0.098
) -> None:
    """Brows that meet in anger or rise in sorrow, and a tear."""
    inner, outer = {Emotion.ANGRY: (0.012, -0.052), Emotion.SAD: (-0.05, 0.004)}.get(
        face.emotion, (0.0, 0.0)
    )
    if inner == outer or face.closed:
        return
    y = Y - height
    for side in (-1, 1):
        ends = [(X + side * (apart - 0.062), y + inner), (X + side * (apart + 0.070), y + outer)]
        pen.limb(ends, 0.034, line, outline=False)
    if face.emotion is Emotion.SAD:
        x, y = X - apart - 0.012, Y + 0.15 - height
        pen.polygon([(x - 0.024, y + 0.004), (x, y - 0.05), (x + 0.024, y + 0.004)], TEAR)
        pen.ellipse(x, y + 0.012, 0.030, 0.030, TEAR)


def draw_mouth(pen: Pen, face: Face, color: Color = MOUTH, y: float = Y + 0.128) -> None:
    """A smile, or the mouth of another mood."""
    mood = face.emotion
    if mood is Emotion.LAUGHING:
        pen.polygon([*arc(X, y - 0.014, 0.070, 0.066, 0, 180, 10)], color)
        pen.limb([(X - 0.045, y - 0.006), (X + 0.045, y - 0.006)], 0.018, WHITE, outline=False)
    elif mood is Emotion.SURPRISED:
        pen.ellipse(X, y + 0.012, 0.032, 0.040, color)
    elif mood is Emotion.HAPPY:
        pen.limb(arc(X, y - 0.006, 0.050, 0.034, 15, 165, 8), 0.020, color, outline=False)
    else:
        pen.limb(arc(X, y + 0.036, 0.046, 0.030, 195, 345, 8), 0.022, color, outline=False)

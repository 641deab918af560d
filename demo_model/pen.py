"""Draws outlined shapes in a rotated unit square, with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]

OUTLINE: Color = (48, 36, 58)
_SEGMENTS = 40


@lru_cache(maxsize=8)
def _circle(segments: int) -> tuple[Point, ...]:
    step = 2 * math.pi / segments
    return tuple((math.cos(i * step), math.sin(i * step)) for i in range(segments))


def shade(color: Color, factor: float) -> Color:
    """Darkens (`factor` < 1) or lightens (> 1) a colour."""
    if factor <= 1:
        return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))
    mix = factor - 1
    return (
        int(color[0] + (255 - color[0]) * mix),
        int(color[1] + (255 - color[1]) * mix),
        int(color[2] + (255 - color[2]) * mix),
    )


@dataclass(frozen=True)
class Pen:
    """Draws in a unit square placed on the picture.

    Attributes:
        draw: Where to draw.
        x: Left edge of the unit square, in pixels.
        y: Its top edge, in pixels.
        unit: Its side, in pixels.
        angle: Rotation about the square's centre, in radians.
        line: Width of outlines, in units.
    """

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    unit: float
    angle: float = 0.0
    line: float = 0.011

    def moved(self, dx: float, dy: float, angle: float = 0.0) -> Pen:
        """A pen shifted by a fraction of the unit and rotated further."""
        return replace(
            self,
            x=self.x + dx * self.unit,
            y=self.y + dy * self.unit,
            angle=self.angle + angle,
        )

    def place(self, points: Sequence[Point]) -> list[Point]:
        """Unit coordinates to pixels."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return [
            (
                self.x + self.unit * (0.5 + cos * (px - 0.5) - sin * (py - 0.5)),
                self.y + self.unit * (0.5 + sin * (px - 0.5) + cos * (py - 0.5)),
            )
            for px, py in points
        ]

    def polygon(self, points: Sequence[Point], fill: Color, *, outline: bool = True) -> None:
        """A closed shape with straight edges and round corners."""
        placed = self.place(points)
        self.draw.polygon(placed, fill=fill)
        if outline:
            ring = [*placed, placed[0], placed[1]]
            width = max(1, round(self.line * self.unit))
            self.draw.line(ring, fill=OUTLINE, width=width, joint="curve")

    def ellipse(
        self, cx: float, cy: float, rx: float, ry: float, fill: Color, *, outline: bool = True
    ) -> None:
        """An ellipse with axes along the pen's square."""
        if outline:
            self._ellipse(cx, cy, rx + self.line / 2, ry + self.line / 2, OUTLINE)
            self._ellipse(cx, cy, rx - self.line / 2, ry - self.line / 2, fill)
        else:
            self._ellipse(cx, cy, rx, ry, fill)

    def _ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: Color) -> None:
        points = [(cx + rx * c, cy + ry * s) for c, s in _circle(_SEGMENTS)]
        self.draw.polygon(self.place(points), fill=fill)

    def limb(
        self, points: Sequence[Point], width: float, fill: Color, *, outline: bool = True
    ) -> None:
        """A thick line with round ends and joints."""
        placed = self.place(points)
        if outline:
            self._limb(placed, (width + self.line) * self.unit, OUTLINE)
            self._limb(placed, (width - self.line) * self.unit, fill)
        else:
            self._limb(placed, width * self.unit, fill)

    def _limb(self, placed: Sequence[Point], width: float, fill: Color) -> None:
        radius = width / 2
        self.draw.line(list(placed), fill=fill, width=max(1, round(width)))
        for x, y in placed:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def rounded(
        self,
        box: tuple[float, float, float, float],
        radius: float,
        fill: Color,
        *,
        outline: bool = True,
    ) -> None:
        """A rectangle (left, top, right, bottom) with round corners."""
        left, top, right, bottom = box
        corners = (
            (right - radius, bottom - radius, 0),
            (left + radius, bottom - radius, 1),
            (left + radius, top + radius, 2),
            (right - radius, top + radius, 3),
        )

        def ring(grow: float) -> list[Point]:
            size = radius + grow
            return [
                (cx + size * math.cos(a), cy + size * math.sin(a))
                for cx, cy, quarter in corners
                for a in (math.pi / 2 * (quarter + step / 6) for step in range(7))
            ]

        if outline:
            self.draw.polygon(self.place(ring(self.line / 2)), fill=OUTLINE)
            self.draw.polygon(self.place(ring(-self.line / 2)), fill=fill)
        else:
            self.draw.polygon(self.place(ring(0.0)), fill=fill)

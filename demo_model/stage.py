"""Paints backgrounds: shapes measured in parts of the picture, under a light."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum

from demo_model.pen import Color, Pen


class Daytime(StrEnum):
    """The light of an outdoor picture."""

    DAY = "day"
    SUNSET = "sunset"
    NIGHT = "night"


class Weather(StrEnum):
    """The weather of an outdoor picture."""

    CLEAR = "clear"
    RAIN = "rain"
    SNOWFALL = "snowfall"
    STORM = "storm"
    FOG = "fog"


def mix(color: Color, other: Color, part: float) -> Color:
    """A colour moved towards another one."""
    r, g, b = (round(a + (c - a) * part) for a, c in zip(color, other, strict=True))
    return (r, g, b)


def _dimmed(color: Color, light: tuple[float, float, float]) -> Color:
    r, g, b = (min(255, round(value * part)) for value, part in zip(color, light, strict=True))
    return (r, g, b)


_LIGHTS: dict[Daytime, Callable[[Color], Color]] = {
    Daytime.DAY: lambda color: color,
    Daytime.SUNSET: lambda color: mix(_dimmed(color, (1.0, 0.74, 0.68)), (255, 120, 70), 0.32),
    Daytime.NIGHT: lambda color: mix(_dimmed(color, (0.30, 0.36, 0.56)), (26, 28, 78), 0.25),
}
_SKIES: dict[Weather, Callable[[Color], Color]] = {
    Weather.CLEAR: lambda color: color,
    Weather.RAIN: lambda color: mix(color, (104, 122, 148), 0.50),
    Weather.SNOWFALL: lambda color: mix(color, (206, 220, 236), 0.40),
    Weather.STORM: lambda color: mix(_dimmed(color, (0.55, 0.55, 0.60)), (54, 56, 84), 0.45),
    Weather.FOG: lambda color: mix(color, (216, 222, 228), 0.66),
}
# Where drops, flakes and stars are, in parts of width and height: never behind the head.
_SPOTS = (
    (0.06, 0.08), (0.20, 0.16), (0.09, 0.30), (0.04, 0.50), (0.15, 0.43), (0.10, 0.66),
    (0.33, 0.05), (0.66, 0.04), (0.80, 0.13), (0.94, 0.09), (0.90, 0.30), (0.97, 0.48),
    (0.85, 0.44), (0.93, 0.65), (0.50, 0.03), (0.24, 0.57), (0.78, 0.60),
)  # fmt: skip


class Stage:
    """A picture measured in its own width and height, so that any scene fits any format."""

    def __init__(
        self,
        pen: Pen,
        width: float,
        height: float,
        rng: random.Random,
        daytime: Daytime = Daytime.DAY,
        weather: Weather = Weather.CLEAR,
    ) -> None:
        self.pen = pen
        self.width = width
        self.height = height
        self.mirrored = rng.random() < 0.5
        self.rng = rng
        self.daytime = daytime
        self.weather = weather
        self._lit = True

    def band(self, top: float, bottom: float, color: Color) -> None:
        """A horizontal stripe over the whole width."""
        box = (0, top * self.height, self.width, bottom * self.height)
        self.pen.draw.rectangle(box, fill=self._light(color))

    def disc(self, x: float, y: float, rx: float, color: Color, ry: float | None = None) -> None:
        """An ellipse whose radii are parts of the shorter side."""
        unit = min(self.width, self.height)
        px, py = self._x(x) * self.width, y * self.height
        dx, dy = rx * unit, (rx if ry is None else ry) * unit
        self.pen.draw.ellipse((px - dx, py - dy, px + dx, py + dy), fill=self._light(color))

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """A rectangle in parts of the width and the height."""
        x0, x1 = sorted((self._x(left), self._x(right)))
        corners = (x0 * self.width, top * self.height, x1 * self.width, bottom * self.height)
        self.pen.draw.rectangle(corners, fill=self._light(color))

    def shape(self, points: list[tuple[float, float]], color: Color) -> None:
        """A polygon in parts of the width and the height."""
        placed = [(self._x(x) * self.width, y * self.height) for x, y in points]
        self.pen.draw.polygon(placed, fill=self._light(color))

    def sky_marks(self) -> None:
        """Stars and moon, drops, flakes, lightning or mist, over everything painted so far."""
        self._lit = False
        if self.daytime is Daytime.NIGHT and self.weather is Weather.CLEAR:
            for x, y in _SPOTS[:12:2]:
                self.disc(x, 0.75 * y, 0.013, (255, 250, 214))
            self.disc(0.84, 0.13, 0.085, (250, 246, 206))
        elif self.daytime is Daytime.SUNSET and self.weather is Weather.CLEAR:
            self.disc(0.16, 0.42, 0.115, (255, 236, 150))
        self._marks_of_weather()
        self._lit = True

    def _marks_of_weather(self) -> None:
        if self.weather is Weather.SNOWFALL:
            for x, y in _SPOTS:
                self.disc(x, y, 0.021, (255, 255, 255))
        elif self.weather is Weather.FOG:
            for y in (0.30, 0.52, 0.74):
                self.band(y, y + 0.085, (232, 236, 240))
        elif self.weather in (Weather.RAIN, Weather.STORM):
            for x, y in _SPOTS:
                self._drop(x, y)
        if self.weather is Weather.STORM:
            for x in (0.08, 0.28, 0.62, 0.86):
                self.disc(x, 0.04, 0.17, (46, 46, 66), 0.085)
            bolt = [(0.13, 0.10), (0.20, 0.10), (0.165, 0.24), (0.215, 0.24),
                    (0.10, 0.46), (0.135, 0.29), (0.085, 0.29)]  # fmt: skip
            self.shape(bolt, (255, 240, 110))

    def _drop(self, x: float, y: float) -> None:
        unit = min(self.width, self.height)
        px, py = x * self.width, y * self.height
        tip = (px - 0.028 * unit, py + 0.085 * unit)
        self.pen.draw.line([(px, py), tip], fill=(166, 214, 250), width=round(0.016 * unit))

    def _light(self, color: Color) -> Color:
        if not self._lit:
            return color
        return _LIGHTS[self.daytime](_SKIES[self.weather](color))

    def _x(self, x: float) -> float:
        return 1 - x if self.mirrored else x

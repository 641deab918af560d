"""More places, painted like those of `demo_model.scenes`."""

from __future__ import annotations

from demo_model.pen import Color, shade
from demo_model.stage import Stage

_STONE: Color = (150, 146, 164)
_STONE_DARK: Color = (108, 104, 128)


def castle(stage: Stage) -> None:
    """Towers with pointed roofs and a gate."""
    stage.band(0, 1, (150, 176, 224))
    stage.band(0.80, 1, (110, 150, 96))
    stage.box(0.22, 0.34, 0.78, 0.84, _STONE)
    for left in (0.24, 0.38, 0.52, 0.66):
        stage.box(left, 0.28, left + 0.09, 0.36, _STONE)
    for left, top in ((0.02, 0.24), (0.76, 0.24)):
        stage.box(left, top, left + 0.22, 0.84, _STONE_DARK)
        peak = [(left - 0.02, top), (left + 0.11, top - 0.20), (left + 0.24, top)]
        stage.shape(peak, (156, 58, 84))
        stage.box(left + 0.075, top + 0.10, left + 0.145, top + 0.22, (250, 214, 110))
        stage.box(left + 0.075, top + 0.34, left + 0.145, top + 0.46, (250, 214, 110))
    stage.band(0.84, 1, (132, 120, 110))


def library(stage: Stage) -> None:
    """Shelves full of books."""
    stage.band(0, 1, (112, 70, 48))
    colors = ((206, 70, 66), (64, 120, 190), (226, 184, 84), (84, 150, 104), (150, 96, 170))
    for row, top in enumerate((0.05, 0.28, 0.51)):
        stage.band(top, top + 0.20, (74, 44, 34))
        for number in range(12):
            left = 0.01 + number / 12
            height = 0.15 + 0.03 * ((number + row) % 2)
            color = colors[(number * 3 + row * 2) % 5]
            stage.box(left, top + 0.20 - height, left + 0.066, top + 0.20, color)
        stage.band(top + 0.20, top + 0.23, (150, 100, 66))
    stage.band(0.78, 1, (160, 66, 70))
    stage.band(0.78, 0.81, (222, 180, 110))


def kitchen(stage: Stage) -> None:
    """Cupboards, tiles and a stove."""
    stage.band(0, 1, (232, 244, 244))
    for number in range(1, 8):
        stage.box(number / 8 - 0.004, 0.30, number / 8 + 0.004, 0.56, (196, 218, 222))
    stage.band(0.42, 0.43, (196, 218, 222))
    for left in (0.02, 0.70):
        stage.box(left, 0.04, left + 0.28, 0.28, (96, 176, 170))
        stage.box(left + 0.135, 0.06, left + 0.145, 0.26, (66, 138, 134))
    stage.band(0.56, 0.60, (244, 226, 190))
    stage.band(0.60, 0.84, (96, 176, 170))
    stage.box(0.72, 0.60, 0.97, 0.84, (226, 228, 234))
    stage.box(0.76, 0.66, 0.93, 0.80, (66, 70, 88))
    stage.box(0.76, 0.47, 0.90, 0.56, (214, 76, 70))
    stage.band(0.84, 1, (230, 196, 150))


def cafe(stage: Stage) -> None:
    """A warm counter under lamps, with a window."""
    stage.band(0, 1, (150, 98, 72))
    stage.box(0.03, 0.14, 0.36, 0.52, (250, 238, 214))
    stage.box(0.055, 0.17, 0.335, 0.49, (176, 222, 240))
    stage.box(0.64, 0.16, 0.97, 0.46, (52, 48, 52))
    for y in (0.22, 0.29, 0.36):
        stage.box(0.69, y, 0.92, y + 0.026, (236, 232, 220))
    for x in (0.14, 0.50, 0.86):
        stage.box(x - 0.008, 0, x + 0.008, 0.06, (56, 40, 36))
        stage.disc(x, 0.085, 0.06, (255, 214, 112), 0.045)
    stage.band(0.58, 0.62, (236, 206, 160))
    stage.band(0.62, 0.85, (110, 64, 48))
    stage.band(0.85, 1, (206, 170, 130))


def street(stage: Stage) -> None:
    """Coloured houses, pavement and road by day."""
    stage.band(0, 1, (150, 214, 246))
    houses = (
        (0.0, 0.26, 0.24, (238, 150, 110)),
        (0.26, 0.50, 0.34, (246, 216, 130)),
        (0.50, 0.74, 0.20, (150, 196, 160)),
        (0.74, 1.0, 0.30, (214, 140, 160)),
    )
    for left, right, top, color in houses:
        stage.box(left, top, right, 0.78, color)
        stage.box(left, top - 0.04, right, top + 0.02, shade(color, 0.7))
        for x in (left + 0.05, right - 0.13):
            for y in (top + 0.08, top + 0.25):
                stage.box(x, y, x + 0.08, y + 0.10, (250, 250, 240))
    stage.band(0.76, 0.86, (206, 204, 200))
    stage.band(0.86, 1, (92, 94, 104))
    for left in (0.02, 0.36, 0.70):
        stage.box(left, 0.925, left + 0.20, 0.945, (250, 244, 214))


def meadow(stage: Stage) -> None:
    """Hills, grass and flowers."""
    stage.band(0, 1, (140, 212, 250))
    stage.disc(0.20, 0.15, 0.11, (255, 255, 255), 0.05)
    stage.disc(0.30, 0.17, 0.09, (255, 255, 255), 0.04)
    stage.disc(0.86, 0.12, 0.09, (255, 228, 96))
    stage.disc(0.24, 0.72, 0.52, (150, 210, 106), 0.20)
    stage.disc(0.82, 0.74, 0.50, (126, 194, 92), 0.20)
    stage.band(0.72, 1, (104, 180, 78))
    flowers = ((0.06, 0.80), (0.18, 0.90), (0.30, 0.78), (0.70, 0.79), (0.82, 0.91), (0.94, 0.81))
    for index, (x, y) in enumerate(flowers):
        stage.disc(x, y, 0.032, ((250, 110, 150), (255, 255, 255), (170, 110, 230))[index % 3])
        stage.disc(x, y, 0.013, (255, 214, 70))


def mountains(stage: Stage) -> None:
    """Grey peaks with snow on top."""
    stage.band(0, 1, (176, 216, 244))
    peaks = (((0.02, 0.78), (0.26, 0.16), (0.54, 0.78)), ((0.44, 0.78), (0.76, 0.10), (1.06, 0.78)))
    for (x0, y0), (x1, y1), (x2, y2) in peaks:
        stage.shape([(x0, y0), (x1, y1), (x2, y2)], (110, 118, 146))
        stage.shape([(x1, y1), (x2, y2), (x1 + 0.06, y2)], (84, 92, 122))
        part = 0.30
        left = (x1 + (x0 - x1) * part, y1 + (y0 - y1) * part)
        right = (x1 + (x2 - x1) * part, y1 + (y2 - y1) * part)
        stage.shape([left, (x1, y1), right, (x1 + 0.02, left[1] - 0.05)], (250, 252, 255))
    stage.band(0.76, 1, (120, 154, 96))
    stage.band(0.88, 1, (100, 130, 84))


def underwater(stage: Stage) -> None:
    """Blue water with bubbles, fish, weed and sand."""
    stage.band(0, 1, (38, 140, 200))
    stage.band(0, 0.22, (66, 172, 222))
    for x, y, r in (
        (0.10, 0.20, 0.03),
        (0.16, 0.10, 0.02),
        (0.90, 0.46, 0.032),
        (0.86, 0.58, 0.02),
    ):
        stage.disc(x, y, r, (190, 234, 250))
    for x, y, color in ((0.14, 0.40, (255, 150, 60)), (0.84, 0.22, (255, 216, 80))):
        stage.disc(x, y, 0.072, color, 0.042)
        stage.shape([(x + 0.05, y), (x + 0.11, y - 0.045), (x + 0.11, y + 0.045)], color)
    stage.disc(0.5, 1.0, 0.9, (232, 208, 150), 0.17)
    stage.band(0.90, 1, (232, 208, 150))
    for x, top in ((0.06, 0.60), (0.13, 0.68), (0.94, 0.64), (0.88, 0.74)):
        stage.box(x - 0.02, top, x + 0.02, 0.92, (40, 150, 100))
    stage.disc(0.22, 0.90, 0.07, (240, 110, 130), 0.06)


def cave(stage: Stage) -> None:
    """Dark rock with points from above and crystals."""
    stage.band(0, 1, (58, 48, 66))
    stage.disc(0.5, 0.52, 0.50, (92, 78, 96), 0.44)
    stage.disc(0.5, 0.56, 0.34, (122, 104, 118), 0.32)
    for x, low in ((0.06, 0.30), (0.20, 0.20), (0.80, 0.22), (0.94, 0.34)):
        stage.shape([(x - 0.075, 0), (x + 0.075, 0), (x, low)], (40, 32, 48))
    stage.band(0.84, 1, (76, 62, 76))
    for x, color in ((0.10, (90, 220, 240)), (0.90, (210, 120, 250))):
        stage.shape([(x - 0.06, 0.86), (x - 0.015, 0.66), (x + 0.03, 0.86)], color)
        stage.shape([(x, 0.86), (x + 0.05, 0.73), (x + 0.085, 0.86)], shade(color, 0.75))


def clouds(stage: Stage) -> None:
    """High above the clouds."""
    stage.band(0, 1, (110, 186, 248))
    stage.disc(0.84, 0.13, 0.10, (255, 232, 110))
    for x, y, r in ((0.12, 0.26, 0.11), (0.22, 0.29, 0.09), (0.90, 0.46, 0.10), (0.80, 0.48, 0.08)):
        stage.disc(x, y, r, (255, 255, 255), 0.5 * r)
    for x, y, r in ((0.05, 0.94, 0.24), (0.32, 0.98, 0.26), (0.62, 0.95, 0.24), (0.92, 0.96, 0.27)):
        stage.disc(x, y, r, (255, 255, 255), 0.5 * r)
    stage.band(0.94, 1, (236, 244, 252))


def stage(stage: Stage) -> None:
    """A theatre's stage: curtains and two spotlights."""
    stage.band(0, 1, (44, 26, 58))
    for x, low in ((0.22, 0.10), (0.78, 0.90)):
        middle = 0.5 + (0.5 - low) * 0.15
        beam = [(x - 0.03, 0.0), (x + 0.03, 0.0), (middle + 0.30, 0.86), (middle - 0.30, 0.86)]
        stage.shape(beam, (104, 82, 112))
    for left in (0.0, 0.84):
        stage.box(left, 0, left + 0.16, 0.84, (176, 34, 52))
        for fold in (0.035, 0.105):
            stage.box(left + fold, 0, left + fold + 0.022, 0.84, (128, 20, 42))
    stage.band(0, 0.07, (148, 26, 46))
    stage.band(0.82, 1, (178, 122, 72))
    stage.disc(0.5, 0.92, 0.42, (236, 200, 140), 0.06)

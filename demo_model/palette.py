"""The colours of the demo world, chosen to stay distinct after the autoencoder."""

from __future__ import annotations

from demo_model.characters import EyeColor, HairColor, OutfitColor, Skin
from demo_model.pen import Color

HAIR_COLORS: dict[HairColor, Color] = {
    HairColor.BLACK: (58, 50, 66),
    HairColor.WHITE: (240, 240, 244),
    HairColor.BLOND: (250, 212, 96),
    HairColor.ORANGE: (228, 104, 40),
    HairColor.PINK: (250, 138, 188),
    HairColor.BLUE: (62, 134, 232),
    HairColor.BROWN: (132, 84, 52),
    HairColor.GREEN: (96, 186, 96),
    HairColor.PURPLE: (150, 96, 206),
}
SKINS: dict[Skin, Color] = {
    Skin.LIGHT: (255, 222, 196),
    Skin.TAN: (226, 172, 126),
    Skin.DARK: (146, 94, 66),
}
EYE_COLORS: dict[EyeColor, Color] = {
    EyeColor.BLUE: (48, 128, 236),
    EyeColor.GREEN: (46, 168, 84),
    EyeColor.BROWN: (134, 78, 40),
    EyeColor.VIOLET: (150, 70, 206),
}
OUTFIT_COLORS: dict[OutfitColor, Color] = {
    OutfitColor.RED: (222, 48, 56),
    OutfitColor.BLUE: (44, 92, 214),
    OutfitColor.GREEN: (44, 156, 82),
    OutfitColor.YELLOW: (250, 200, 46),
    OutfitColor.PURPLE: (138, 70, 190),
    OutfitColor.WHITE: (244, 244, 248),
    OutfitColor.BLACK: (62, 58, 74),
    OutfitColor.ORANGE: (246, 136, 44),
    OutfitColor.PINK: (248, 132, 182),
}
WHITE: Color = (255, 255, 255)
ANDROID_FACE: Color = (214, 226, 240)
GLOW: Color = (60, 226, 236)
METAL: Color = (178, 188, 204)
METAL_DARK: Color = (112, 122, 142)
SCREEN: Color = (34, 38, 58)
TROUSERS: Color = (66, 74, 110)
SHOES: Color = (104, 66, 50)
SCARF: Color = (250, 120, 60)
BOW: Color = (20, 176, 164)
BLUSH: Color = (250, 156, 150)
EAR_INSIDE: Color = (252, 178, 190)
MOUTH: Color = (150, 48, 62)
WOOD: Color = (140, 92, 54)
STEEL: Color = (214, 222, 232)
GOLD: Color = (252, 206, 70)
PETAL: Color = (255, 120, 170)
CAPE: Color = (190, 36, 60)
HEADPHONES: Color = (40, 44, 58)
TEAR: Color = (96, 186, 250)
HORN: Color = (250, 232, 190)
NOSE: Color = (52, 40, 52)

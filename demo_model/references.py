"""Four held-out characters as reference pictures, for a first try of the demo model."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from demo_model.characters import (
    Accessory,
    CharacterSpec,
    EyeColor,
    HairColor,
    HairStyle,
    Outfit,
    OutfitColor,
    Skin,
    Species,
)
from demo_model.draw import draw_reference

REFERENCE_PX = 768

# Chosen for variety among the characters that training never sees (tests check that).
REFERENCES: dict[str, CharacterSpec] = {
    "mira": CharacterSpec(
        Species.HUMAN, HairColor.PINK, HairStyle.BUNS, Skin.TAN,
        EyeColor.BLUE, Outfit.DRESS, OutfitColor.YELLOW, Accessory.BOW,
    ),
    "rusty": CharacterSpec(
        Species.ROBOT, HairColor.ORANGE, HairStyle.SHORT, Skin.LIGHT,
        EyeColor.BLUE, Outfit.ARMOUR, OutfitColor.PURPLE, Accessory.NONE,
    ),
    "pim": CharacterSpec(
        Species.CAT, HairColor.BLACK, HairStyle.SHORT, Skin.LIGHT,
        EyeColor.GREEN, Outfit.HOODIE, OutfitColor.RED, Accessory.NONE,
    ),
    "nova": CharacterSpec(
        Species.RABBIT, HairColor.WHITE, HairStyle.SHORT, Skin.LIGHT,
        EyeColor.GREEN, Outfit.COAT, OutfitColor.BLUE, Accessory.NONE,
    ),
}  # fmt: skip


def write_references(folder: Path) -> list[Path]:
    """Writes one PNG for each character and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, spec in REFERENCES.items():
        path = folder / f"{name}.png"
        image = draw_reference(spec, REFERENCE_PX).quantize(128, dither=Image.Dither.NONE)
        image.save(path, optimize=True)
        paths.append(path)
    return paths


if __name__ == "__main__":
    target = Path(__file__).resolve().parents[1] / "castmate/bundles/toon/references"
    for written in write_references(target):
        print(written)

"""Demo characters: a handful of clearly visible attributes, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Species(StrEnum):
    """The body and face of a character."""

    HUMAN = "human"
    ANDROID = "android"
    ROBOT = "robot"
    CAT = "cat"
    RABBIT = "rabbit"
    DOG = "dog"
    BEAR = "bear"
    FOX = "fox"
    FROG = "frog"
    DRAGON = "dragon"


class HairColor(StrEnum):
    """Colour of the hair, the fur or (robots) the head's shell."""

    BLACK = "black"
    WHITE = "white"
    BLOND = "blond"
    ORANGE = "orange"
    PINK = "pink"
    BLUE = "blue"
    BROWN = "brown"
    GREEN = "green"
    PURPLE = "purple"


class HairStyle(StrEnum):
    """Hair cut; visible on humans and androids only."""

    SHORT = "short"
    LONG = "long"
    SPIKY = "spiky"
    BUNS = "buns"
    CURLY = "curly"


class Skin(StrEnum):
    """Skin tone; visible on humans only."""

    LIGHT = "light"
    TAN = "tan"
    DARK = "dark"


class EyeColor(StrEnum):
    """Colour of the iris, or of a robot's lamps."""

    BLUE = "blue"
    GREEN = "green"
    BROWN = "brown"
    VIOLET = "violet"


class Outfit(StrEnum):
    """Kind of clothes."""

    COAT = "coat"
    DRESS = "dress"
    ARMOUR = "armour"
    HOODIE = "hoodie"
    ROBE = "robe"
    SHIRT = "shirt"
    OVERALLS = "overalls"
    SUIT = "suit"


class OutfitColor(StrEnum):
    """Main colour of the clothes."""

    RED = "red"
    BLUE = "blue"
    GREEN = "green"
    YELLOW = "yellow"
    PURPLE = "purple"
    WHITE = "white"
    BLACK = "black"
    ORANGE = "orange"
    PINK = "pink"


class Accessory(StrEnum):
    """One extra thing worn."""

    NONE = "none"
    GLASSES = "glasses"
    SCARF = "scarf"
    BOW = "bow"
    CROWN = "crown"
    HEADPHONES = "headphones"
    CAPE = "cape"
    FLOWER = "flower"


@dataclass(frozen=True)
class CharacterSpec:
    """Everything that makes one character recognisable."""

    species: Species
    hair_color: HairColor
    hair_style: HairStyle
    skin: Skin
    eye_color: EyeColor
    outfit: Outfit
    outfit_color: OutfitColor
    accessory: Accessory

    @property
    def has_hair(self) -> bool:
        """Whether the hair style can be seen."""
        return self.species in (Species.HUMAN, Species.ANDROID)

    @property
    def look(self) -> tuple[str, ...]:
        """What a picture shows: two specs with the same look are the same character."""
        hidden = "-"
        return (
            self.species,
            self.hair_color,
            self.hair_style if self.has_hair else hidden,
            self.skin if self.species is Species.HUMAN else hidden,
            self.eye_color,
            self.outfit,
            self.outfit_color,
            self.accessory,
        )

    @property
    def is_held_out(self) -> bool:
        """Whether the character is held out from training: a fixed eighth of all looks."""
        return random.Random("/".join(self.look)).random() < 0.125


_SPECIES_WEIGHTS = (3.0, *[2.0] * (len(Species) - 1))
_ACCESSORY_WEIGHTS = (3.0, *[1.0] * (len(Accessory) - 1))


def random_character(rng: random.Random, *, held_out: bool) -> CharacterSpec:
    """Draws one character from the training set or from the held-out set."""
    while True:
        spec = CharacterSpec(
            species=rng.choices(list(Species), weights=_SPECIES_WEIGHTS)[0],
            hair_color=rng.choice(list(HairColor)),
            hair_style=rng.choice(list(HairStyle)),
            skin=rng.choice(list(Skin)),
            eye_color=rng.choice(list(EyeColor)),
            outfit=rng.choice(list(Outfit)),
            outfit_color=rng.choice(list(OutfitColor)),
            accessory=rng.choices(list(Accessory), weights=_ACCESSORY_WEIGHTS)[0],
        )
        if spec.is_held_out == held_out:
            return spec


def training_characters(count: int, seed: int = 0) -> list[CharacterSpec]:
    """The first `count` distinct training characters; a longer list starts with a shorter one."""
    return _distinct(count, seed, held_out=False)


def held_out_characters(count: int, seed: int = 1) -> list[CharacterSpec]:
    """The first `count` distinct held-out characters."""
    return _distinct(count, seed, held_out=True)


def _distinct(count: int, seed: int, *, held_out: bool) -> list[CharacterSpec]:
    rng = random.Random(seed)
    found: dict[tuple[str, ...], CharacterSpec] = {}
    while len(found) < count:
        spec = random_character(rng, held_out=held_out)
        found.setdefault(spec.look, spec)
    return list(found.values())

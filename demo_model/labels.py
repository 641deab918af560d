"""The attributes of a picture as class numbers, which judge and pre-training predict."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch
from torch import Tensor

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
from demo_model.draw import Camera, PictureSpec, Style
from demo_model.faces import Emotion
from demo_model.poses import Pose
from demo_model.props import Prop
from demo_model.scenes import Scene
from demo_model.stage import Daytime, Weather

IGNORED = -100
CHARACTER_CLASSES: dict[str, type[StrEnum]] = {
    "species": Species,
    "hair_color": HairColor,
    "outfit": Outfit,
    "outfit_color": OutfitColor,
    "eye_color": EyeColor,
    "accessory": Accessory,
    "hair_style": HairStyle,
    "skin": Skin,
}
PICTURE_CLASSES: dict[str, type[StrEnum]] = {
    "pose": Pose,
    "scene": Scene,
    "prop": Prop,
    "emotion": Emotion,
    "weather": Weather,
    "daytime": Daytime,
    "camera": Camera,
    "style": Style,
}
FLAGS = ("trees", "hazard")
NUM_CLASSES: dict[str, int] = {
    **{name: len(enum) for name, enum in CHARACTER_CLASSES.items()},
    **{name: len(enum) for name, enum in PICTURE_CLASSES.items()},
    **dict.fromkeys(FLAGS, 2),
}


def character_labels(spec: CharacterSpec) -> dict[str, int]:
    """Class numbers of a character; invisible attributes are `IGNORED`."""
    labels = {
        name: list(enum).index(getattr(spec, name)) for name, enum in CHARACTER_CLASSES.items()
    }
    if not spec.has_hair:
        labels["hair_style"] = IGNORED
    if spec.species is not Species.HUMAN:
        labels["skin"] = IGNORED
    return labels


def picture_labels(picture: PictureSpec) -> dict[str, int]:
    """Class numbers of everything in a picture; what it does not show is `IGNORED`."""
    shown = {
        **{name: getattr(picture, name) for name in PICTURE_CLASSES if name != "prop"},
        "prop": picture.held.prop,
    }
    labels = {
        **character_labels(picture.character),
        **{name: list(enum).index(shown[name]) for name, enum in PICTURE_CLASSES.items()},
        "trees": int(picture.trees),
        "hazard": int(picture.hazard),
    }
    hidden: tuple[str, ...] = ()
    if picture.camera is Camera.BEHIND:
        hidden = ("emotion", "eye_color", "outfit", "accessory", "hair_style", "skin")
    elif picture.camera is Camera.CLOSE:
        hidden = ("pose", "outfit", "weather")
    if picture.pose is Pose.SLEEPING:
        hidden += ("eye_color",)
    if picture.style is Style.SKETCH:
        hidden += ("hair_color", "outfit_color", "eye_color", "skin", "daytime")
    if picture.emotion is Emotion.LAUGHING:
        hidden += ("eye_color",)
    return labels | dict.fromkeys(hidden, IGNORED)


def stack_labels(rows: Sequence[dict[str, int]]) -> dict[str, Tensor]:
    """One tensor for each attribute."""
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}

"""Recipes: common series, with their scenes and how to draw them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class RecipeName(StrEnum):
    """What `castmate sheet` knows by name."""

    EXPRESSIONS = "expressions"
    POSES = "poses"
    TURNAROUND = "turnaround"
    STICKERS = "stickers"
    SPRITES = "sprites"
    AVATAR = "avatar"


@dataclass(frozen=True)
class Recipe:
    """A series without its character.

    Attributes:
        about: What it draws, in a few words.
        scenes: As in `castmate.storyboard.Series`.
        style_words: Likewise.
        size: Of each picture.
        transparent: Whether the background is transparent.
    """

    about: str
    scenes: tuple[str, ...]
    style_words: str = ""
    size: str = "768*1024"
    transparent: bool = False

    def values(self) -> dict[str, Any]:
        """The fields of a series that it sets; the caller sets the rest."""
        return {
            "scenes": list(self.scenes),
            "style_words": self.style_words,
            "size": self.size,
            "layout": "sheet",
            "background": "transparent" if self.transparent else "scene",
        }


RECIPES: Final[dict[RecipeName, Recipe]] = {
    RecipeName.EXPRESSIONS: Recipe(
        "six faces",
        ("smiling", "laughing", "sad", "angry", "surprised", "sleepy"),
        "close-up of the face, looking at the camera",
        "768*768",
    ),
    RecipeName.POSES: Recipe(
        "six things to do",
        ("standing", "waving", "walking", "running", "jumping", "sitting"),
        "full body",
    ),
    RecipeName.TURNAROUND: Recipe(
        "four sides",
        ("front view", "three-quarter view", "side view", "back view"),
        "full body, standing, neutral pose",
    ),
    RecipeName.STICKERS: Recipe(
        "six stickers without background",
        ("waving", "cheering", "laughing", "sad", "surprised", "sleepy"),
        "sticker, simple flat colours",
        "512*512",
        transparent=True,
    ),
    RecipeName.SPRITES: Recipe(
        "six poses in a grid without background or captions",
        ("standing", "walking", "running", "jumping", "sitting", "waving"),
        "full body, game sprite",
        "512*512",
        transparent=True,
    ),
    RecipeName.AVATAR: Recipe(
        "one portrait without background",
        ("portrait, looking at the camera",),
        "close-up, head and shoulders, friendly",
        "512*512",
        transparent=True,
    ),
}

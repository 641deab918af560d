"""Series that are drawn often: what the scenes are, and what they are drawn like."""

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
        about: What comes of it, in a few words.
        scenes: As `castmate.storyboard.Series` has them.
        style_words: The same.
        size: Of each picture.
        transparent: Whether the character stands alone.
    """

    about: str
    scenes: tuple[str, ...]
    style_words: str = ""
    size: str = "768*1024"
    transparent: bool = False

    def values(self) -> dict[str, Any]:
        """What it sets of a series; the rest is the caller's."""
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

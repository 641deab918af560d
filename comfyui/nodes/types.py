"""What runs along the links between our nodes."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

ServerLink = io.Custom("CASTMATE_SERVER")
CharacterLink = io.Custom("CASTMATE_CHARACTER")


@dataclass(frozen=True)
class Subject:
    """Who is drawn.

    Attributes:
        image: The id of a saved character, with the number of its picture.
        url: Of the server that has it.
    """

    image: str
    url: str

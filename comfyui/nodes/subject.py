"""Who is drawn: the links by which a node gets a character, or a picture of one."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..client.drawing import Reference
from ..client.errors import CastmateError
from .pictures import masks_for, to_png
from .types import CharacterLink, ServerLink, Subject


def links() -> list[io.Input]:
    """The inputs that `find` takes."""
    return [
        CharacterLink.Input(
            "character", optional=True, tooltip="A saved character; or connect `image`."
        ),
        io.Image.Input(
            "image",
            optional=True,
            tooltip="A picture of the character: one character, whole, on a plain background works "
            "best. Or connect `character`.",
        ),
        io.Mask.Input(
            "mask", optional=True, tooltip="What is not the character in `image`: it is cut off."
        ),
        ServerLink.Input("server", optional=True, tooltip="By default the one of this machine."),
    ]


def find(
    character: Subject | None, image: torch.Tensor | None, mask: Any, server: str | None
) -> tuple[Reference, str | None]:
    """The reference, and the address of the server that draws.

    Raises:
        CastmateError: Nothing is connected, or too much.
    """
    if (character is None) == (image is None):
        raise CastmateError("Connect either `character` or `image`, one of them.")
    if character is not None:
        if server not in (None, character.url):
            raise CastmateError(
                f"The character is saved at {character.url}, and `server` is {server}. Connect the "
                "same Castmate Server to both nodes."
            )
        return Reference(character.image), character.url
    assert image is not None
    if image.shape[0] != 1:
        raise CastmateError(
            f"`image` has {image.shape[0]} pictures, and a character is drawn from one. Save them "
            "with a Castmate Character node, or take one with ImageFromBatch."
        )
    return Reference(to_png(image[0], masks_for(image, mask)[0])), server

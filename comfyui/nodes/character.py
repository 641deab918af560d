"""*Castmate Character* saves one, *Castmate Saved Character* chooses one that is saved."""

from __future__ import annotations

import re
from typing import Any

import torch
from comfy_api.latest import io

from ..client.address import normal
from ..client.api import Api
from ..client.description import current
from ..client.errors import CastmateError
from .pictures import masks_for, to_png
from .types import CharacterLink, ServerLink, Subject

MAX_PICTURES = 8
_ID = re.compile(r"chr_[0-9a-f]{16}")


def _number() -> io.Input:
    return io.Int.Input(
        "picture",
        default=0,
        min=0,
        max=MAX_PICTURES,
        optional=True,
        tooltip="Which of its pictures is drawn from, from 1; 0 uses the first four together.",
    )


class Character(io.ComfyNode):
    """Saves a character at the server, once: the same name and pictures are the same one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See ComfyUI."""
        more = [
            io.Image.Input(f"images_{number}", optional=True, tooltip="More, of another size.")
            for number in (2, 3, 4)
        ]
        return io.Schema(
            node_id="CastmateCharacter",
            display_name="Castmate Character",
            category="castmate",
            description="Saves a character with up to 8 pictures. It is free, and lasts.",
            inputs=[
                io.Image.Input("images", tooltip="One or more of its pictures, the best first."),
                io.String.Input("name", default="Mira", tooltip="What you call it, on one line."),
                _number(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What is not the character in `images`: it is cut off.",
                ),
                *more,
                ServerLink.Input("server", optional=True),
            ],
            outputs=[
                CharacterLink.Output("character"),
                io.String.Output("id", tooltip="For Castmate Saved Character, and for agents."),
            ],
        )

    @classmethod
    async def execute(
        cls,
        images: torch.Tensor,
        name: str,
        picture: int = 0,
        mask: torch.Tensor | None = None,
        server: str | None = None,
        **more: torch.Tensor | None,
    ) -> io.NodeOutput:
        """See ComfyUI."""
        files = [to_png(*pair) for pair in zip(images, masks_for(images, mask))]
        files += [
            to_png(image)
            for _, batch in sorted(more.items())
            if batch is not None
            for image in batch
        ]
        if len(files) > MAX_PICTURES:
            raise CastmateError(
                f"A character has at most {MAX_PICTURES} pictures, and these are {len(files)}."
            )
        async with Api.open(server) as api:
            references = [await api.upload(file) for file in files]
            saved = await api.create_character(name, references)
            return _chosen(saved["id"], saved["num_pictures"], picture, api.url)


class SavedCharacter(io.ComfyNode):
    """Chooses a character that is saved, by these nodes or by an agent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See ComfyUI."""
        return io.Schema(
            node_id="CastmateSavedCharacter",
            display_name="Castmate Saved Character",
            category="castmate",
            description="A character that is saved at the server. Press R to read the list again.",
            inputs=[
                io.Combo.Input(
                    "saved",
                    options=current.characters or ["none is saved yet"],
                    tooltip="Its name and id; a workflow may hold the id alone.",
                ),
                _number(),
                ServerLink.Input("server", optional=True),
            ],
            outputs=[CharacterLink.Output("character"), io.String.Output("id")],
        )

    @classmethod
    def validate_inputs(cls, saved: str | None = None) -> bool | str:
        """See ComfyUI; the list may be older than the workflow, so it decides nothing."""
        if saved is None or _ID.search(saved):
            return True
        return f"{saved!r} has no id such as chr_0123456789abcdef; choose a character of the list"

    @classmethod
    async def execute(
        cls, saved: str, picture: int = 0, server: str | None = None
    ) -> io.NodeOutput:
        """See ComfyUI."""
        found = _ID.search(saved)
        async with Api.open(server) as api:
            known: dict[str, Any] = {one["id"]: one for one in await api.characters()}
            if found is None or found[0] not in known:
                names = ", ".join(one["name"] for one in known.values()) or "none"
                raise CastmateError(
                    f"{saved!r} is not saved at {api.url}. Saved there: {names}. Save it with a "
                    "Castmate Character node, or choose another."
                )
            return _chosen(found[0], known[found[0]]["num_pictures"], picture, api.url)


def _chosen(character_id: str, count: int, picture: int, url: str) -> io.NodeOutput:
    if picture > count:
        raise CastmateError(f"`picture` is {picture}, and the character has {count}.")
    named = f"{character_id}/{picture}" if picture else character_id
    return io.NodeOutput(Subject(named, normal(url)), character_id)

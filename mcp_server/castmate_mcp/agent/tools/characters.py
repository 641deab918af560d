"""create_character: turns a name and pictures into a permanent id, encoded once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, ResourceLink, ToolAnnotations
from pydantic import BaseModel, Field

from castmate.errors import CastmateError, ImageRejected, InvalidRequest, Problem
from castmate.images import Reference
from castmate.jobs.characters import MAX_NAME, MAX_PICTURES, one_line
from castmate.several import MAX_TOGETHER, together
from castmate_mcp.agent.results import tool_result
from castmate_mcp.agent.sources import reference_of
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.http.ids import CharacterName


class CharacterOut(BaseModel):
    """A saved character."""

    character_id: str
    character_uri: str
    name: str
    num_references: int
    created: bool  # False: it was saved before.
    cost_usd: float = 0.0
    next_step: str


def add(server: StrictServer, studio: Studio) -> None:
    """Add the tool.

    Args:
        server: To which one.
        studio: What it works with.
    """

    @server.tool(
        title="Save a character",
        annotations=ToolAnnotations(
            read_only_hint=False,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
    )
    async def create_character(
        ctx: Context[Any, Any],
        name: Annotated[
            str,
            Field(
                max_length=MAX_NAME, description="What the user calls it, such as Mira; one line."
            ),
        ],
        references: Annotated[
            list[str],
            Field(
                min_length=1,
                max_length=MAX_PICTURES,
                description="Its pictures, each as `image` of generate_character_image, the best "
                "first.",
            ),
        ],
    ) -> Annotated[CallToolResult, CharacterOut]:
        """Save a character for every later session.

        Use it when the user will want it again. Not needed for a single picture. It is free; the
        same name and pictures give the same one. Returns character_id; it or the name is then the
        `image`: up to 4 pictures together (character_id/2: its second alone).
        """
        name = one_line(name)
        used: list[Reference] = []

        async def read() -> AsyncIterator[Reference]:
            for number, source in enumerate(references):
                picture = await _reference(studio, ctx, f"references.{number}", source)
                used.extend(picture.pictures[: MAX_TOGETHER - len(used)])
                yield picture

        saved = studio.castmate.characters
        character = await saved.create(name, read(), key_name=studio.caller)
        studio.begin(_encode(studio, together(used)))
        out = CharacterOut(
            character_id=character.id,
            character_uri=CharacterName(character.id).uri,
            name=character.name,
            num_references=len(character.pictures),
            created=not character.known,
            next_step=_next_step(character.id, len(character.pictures)),
        )
        result = tool_result(out)
        result.content.append(
            ResourceLink(
                type="resource_link",
                name=character.name,
                uri=out.character_uri,
                mime_type="application/json",
            )
        )
        return result


def _next_step(character_id: str, count: int) -> str:
    advice = f"Call generate_character_image with image {character_id} and a prompt."
    if count > 1:
        which = f"the first {MAX_TOGETHER}" if count > MAX_TOGETHER else f"all {count}"
        advice += (
            f" It looks at {which} of its pictures together. {character_id}/1 draws from the first "
            "alone, which is better where that shows the whole character."
        )
    return advice


async def _reference(
    studio: Studio, ctx: Context[Any, Any], parameter: str, source: str
) -> Reference:
    try:
        return await reference_of(studio, ctx, source)
    except ImageRejected as error:
        problems = [Problem(parameter, p.message, p.allowed, p.hint) for p in error.problems]
        raise InvalidRequest(problems) from None


async def _encode(studio: Studio, reference: Reference) -> None:
    """Encode it, so that its first generation need not wait; that one reports any failure."""
    with contextlib.suppress(CastmateError):
        await studio.castmate.router.encode(reference)

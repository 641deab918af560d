"""list_library: the caller's pictures, characters and jobs, the newest first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final, Literal

from mcp.types import CallToolResult
from pydantic import BaseModel, Field

from castmate.jobs.predictions import Prediction, State
from castmate.times import iso8601
from castmate_mcp.agent.extensions import viewer
from castmate_mcp.agent.results import STATUS, told
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.agent.tools import READS
from castmate_mcp.http.ids import CharacterName, ImageName, job_id_of

_PAGE: Final = 100
_LOOKED_THROUGH: Final = 1000  # predictions, for a query

Kind = Literal["images", "characters", "jobs"]


class ItemOut(BaseModel):
    """A picture, a character or a job."""

    id: str
    uri: str
    about: str
    created: str
    status: str | None = None
    file_path: str | None = None


class LibraryOut(BaseModel):
    """What there is."""

    items: list[ItemOut]
    next_step: str


def add(server: StrictServer, studio: Studio) -> None:
    """Add the tool.

    Args:
        server: To which one.
        studio: What it works with.
    """

    @server.tool(
        title="List pictures, characters and jobs",
        meta=viewer.SHOWN,
        annotations=READS,
    )
    async def list_library(
        kind: Annotated[Kind, Field(description="What to list:")] = "images",
        query: Annotated[
            str,
            Field(max_length=200, description="Part of the prompt or name, such as beach."),
        ] = "",
        limit: Annotated[int, Field(ge=1, le=100, description="How many, at most:")] = 20,
    ) -> Annotated[CallToolResult, LibraryOut]:
        """List finished pictures, saved characters, or jobs, the newest first.

        Use it to find an id. Not for seeing a picture: view_image does that. It is free.
        Returns id, prompt or name, and date of each.
        """
        items = [item async for item in _items(studio, kind, query.casefold(), limit)]
        return told(LibraryOut(items=items, next_step=_NEXT[kind] if items else _NOTHING))


_NOTHING: Final = "There is none. generate_character_image draws pictures; create_character saves."
_NEXT: Final[dict[Kind, str]] = {
    "images": "view_image shows one; its id as `image` draws the character again.",
    "characters": "Call generate_character_image with an id as `image`.",
    "jobs": "get_job gives the pictures of a job.",
}


async def _items(studio: Studio, kind: Kind, query: str, limit: int) -> AsyncIterator[ItemOut]:
    if kind == "characters":
        for character in await studio.castmate.characters.list(studio.caller):
            if limit and query in character.name.casefold():
                limit -= 1
                yield ItemOut(
                    id=character.id,
                    uri=CharacterName(character.id).uri,
                    about=character.name,
                    created=iso8601(character.created),
                )
        return
    async for prediction in predictions(studio, State.COMPLETED if kind == "images" else None):
        if query in prediction.request.prompt.casefold():
            for item in _of(studio, prediction, kind):
                yield item
                if not (limit := limit - 1):
                    return


async def predictions(studio: Studio, state: State | None) -> AsyncIterator[Prediction]:
    """The caller's, the newest first, as many as anybody looks through."""
    before = None
    for _ in range(_LOOKED_THROUGH // _PAGE):
        page = await studio.castmate.ledger.list(
            key_name=studio.caller, state=state, before=before, limit=_PAGE
        )
        for prediction in page:
            yield prediction
        if len(page) < _PAGE:
            return
        before = page[-1].id


def _of(studio: Studio, prediction: Prediction, kind: Kind) -> list[ItemOut]:
    about, created = prediction.request.prompt[:200], iso8601(prediction.created)
    if kind == "jobs":
        job_id = job_id_of(prediction.id)
        status = "waiting" if prediction.waits_for else STATUS[prediction.state]
        return [
            ItemOut(id=job_id, uri=f"job://{job_id}", about=about, created=created, status=status)
        ]
    names = [ImageName(prediction.id, n) for n in range(prediction.request.num_images)]
    images = prediction.result.images if prediction.result else ()
    return [
        ItemOut(
            id=str(name),
            uri=name.uri,
            about=about,
            created=created,
            file_path=studio.file_path(image),
        )
        for name, image in zip(names, images, strict=False)
    ]

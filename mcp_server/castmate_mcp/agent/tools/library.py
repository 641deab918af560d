"""list_library: the caller's pictures, characters and jobs, the newest first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Final, Literal

from mcp.types import CallToolResult
from pydantic import BaseModel, Field

from castmate.errors import InvalidRequest, Problem
from castmate.jobs.gallery import Found, Wanted
from castmate.jobs.predictions import Prediction, State
from castmate.jobs.scenes import Storyboard
from castmate.times import iso8601
from castmate_mcp.agent.extensions import viewer
from castmate_mcp.agent.results import STATUS, tool_result
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.agent.tools import READS
from castmate_mcp.http.ids import CharacterName, ImageName, job_id_of, prediction_id_of

_PAGE: Final = 100
_PAGE_BYTES: Final = 9_000  # a result says everything twice: below 20 kB, and every host's limit
_ABOUT: Final = 200  # characters of a prompt
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
    next_cursor: str | None = None
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
            Field(max_length=200, description="Word of the prompt or name, such as beach."),
        ] = "",
        limit: Annotated[int, Field(ge=1, le=100, description="How many, at most:")] = 20,
        cursor: Annotated[str, Field(description="next_cursor of the page before.")] = "",
    ) -> Annotated[CallToolResult, LibraryOut]:
        """List finished pictures, saved characters, or jobs, the newest first.

        Use it to find an id. Not for seeing a picture: view_image does that. It is free.
        Returns id, prompt or name, and date of each; next_cursor where there are more.
        """
        items: list[ItemOut] = []
        left, more = _PAGE_BYTES, False
        async for item in _items(studio, kind, query.casefold(), cursor.strip()):
            left -= len(item.model_dump_json(exclude_none=True).encode()) + 1
            if len(items) == limit or (items and left < 0):
                more = True
                break
            items.append(item)
        out = LibraryOut(items=items, next_step=_NEXT[kind] if items else _NOTHING)
        if more:
            out.next_cursor = items[-1].id
            out.next_step += " Call list_library with next_cursor as cursor for more."
        return tool_result(out)


_NOTHING: Final = "There is none. generate_character_image draws pictures; create_character saves."
_NEXT: Final[dict[Kind, str]] = {
    "images": "view_image shows one; its id as `image` draws the character again.",
    "characters": "Call generate_character_image with a name or id as `image`.",
    "jobs": "get_job gives the pictures of a job.",
}


async def _items(studio: Studio, kind: Kind, query: str, cursor: str) -> AsyncIterator[ItemOut]:
    """The items that match the query, newest first, after the cursor's item."""
    if kind == "characters":
        found = await studio.castmate.characters.list(studio.caller)
        ids = [character.id for character in found]
        for character in found[_behind(ids, cursor, kind) :]:
            if query in character.name.casefold():
                yield ItemOut(
                    id=character.id,
                    uri=CharacterName(character.id).uri,
                    about=character.name,
                    created=iso8601(character.created),
                )
    elif kind == "jobs":
        async for item in _jobs(studio, query, _id_of(cursor, prediction_id_of, kind)):
            yield item
    else:
        last = ImageName.parse(cursor) if cursor else None
        if cursor and last is None:
            raise _wrong_cursor(kind)
        behind = None if last is None else (last.prediction_id, last.number)
        wanted = Wanted(studio.caller, query)
        async for one in studio.castmate.gallery.find(wanted, behind):
            yield _picture(studio, one)


async def predictions(
    studio: Studio, state: State | None, before: str | None = None
) -> AsyncIterator[Prediction]:
    """The caller's predictions, newest first, up to the number that a query searches."""
    for _ in range(_LOOKED_THROUGH // _PAGE):
        page = await studio.castmate.ledger.list(
            key_name=studio.caller, state=state, before=before, limit=_PAGE
        )
        for prediction in page:
            yield prediction
        if len(page) < _PAGE:
            return
        before = page[-1].id


async def _jobs(studio: Studio, query: str, before: str | None) -> AsyncIterator[ItemOut]:
    """Predictions and series, by time of submission; predictions of scenes are not separate jobs.

    Series are few: as many as fit on a page are read at once.
    """
    series = await studio.castmate.storyboards.list(studio.caller, before=before, limit=_PAGE)
    scenes = {scene.prediction.id for one in series for scene in one.scenes}
    waiting = [*series]
    async for prediction in predictions(studio, None, before):
        while waiting and waiting[0].id > prediction.id:
            for item in _series(waiting.pop(0), query):
                yield item
        if prediction.id not in scenes and query in prediction.request.prompt.casefold():
            status = "waiting" if prediction.waits_for else STATUS[prediction.state]
            yield _job(prediction.id, prediction.request.prompt, prediction.created, status)
    for one in waiting:
        for item in _series(one, query):
            yield item


def _series(series: Storyboard, query: str) -> list[ItemOut]:
    about = " / ".join(series.request.scenes)
    if query not in about.casefold():
        return []
    return [_job(series.id, about, series.created, STATUS[series.state])]


def _job(name: str, about: str, created: float, status: str) -> ItemOut:
    job_id = job_id_of(name)
    return ItemOut(
        id=job_id,
        uri=f"job://{job_id}",
        about=about[:_ABOUT],
        created=iso8601(created),
        status=status,
    )


def _picture(studio: Studio, found: Found) -> ItemOut:
    name = ImageName(found.prediction.id, found.number)
    return ItemOut(
        id=str(name),
        uri=name.uri,
        about=(found.image.title or found.prediction.request.prompt)[:_ABOUT],
        created=iso8601(found.prediction.created),
        file_path=studio.file_path(found.image),
    )


def _behind(ids: list[str], cursor: str, kind: Kind) -> int:
    if not cursor:
        return 0
    if cursor not in ids:
        raise _wrong_cursor(kind)
    return ids.index(cursor) + 1


def _id_of(cursor: str, parse: Callable[[str], str | None], kind: Kind) -> str | None:
    if not cursor:
        return None
    if (found := parse(cursor)) is None:
        raise _wrong_cursor(kind)
    return found


def _wrong_cursor(kind: Kind) -> InvalidRequest:
    message = f"it is no next_cursor of kind={kind}"
    return InvalidRequest([Problem("cursor", message, "", "Leave it out for the first page.")])

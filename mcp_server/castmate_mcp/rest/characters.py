"""Saves, lists and removes characters; their ids are `image` of a generation."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

from starlette.responses import Response

from castmate.errors import ImageRejected, InvalidRequest, Problem
from castmate.images import Reference
from castmate.jobs.characters import Character, one_line
from castmate.times import rfc3339
from castmate_mcp.http.envelope import Refusal, success
from castmate_mcp.rest.models import CharacterOut, CharacterQuery, Deleted, NameQuery
from castmate_mcp.rest.operation import Call


async def list_characters(call: Call) -> Response:
    """`GET /api/v3/characters`: one's own, the newest first."""
    found = await call.gateway.castmate.characters.list(call.key.name)
    return success([_told(call, character) for character in found])


async def create_character(call: Call) -> Response:
    """`POST /api/v3/characters`: the same name and pictures again give the same one."""
    query = await call.json(CharacterQuery)
    name = one_line(query.name)
    character = await call.gateway.castmate.characters.create(
        name, _references(call, query.references), key_name=call.key.name
    )
    return success(_told(call, character))


async def delete_character(call: Call) -> Response:
    """`DELETE /api/v3/characters/{id}`: kept for a day; what was drawn from it stays."""
    characters, name = call.gateway.castmate.characters, call.request.path_params["id"]
    forever = call.request.query_params.get("forever", "false")
    if forever not in ("true", "false"):
        problem = Problem("forever", f"{forever!r} is not allowed", "true, false")
        raise InvalidRequest([problem])
    with _as_missing():
        if forever == "true":
            await characters.delete(name, call.key.name)
        else:
            await characters.discard(name, call.key.name)
    return success(Deleted(id=name))


async def rename_character(call: Call) -> Response:
    """`PATCH /api/v3/characters/{id}`: its id stays."""
    characters, name = call.gateway.castmate.characters, call.request.path_params["id"]
    new = one_line((await call.json(NameQuery)).name)
    with _as_missing():
        return success(_told(call, await characters.rename(name, new, call.key.name)))


async def restore_character(call: Call) -> Response:
    """`POST /api/v3/characters/{id}/restore`: within a day of its deletion."""
    characters, name = call.gateway.castmate.characters, call.request.path_params["id"]
    with _as_missing():
        return success(_told(call, await characters.restore(name, call.key.name)))


@contextlib.contextmanager
def _as_missing() -> Iterator[None]:
    """A wrong id in the path is an address at which nothing is."""
    try:
        yield
    except InvalidRequest as error:
        if error.problems[0].parameter != "character_id":
            raise
        raise Refusal(404, str(error)) from None


async def _references(call: Call, sources: list[str]) -> AsyncIterator[Reference]:
    for number, source in enumerate(sources):
        try:
            yield await call.gateway.references.find(source, call.base_url, call.key, _admit)
        except ImageRejected as error:
            name = f"references.{number}"
            problems = [Problem(name, p.message, p.allowed, p.hint) for p in error.problems]
            raise InvalidRequest(problems) from None


async def _admit() -> None:
    """Nothing waits in a queue here."""


def _told(call: Call, character: Character) -> CharacterOut:
    return CharacterOut(
        id=character.id,
        name=character.name,
        num_pictures=len(character.pictures),
        references=[call.gateway.file_url(call.base_url, one) for one in character.pictures],
        created_at=rfc3339(character.created),
    )

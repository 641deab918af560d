"""The operations of whatever a key keeps and looks through: characters, pictures, its session."""

from __future__ import annotations

from typing import Final

from castmate.jobs.keys import Scope
from castmate_mcp.rest import characters, framing, outputs, pictures, sessions
from castmate_mcp.rest.models import (
    CharacterOut,
    CharacterQuery,
    Deleted,
    Named,
    NameQuery,
)
from castmate_mcp.rest.operation import Operation
from castmate_mcp.rest.picture_models import FramedOut, PictureList, PicturesQuery, PreviewQuery
from castmate_mcp.rest.session_models import SessionOut, SessionQuery

SAVED: Final = (
    Operation(
        "POST",
        "/api/v3/session",
        sessions.begin,
        None,
        "Begin a browser's session",
        SessionOut,
        SessionQuery,
        max_body_bytes=4096,
        needs_key=False,
    ),
    Operation(
        "GET",
        "/api/v3/session",
        sessions.show,
        None,
        "Look at a session",
        SessionOut,
        limited=False,
    ),
    Operation(
        "DELETE",
        "/api/v3/session",
        sessions.end,
        None,
        "End a browser's session",
        Deleted,
        limited=False,
        needs_key=False,
    ),
    Operation(
        "POST",
        "/api/v3/characters/preview",
        framing.preview_character,
        Scope.GENERATE,
        "Look at what of a reference is drawn from",
        FramedOut,
        PreviewQuery,
    ),
    Operation(
        "GET",
        "/api/v3/pictures",
        pictures.list_pictures,
        Scope.READ,
        "Look through one's finished pictures",
        PictureList,
        query=PicturesQuery,
    ),
    Operation(
        "GET",
        "/api/v3/pictures/{id}/thumbnail",
        pictures.thumbnail,
        Scope.READ,
        "Get a small picture",
        None,
        limited=False,  # a page of pictures asks for many at once
        files=("image/jpeg",),
        statuses=(404,),
    ),
    Operation(
        "GET",
        "/api/v3/characters",
        characters.list_characters,
        Scope.READ,
        "List one's characters",
        list[CharacterOut],
    ),
    Operation(
        "POST",
        "/api/v3/characters",
        characters.create_character,
        Scope.GENERATE,
        "Save a character",
        CharacterOut,
        CharacterQuery,
    ),
    Operation(
        "DELETE",
        "/api/v3/characters/{id}",
        characters.delete_character,
        Scope.GENERATE,
        "Delete a character",
        Deleted,
        query={"forever": "true removes it at once; otherwise it can be restored for a day."},
        statuses=(404,),
    ),
    Operation(
        "PATCH",
        "/api/v3/characters/{id}",
        characters.rename_character,
        Scope.GENERATE,
        "Rename a character",
        CharacterOut,
        NameQuery,
        statuses=(404,),
    ),
    Operation(
        "POST",
        "/api/v3/characters/{id}/restore",
        characters.restore_character,
        Scope.GENERATE,
        "Restore a character",
        CharacterOut,
        statuses=(404,),
    ),
    Operation(
        "DELETE",
        "/api/v3/pictures/{id}",
        outputs.delete_picture,
        Scope.GENERATE,
        "Delete a finished picture",
        Deleted,
        statuses=(404,),
    ),
    Operation(
        "PATCH",
        "/api/v3/pictures/{id}",
        outputs.rename_picture,
        Scope.GENERATE,
        "Rename a finished picture",
        Named,
        NameQuery,
        statuses=(404,),
    ),
    Operation(
        "POST",
        "/api/v3/pictures/{id}/restore",
        outputs.restore_picture,
        Scope.GENERATE,
        "Restore a finished picture",
        Named,
        statuses=(404,),
    ),
)

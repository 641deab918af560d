"""edit_library: the caller's pictures and characters get other names, go, and come back."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from mcp.types import CallToolResult, ToolAnnotations
from pydantic import BaseModel, Field

from castmate.errors import ImageRejected, InvalidRequest, Problem
from castmate.jobs.characters import MAX_NAME, one_line
from castmate.shorten import shorten
from castmate_mcp.agent.results import tool_result
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.http.ids import CharacterName, ImageName
from castmate_mcp.http.saved import character_named

Action = Literal["rename", "delete", "restore"]
_ALLOWED: Final = "an image_id, or the name or id of a saved character"


class EditOut(BaseModel):
    """What became of it."""

    id: str
    name: str
    next_step: str


def add(server: StrictServer, studio: Studio) -> None:
    """Add the tool.

    Args:
        server: To which one.
        studio: What it works with.
    """

    @server.tool(
        title="Rename, delete or restore",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def edit_library(
        id: Annotated[str, Field(description="Such as img_4f9a..., or a character's name or id.")],
        action: Annotated[Action, Field(description="Such as rename:")],
        name: Annotated[str, Field(description="The new one, such as Mira.")] = "",
    ) -> Annotated[CallToolResult, EditOut]:
        """Rename, delete or restore a picture or character.

        Use it when the user asks for it. Not for stopping a job. It is free; for a day, what is
        deleted can be restored. Returns its id.
        """
        new = _new_name(action, name)
        try:
            edited_id, called = await _edited(studio, id.strip(), action, new)
        except FileNotFoundError:
            told_ = f"there is no picture or character {shorten(id, 80)!r}"
            hint = "list_library shows what there is; what was deleted is kept for a day."
            raise InvalidRequest([Problem("id", told_, _ALLOWED, hint)]) from None
        return tool_result(EditOut(id=edited_id, name=called, next_step=_NEXT[action]))


_NEXT: Final[dict[Action, str]] = {
    "rename": "It is found by this name from now on.",
    "delete": "edit_library with action restore and this id brings it back, for a day.",
    "restore": "It is in list_library again.",
}


def _new_name(action: Action, name: str) -> str:
    if action == "rename" and len(name) <= MAX_NAME:
        return one_line(name)
    if action == "rename":
        allowed = f"one line of 1..{MAX_NAME} characters"
        raise InvalidRequest([Problem("name", f"has {len(name)} characters", allowed)])
    if name:
        hint = "Leave it out."
        raise InvalidRequest([Problem("name", f"is of no use to action {action}", "", hint)])
    return ""


async def _edited(studio: Studio, text: str, action: Action, name: str) -> tuple[str, str]:
    """Do it; gives the id and the name.

    Raises:
        FileNotFoundError: There is nothing of this id or name.
        InvalidRequest: Several characters are called so.
    """
    castmate, caller = studio.castmate, studio.caller
    if image := ImageName.parse(text):
        outputs, which = castmate.outputs, (image.prediction_id, image.number)
        if action == "rename":
            picture = await outputs.rename(*which, name, caller)
        elif action == "delete":
            picture = await outputs.discard(*which, caller)
        else:
            picture = await outputs.restore(*which, caller)
        return str(image), picture.title
    try:
        known = CharacterName.parse(text) or await character_named(castmate, text, caller)
    except ImageRejected as error:
        (problem,) = error.problems
        raise InvalidRequest(
            [Problem("id", problem.message, problem.allowed, problem.hint)]
        ) from None
    if known is None:
        raise FileNotFoundError(text)
    characters = castmate.characters
    try:
        if action == "rename":
            character = await characters.rename(known.character_id, name, caller)
        elif action == "delete":
            character = await characters.discard(known.character_id, caller)
        else:
            character = await characters.restore(known.character_id, caller)
    except InvalidRequest as error:
        if error.problems[0].parameter == "character_id":
            raise FileNotFoundError(text) from None
        raise
    return character.id, character.name

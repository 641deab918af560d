"""Prompts that people start from a menu, and completions of ids while they type."""

from __future__ import annotations

from typing import Annotated, Final

from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)
from pydantic import Field

from castmate.jobs.predictions import State
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.agent.tools.library import predictions
from castmate_mcp.http.ids import ImageName, job_id_of

_MOST: Final = 50  # the protocol allows 100
_OF_CHARACTER: Final = ("character", "character_id")

Character = Annotated[
    str, Field(description="A saved character's name or id, an image_id, a path or an https URL.")
]


def add(server: StrictServer, studio: Studio) -> None:
    """Add every prompt and the completions.

    Args:
        server: Gets the prompts.
        studio: Knows the caller's pictures and characters.
    """

    @server.prompt(title="Character sheet")
    def character_sheet(
        character: Character,
        views: Annotated[str, Field(description="Which views, separated by commas.")] = (
            "front, side, back, close-up of the face"
        ),
    ) -> str:
        """The same character from several sides, on white."""
        return (
            f"Make a character sheet of {character}. Save it with create_character first, unless "
            "it is saved already. Then call draw_scenes once, with layout sheet, size 768*1024, "
            f"style_words 'standing, neutral pose, full body' and these scenes: {views}. Look at "
            "the sheet; where the character is not the same, draw that view again with "
            "generate_character_image and subject_scale 1.1. Show the user the sheet."
        )

    @server.prompt(title="Storyboard")
    def storyboard(
        character: Character,
        story: Annotated[str, Field(description="What happens.")],
        panels: Annotated[str, Field(description="How many pictures.")] = "4",
    ) -> str:
        """A story in pictures, the same character in each."""
        return (
            f"Make a storyboard of {panels} panels with {character}: {story}\n"
            "Save the character with create_character first, unless it is saved already. Write "
            "one line a panel: action, place, mood, camera. Call draw_scenes once with these lines "
            "as its scenes (12 at most in a call), size 1024*640 and the same style_words. If "
            "scenes failed, the same call again draws only those. Look at the sheet with "
            "view_image, and show it to the user."
        )

    @server.prompt(title="Same character, new outfit")
    def same_character_new_outfit(
        character: Character, outfit: Annotated[str, Field(description="What it wears.")]
    ) -> str:
        """The character in other clothes, its face unchanged."""
        return (
            f"Draw {character} wearing {outfit}. Prompt: 'wearing {outfit}, full body, standing, "
            "plain background', subject_scale 0.7 so that the clothes may change. If the old "
            "clothes stay, lower it to 0.5; if the face changes, raise it to 0.9. Compare with "
            "view_image, then show the best one and offer to save it with create_character."
        )

    @server.prompt(title="Sticker")
    def sticker(
        character: Character,
        feeling: Annotated[str, Field(description="What it shows, such as joy.")] = "joy",
    ) -> str:
        """A sticker without background."""
        return (
            f"Draw a sticker of {character} that shows {feeling}. Call generate_character_image "
            f"with the prompt 'sticker, {feeling}, flat colours, plain background', size 512*512, "
            "num_images 2 and background transparent. Look at both with view_image, and show the "
            "better one."
        )

    @server.prompt(title="Avatar")
    def avatar(character: Character) -> str:
        """A portrait without background."""
        return (
            f"Draw an avatar of {character}. Call generate_character_image with the prompt "
            "'portrait, looking at the camera, close-up, head and shoulders, plain background', "
            "size 512*512, num_images 2 and background transparent. Look at both with view_image, "
            "and show the better one."
        )

    @server.prompt(title="Sprite sheet")
    def sprite_sheet(
        character: Character,
        poses: Annotated[str, Field(description="Which poses, separated by commas.")] = (
            "standing, walking, running, jumping, sitting, waving"
        ),
    ) -> str:
        """The same character in several poses, in a grid without background."""
        return (
            f"Make a sprite sheet of {character}: call draw_scenes once, with layout sheet, "
            f"background transparent, size 512*512, style_words 'full body, game sprite' and these "
            f"scenes: {poses}. The sheet is then a grid of equal cells without captions. Look at "
            "it with view_image, and show it to the user."
        )

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion:
        found = await _candidates(studio, argument.name)
        fitting = [one for one in found if argument.value.casefold() in one.casefold()]
        return Completion(values=fitting[:_MOST], total=len(fitting), has_more=len(fitting) > _MOST)


async def _candidates(studio: Studio, name: str) -> list[str]:
    if name in _OF_CHARACTER:
        saved = await studio.castmate.characters.list(studio.caller)
        return [*(one.id for one in saved), *dict.fromkeys(one.name for one in saved)]
    if name == "image_id":
        found = [one async for one in predictions(studio, State.COMPLETED)]
        return [
            str(ImageName(one.id, number)) for one in found for number in range(len(one.images))
        ]
    if name == "job_id":
        return [job_id_of(one.id) async for one in predictions(studio, None)]
    if name == "views":
        return ["front, side, back, close-up of the face", "front, three-quarter, side"]
    return []

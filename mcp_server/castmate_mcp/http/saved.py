"""What a key has saved, by its id: finished pictures and characters, as the storage names them."""

from __future__ import annotations

from collections.abc import Sequence

from castmate.errors import ImageRejected, PredictionNotFound
from castmate.jobs.characters import MAX_NAME
from castmate.jobs.names import named
from castmate.jobs.predictions import Prediction, StoredImage
from castmate.jobs.scenes import Storyboard
from castmate.service import Castmate
from castmate_mcp.http.ids import CharacterName, ImageName
from castmate_mcp.settings import ServerSettings


async def picture_of(
    castmate: Castmate[ServerSettings], name: ImageName, key_name: str
) -> StoredImage:
    """A finished picture, or the contact sheet of a series.

    Raises:
        FileNotFoundError: The key has none of this name.
    """
    if series := await castmate.storyboards.find(name.prediction_id, key_name):
        if name.number == 0 and (sheet := await castmate.storyboards.sheet(series)):
            return sheet
        raise FileNotFoundError(str(name))
    try:
        prediction = await castmate.ledger.get(name.prediction_id, key_name)
        image = prediction.images[name.number]
    except (PredictionNotFound, IndexError):
        raise FileNotFoundError(str(name)) from None
    if image.discarded is not None:
        raise FileNotFoundError(str(name))
    return image


def image_names(job: Prediction | Storyboard) -> list[ImageName]:
    """What callers call the finished pictures of a job; of a series, the contact sheet apart."""
    made = [job] if isinstance(job, Prediction) else [scene.prediction for scene in job.scenes]
    return [
        ImageName(one.id, number)
        for one in made
        for number, image in enumerate(one.images)
        if image.discarded is None
    ]


async def character_named(
    castmate: Castmate[ServerSettings], text: str, key_name: str
) -> CharacterName | None:
    """The character that a caller calls so, if it is neither an id nor anything else.

    Raises:
        ImageRejected: Several are called so.
    """
    if len(text) > MAX_NAME + 2:  # with the number of a picture
        return None
    found = named(await castmate.characters.list(key_name), text)
    return None if found is None else CharacterName(found[0].id, found[1])


async def stored_names(
    castmate: Castmate[ServerSettings], name: ImageName | CharacterName, key_name: str
) -> Sequence[str]:
    """What the storage calls a finished picture, or the pictures of a character.

    Raises:
        FileNotFoundError: The key has no such picture or character.
        ImageRejected: The character has fewer pictures.
    """
    if isinstance(name, ImageName):
        return [(await picture_of(castmate, name, key_name)).name]
    character = await castmate.characters.find(name.character_id, key_name)
    if character is None:
        raise FileNotFoundError(name.character_id)
    if name.picture is None:
        return character.pictures
    if name.picture > len(character.pictures):
        raise ImageRejected(
            f"{character.id} has {len(character.pictures)} pictures, and no {name.picture}",
            allowed=f"{character.id}, or {character.id}/1 to /{len(character.pictures)}",
        )
    return [character.pictures[name.picture - 1]]

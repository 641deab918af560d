"""What a key has saved, by its id: finished pictures and characters, as the storage names them."""

from __future__ import annotations

from castmate.errors import ImageRejected, PredictionNotFound
from castmate.jobs.predictions import StoredImage
from castmate.service import Castmate
from castmate_mcp.http.ids import CharacterName, ImageName
from castmate_mcp.settings import ServerSettings


async def picture_of(
    castmate: Castmate[ServerSettings], name: ImageName, key_name: str
) -> StoredImage:
    """A finished picture.

    Raises:
        FileNotFoundError: The key has none of this name.
    """
    try:
        prediction = await castmate.ledger.get(name.prediction_id, key_name)
        return prediction.images[name.number]
    except (PredictionNotFound, IndexError):
        raise FileNotFoundError(str(name)) from None


async def stored_name(
    castmate: Castmate[ServerSettings], name: ImageName | CharacterName, key_name: str
) -> str:
    """What the storage calls a finished picture, or the picture of a character.

    Raises:
        FileNotFoundError: The key has no such picture or character.
        ImageRejected: The character has fewer pictures.
    """
    if isinstance(name, ImageName):
        return (await picture_of(castmate, name, key_name)).name
    character = await castmate.characters.find(name.character_id, key_name)
    if character is None:
        raise FileNotFoundError(name.character_id)
    if name.picture > len(character.pictures):
        raise ImageRejected(
            f"{character.id} has {len(character.pictures)} pictures, and no {name.picture}",
            allowed=f"{character.id}, or {character.id}/1 to /{len(character.pictures)}",
        )
    return character.pictures[name.picture - 1]

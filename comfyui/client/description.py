"""What the server says of itself: its parameters with their ranges, and the saved characters."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from .api import Api
from .errors import CastmateError

BUNDLED = Path(__file__).parents[1] / "inputs.json"
KEPT_S = 60.0
_log = logging.getLogger("castmate")


class Description:
    """The latest that is known; where no server has answered yet, what this package came with.

    Attributes:
        properties: The JSON schema of each input, by its name.
        characters: Saved characters, as the choices of a list.
    """

    def __init__(self) -> None:
        self.properties: dict[str, dict[str, Any]] = json.loads(BUNDLED.read_text())["properties"]
        self.characters: list[str] = []
        self._until = 0.0

    async def refresh(self, api: Api) -> None:
        """Ask a server, once a minute; where it does not answer, everything stays as it is."""
        if time.monotonic() < self._until:
            return
        try:
            self.properties = (await api.describe())["properties"]
            self.characters = [label(one) for one in await api.characters()]
        except CastmateError as error:
            _log.info("Castmate's nodes are defined without a server: %s", error)
        else:
            self._until = time.monotonic() + KEPT_S


def label(character: dict[str, Any]) -> str:
    """A character as a choice: its name, and the id by which it is found."""
    return f"{character['name']} ({character['id']})"


current = Description()

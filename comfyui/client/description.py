"""What the server says of itself: its parameters with their ranges, and the saved characters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .api import Api
from .errors import Refused

BUNDLED = Path(__file__).parents[1] / "inputs.json"


class Description:
    """The latest that is known; where no server has answered yet, what this package came with.

    Attributes:
        bundled: The JSON schema of each input, by its name, of this package's own release.
        properties: The same of the server.
        characters: Saved characters, as the choices of a list.
    """

    def __init__(self) -> None:
        self.bundled: dict[str, dict[str, Any]] = json.loads(BUNDLED.read_text())["properties"]
        self.properties = self.bundled
        self.characters: list[str] = []

    async def refresh(self, api: Api) -> None:
        """Ask a server.

        Raises:
            CastmateError: It does not answer; what was known stays.
        """
        schema = (await api.model())["api_schema"]["api_schemas"][0]["request_schema"]
        self.properties = schema["properties"]
        try:
            self.characters = [label(one) for one in await api.characters()]
        except Refused:  # a server that is older than its characters
            self.characters = []


def label(character: dict[str, Any]) -> str:
    """A character as a choice: its name, and the id by which it is found."""
    return f"{character['name']} ({character['id']})"


current = Description()

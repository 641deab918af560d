"""What callers call things: ids of jobs, pictures and characters, and their URIs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

_JOB: Final = re.compile(r"(?:job://)?(?:job_)?([0-9a-f]{32})")
_IMAGE: Final = re.compile(r"(?:image://)?img_([0-9a-f]{32})-(\d)(?:/preview\.jpg)?")
_CHARACTER: Final = re.compile(r"(?:character://)?(chr_[0-9a-f]{16})(?:/([1-9]))?")
_STORED: Final = re.compile(r"outputs/([0-9a-f]{32})-\d+/(\d)\.\w+")
_SHEET: Final = re.compile(r"sheets/([0-9a-f]{32})-[0-9a-f]+\.png")


def job_id_of(prediction_id: str) -> str:
    """What callers call a prediction."""
    return f"job_{prediction_id}"


def prediction_id_of(job_id: str) -> str | None:
    """The prediction of a job's id or URI, or None where it is neither."""
    match = _JOB.fullmatch(job_id.strip())
    return match and match[1]


@dataclass(frozen=True)
class ImageName:
    """A picture of a prediction, or the contact sheet of a series, whose number is 0."""

    prediction_id: str
    number: int

    def __str__(self) -> str:
        return f"img_{self.prediction_id}-{self.number}"

    @property
    def uri(self) -> str:
        """The resource that gives it as PNG."""
        return f"image://{self}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """From an id, or the URI of the picture or its preview; None where it is neither."""
        match = _IMAGE.fullmatch(text.strip())
        return match and cls(match[1], int(match[2]))

    @classmethod
    def of_stored(cls, name: str) -> Self | None:
        """From the name under which the storage keeps it."""
        if match := _SHEET.fullmatch(name):
            return cls(match[1], 0)
        match = _STORED.fullmatch(name)
        return match and cls(match[1], int(match[2]))


@dataclass(frozen=True)
class CharacterName:
    """A character, and which of its pictures is meant, from 1; None where all of them are."""

    character_id: str
    picture: int | None = None

    @property
    def uri(self) -> str:
        """The resource that describes it."""
        return f"character://{self.character_id}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """From an id, such as chr_.../2 for its second picture, or a URI."""
        match = _CHARACTER.fullmatch(text.strip())
        return match and cls(match[1], int(match[2]) if match[2] else None)

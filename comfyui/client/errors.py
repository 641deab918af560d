"""What can go wrong at a server, in words that say what to do."""

from __future__ import annotations


class CastmateError(Exception):
    """No picture, and why."""


class Lost(CastmateError):
    """The server does not answer."""


class Refused(CastmateError):
    """The server answered, and said no."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)

    @property
    def too_much(self) -> bool:
        """It will do later."""
        return self.status == 429


class NoEvents(CastmateError):
    """The server does not send events; it can be polled."""

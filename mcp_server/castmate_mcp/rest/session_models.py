"""Sessions of browsers on the wire."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from castmate.jobs.keys import Scope


class SessionQuery(BaseModel):
    """Whose session begins."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(
        "", max_length=256, description="An API key; empty where the server has no keys."
    )


class SessionOut(BaseModel):
    """Who calls, and what for."""

    key: str = Field(description="The name of the API key; `local` where there are no keys.")
    scopes: list[Scope] = Field(description="What it may be used for.")
    expires_at: str | None = Field(
        None, description="When the session ends: RFC 3339, UTC. Left out where there is none."
    )

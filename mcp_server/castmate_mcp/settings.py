"""Settings that only the servers read, `castmate serve` and `castmate mcp`, beside everyone's."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from castmate.addresses import is_here
from castmate.settings import Settings


class ServerSettings(Settings):
    """How this machine serves other programs and agents."""

    hold_s: float = Field(
        40,
        ge=0,
        le=3600,
        description="How long an agent's call waits for its picture before it gets a job to ask "
        "for; hosts give up after 45 s and more, seconds.",
    )

    oauth_issuer: str | None = Field(
        None,
        description="The OAuth server whose tokens open /mcp, such as https://login.example.com; "
        "needs CASTMATE_PUBLIC_URL, for which the tokens must be issued. Keys keep working.",
    )
    oauth_jwks_url: str | None = Field(
        None,
        description="Where that server's keys are; by default its /.well-known/jwks.json.",
    )

    mcp_sessions: bool | None = Field(
        None,
        description="Keep a session for MCP clients of 2025-11-25 and before, so that the server "
        "can ask their users. Such a session lives in one process: every request of it has to "
        "reach that one. By default yes with SQLite, and no with PostgreSQL, where another server "
        "may get the next request.",
    )

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="The address on which `castmate serve` listens; others than this machine's own "
        "need keys (`castmate keys create`).",
    )
    port: int = Field(8787, ge=0, le=65_535, description="Its port; 0 takes a free one.")
    public_url: str | None = Field(
        None,
        description="The server's address as its callers see it, such as https://cast.example.com; "
        "by default taken from each request.",
    )
    served_models: Annotated[tuple[str, ...], NoDecode] = Field(
        ("wavespeed-ai/instant-character",),
        description="Names under which `castmate serve` offers the model, owner/model, separated "
        "by commas; answers show the first.",
    )
    drain_s: float = Field(
        20,
        ge=0,
        description="How long a server that is stopped waits for its running predictions, in "
        "seconds; unfinished ones continue at the next start.",
    )

    @field_validator("served_models", mode="before")
    @classmethod
    def _split_models(cls, value: object) -> object:
        names = value.replace(",", " ").split() if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not names:
            raise ValueError("names at least one, such as wavespeed-ai/instant-character")
        if wrong := [name for name in names if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)+", name)]:
            raise ValueError(f"{wrong[0]} is not owner/model")
        return tuple(names)

    @field_validator("oauth_issuer", "oauth_jwks_url")
    @classmethod
    def _check_oauth(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "https://unset")
        if not parts.hostname or (parts.scheme != "https" and not is_here(parts.hostname)):
            raise ValueError("must start with https:// (http:// only for this machine)")
        return value.rstrip("/") if value else None

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "http://unset")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("must be a plain URL such as https://cast.example.com")
        if parts.query or parts.fragment:
            raise ValueError("must be a plain URL, without query and fragment")
        return value.rstrip("/") if value else None

"""Every setting, read once from `CASTMATE_*` environment variables or a `.env` file."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from castmate.errors import SettingsError
from castmate.paths import UserPath, expand


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return expand(Path(base)) / "castmate"


def _default_image_roots() -> tuple[Path, ...]:
    here = Path.cwd()
    # Desktop apps start their servers in /: that must not open the whole disk.
    return () if here in (Path(here.anchor), Path.home()) else (here,)


class Settings(BaseSettings):
    """How this machine runs Castmate."""

    model_config = SettingsConfigDict(
        env_prefix="CASTMATE_", env_file=".env", extra="ignore", frozen=True
    )

    bundle: str = Field(
        "toon", description="The model: the name of a shipped bundle, or a bundle's folder."
    )
    data_dir: UserPath = Field(
        default_factory=_default_data_dir,
        description="Where pictures and state are kept; by default castmate in XDG_DATA_HOME, else "
        "~/.local/share/castmate.",
    )
    image_roots: Annotated[tuple[UserPath, ...], NoDecode] = Field(
        default_factory=_default_image_roots,
        description="Folders whose pictures an agent may name by path, separated by "
        f"'{os.pathsep}'; by default the folder where the server starts.",
    )
    allow_http: bool = Field(
        False, description="Fetch pictures from http:// URLs too, not only from https:// ones."
    )

    clients: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None,
        description="Which clients draw, in the order in which they are asked, separated by "
        "commas; by default every client, Triton first and what costs money last. One that is not "
        "set up (no server, no key) is left out.",
    )
    deadline_s: float = Field(
        600, gt=0, description="Time to draw a request, over all clients, in seconds."
    )
    client_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="The part of the time left that a client may take while another one could "
        "still be asked; the last one may take all of it.",
    )
    slow_s: float = Field(
        120,
        gt=0,
        description="A request that takes a client longer counts as a failure of it, where there "
        "is another client to ask.",
    )
    cooldown_s: float = Field(
        15, gt=0, description="How long a client that keeps failing is left alone, in seconds."
    )

    wavespeed_api_key: SecretStr | None = Field(
        None, description="The key of a WaveSpeed account; without it nothing is sent there."
    )
    wavespeed_base_url: str = Field(
        "https://api.wavespeed.ai", description="Where WaveSpeed's API is."
    )
    wavespeed_model: str = Field(
        "wavespeed-ai/instant-character",
        pattern=r"^\w[\w.-]*(/\w[\w.-]*)+$",
        description="The hosted model.",
    )
    wavespeed_price_usd: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="What a hosted picture costs; by default WaveSpeed is asked, and 0.10 is "
        "taken where it does not say.",
    )
    wavespeed_per_minute: int = Field(
        2, ge=1, description="Pictures a minute that the account's tier allows: Bronze 2."
    )
    wavespeed_timeout_s: float = Field(
        300, gt=0, description="Time for the hosted pictures of a request, in seconds."
    )

    threads: int = Field(0, ge=0, description="CPU threads of a generation; 0 takes every core.")
    prompt_cache_mb: int = Field(64, ge=0, description="Memory for encoded prompts, MiB.")
    subject_cache_mb: int = Field(512, ge=0, description="Memory for encoded references, MiB.")
    cache: Literal["off", "balanced", "fast"] = Field(
        "off", description="Step caching of requests that do not choose: off, balanced or fast."
    )

    database_url: SecretStr | None = Field(
        None,
        description="Where the ledger is: sqlite:////path/to/a/file or "
        "postgresql://user:password@host/name; by default a file in the data folder.",
    )
    storage_url: str | None = Field(
        None,
        description="Where pictures are: s3://bucket/prefix (credentials in AWS_* variables) or "
        "file:///a/folder; by default a folder in the data folder.",
    )
    files_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="Signs the addresses of files; servers that share a storage share it. By "
        "default one is drawn and kept in the data folder.",
    )
    durability: Literal["process", "power"] = Field(
        "process",
        description="What an acknowledged prediction survives: `process` the death of every "
        "process of ours, `power` a power cut too, at four disk flushes a prediction.",
    )
    queue_limit: int = Field(
        256, ge=1, le=10_000, description="How many predictions may wait; then callers are told to."
    )
    lease_s: float = Field(
        15,
        ge=1,
        le=3600,
        description="A process that is silent for so long loses its work to another, seconds; the "
        "same for all processes that share a ledger.",
    )
    worker_slots: int = Field(
        1, ge=0, le=256, description="Predictions that a server makes at a time; 0 makes none."
    )
    wait_s: float = Field(
        3600,
        ge=0,
        description="How long a prediction waits where no client can draw it, in seconds; then it "
        "fails with every reason. CASTMATE_DEADLINE_S counts drawing, this counts waiting. "
        "`castmate generate` does not wait.",
    )
    retention_days: float | None = Field(
        None,
        ge=0,
        description="How long finished predictions and their pictures are kept, whoever made them; "
        "0 keeps them for ever. By default `castmate serve` keeps what its callers made for 30 "
        "days, and what the command or an agent over stdio made is never removed.",
    )
    max_usd_per_prediction: float | None = Field(
        0.5, ge=0, allow_inf_nan=False, description="May be paid for one prediction, dollars."
    )
    max_usd_per_day: float | None = Field(
        5.0, ge=0, allow_inf_nan=False, description="May be paid in one day (UTC), dollars."
    )
    max_usd_per_key: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="May be paid for one API key, in all, dollars; unset is no cap.",
    )
    stored_mb_per_key: int | None = Field(
        1024,
        ge=1,
        description="What an API key may keep on the server of the pictures that it sends "
        "(uploads, references, characters), MiB; each is stored and counted once. Callers without "
        "a key have no such limit.",
    )
    triton_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="gRPC addresses of Triton servers, host:port, separated by commas."
    )
    triton_event_timeout_s: float = Field(
        5.0,
        gt=0,
        description="A Triton server that sends nothing for this long is given up; it sends at "
        "least one event a second.",
    )

    hold_s: float = Field(
        40,
        ge=0,
        le=3600,
        description="How long an agent's call waits for its picture before it gets a job to ask "
        "for; hosts give up after 45 s and more, seconds.",
    )
    paid: Literal["never", "ask", "always"] = Field(
        "ask",
        description="Whether pictures that cost money may be drawn for agents, within the caps: "
        "`ask` lets the user agree first, once a day.",
    )

    oauth_issuer: str | None = Field(
        None,
        description="The OAuth server whose tokens open /mcp, such as https://login.example.com; "
        "needs CASTMATE_PUBLIC_URL, for which the tokens must be made. Keys go on to work.",
    )
    oauth_jwks_url: str | None = Field(
        None,
        description="Where that server's keys are; by default its /.well-known/jwks.json.",
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
        "by default what each request says.",
    )
    served_models: Annotated[tuple[str, ...], NoDecode] = Field(
        ("wavespeed-ai/instant-character",),
        description="Names under which `castmate serve` offers the model, owner/model, separated "
        "by commas; answers tell the first.",
    )
    drain_s: float = Field(
        20,
        ge=0,
        description="Time that a stopped server gives to what it is making, in seconds; what is "
        "not finished then goes on at the next start.",
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

    @field_validator("triton_urls", mode="before")
    @classmethod
    def _split_urls(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(filter(None, (url.strip() for url in value.split(","))))

    @field_validator("image_roots", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator("clients", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        """Whether there are such clients is for `castmate.clients.registry` to say."""
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("wavespeed_api_key", mode="before")
    @classmethod
    def _clean_key(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not (key := value.strip()).isascii() or not key.isprintable() or " " in key:
            raise ValueError("a key has no spaces and only ASCII letters, digits and signs")
        return key or None

    @field_validator("wavespeed_base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError("must be a plain URL such as https://api.wavespeed.ai")
        # The key travels with every call, so only this machine may get it unencrypted.
        if parts.scheme != "https" and not (parts.scheme == "http" and is_here(parts.hostname)):
            raise ValueError("must start with https:// (http:// only for this machine)")
        return value.rstrip("/")

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

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment; `overrides` (flags) win.

        Raises:
            SettingsError: Names the variable and what it may be.
        """
        try:
            return cls(**{name: value for name, value in overrides.items() if value is not None})
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False)
            raise SettingsError("\n".join(map(_told, details))) from None


def _told(detail: ErrorDetails) -> str:
    name = "_".join(map(str, detail["loc"]))
    secret = name.endswith(("_api_key", "_secret", "_url"))  # a password stays one
    got = "" if secret else f"; got {detail['input']!r}"
    return f"CASTMATE_{name.upper()}: {detail['msg']}{got}"


def is_here(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

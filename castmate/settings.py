"""Every setting, read once from `CASTMATE_*` environment variables or the user's settings file.

A `.env` in the folder where a command starts is not read: its author could redirect the user's
account key, allow payments and open folders.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from castmate.addresses import is_here, is_server, is_servers_name
from castmate.errors import SettingsError
from castmate.paths import UserPath, expand

ENV_FILE: Final = "CASTMATE_ENV_FILE"


def settings_file() -> Path | None:
    """The settings file: the one that the environment names, else the user's own, if it exists.

    Raises:
        SettingsError: The named file does not exist.
    """
    if named := os.environ.get(ENV_FILE):
        path = expand(Path(named))
        if not os.path.exists(path) or os.path.isdir(path):
            raise SettingsError(
                f"The settings file {path} (--env-file, {ENV_FILE}) is not there; name a file of "
                "CASTMATE_NAME=value lines, or leave the option out."
            )
        return path
    base = _xdg("XDG_CONFIG_HOME", ".config")
    own = base / "castmate/castmate.env" if base else None
    return own if own and os.path.isfile(own) else None


def _xdg(variable: str, below_home: str) -> Path | None:
    """A base folder of the XDG specification, which says to ignore relative ones."""
    named = expand(Path(os.environ.get(variable, "")))
    if named.is_absolute():
        return named
    home = _home()
    return home / below_home if home else None


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor a passwd entry, as in a container with a foreign user
        return None


def _default_data_dir() -> Path:
    if base := _xdg("XDG_DATA_HOME", ".local/share"):
        return base / "castmate"
    raise SettingsError(
        "CASTMATE_DATA_DIR: this user has no home folder; name a folder where pictures and state "
        "can be kept, or set HOME."
    )


def _default_image_roots() -> tuple[Path, ...]:
    try:
        here = Path.cwd()
    except OSError:  # the folder has been deleted
        return ()
    # Desktop apps start their servers in /: that must not open the whole disk.
    return () if here in (Path(here.anchor), _home()) else (here,)


class Settings(BaseSettings):
    """How this machine runs Castmate."""

    model_config = SettingsConfigDict(
        env_prefix="CASTMATE_",
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,  # compose files pass unset variables as empty
        extra="ignore",
        frozen=True,
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

    fetch_proxy: bool = Field(
        False,
        description="Fetch pictures from callers' URLs, and send webhooks, through the proxy that "
        "HTTPS_PROXY names. The proxy must then refuse addresses of the internal network: it looks "
        "names up itself.",
    )

    clients: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None,
        description="Clients to try, in order, separated by commas; by default all of them, Triton "
        "first and paid ones last. A client that is not set up (no server, no key) is skipped.",
    )
    deadline_s: float = Field(
        600, gt=0, description="Time to draw a request, over all clients, in seconds."
    )
    client_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="The share of the remaining time that a client may use while others are left "
        "to try; the last one may use all of it.",
    )
    slow_s: float = Field(
        120,
        gt=0,
        description="A request that takes longer than this counts as a failure of its client, if "
        "there is another one to try, in seconds.",
    )
    cooldown_s: float = Field(
        15, gt=0, description="How long to leave a failing client alone, in seconds."
    )

    wavespeed_api_key: SecretStr | None = Field(
        None, description="The key of a WaveSpeed account; without it nothing is sent there."
    )
    wavespeed_base_url: str = Field(
        "https://api.wavespeed.ai", description="The base URL of WaveSpeed's API."
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
        description="The price of a hosted picture; by default what WaveSpeed quotes, or 0.10 if "
        "it quotes nothing.",
    )
    wavespeed_per_minute: int = Field(
        2, ge=1, description="Pictures a minute that the account's tier allows: Bronze 2."
    )
    wavespeed_timeout_s: float = Field(
        300, gt=0, description="Time limit for the hosted pictures of a request, in seconds."
    )

    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of a generation; 0 takes every core."
    )
    device: int = Field(
        0,
        ge=0,
        description="Number of the GPU that draws, from 0. An instance of a Triton server takes "
        "the GPU that Triton gives it.",
    )
    gpu_memory: ByteSize | None = Field(
        None,
        gt=0,
        description="The most GPU memory to take, such as 16GB or 15.5GiB; by default what is "
        "free. Instances of a Triton server on one GPU share it equally.",
    )
    prompt_cache_mb: int = Field(
        256, ge=0, description="Memory for encoded prompts and their modulations, MiB."
    )
    subject_cache_mb: int = Field(512, ge=0, description="Memory for encoded references, MiB.")
    cache: Literal["off", "balanced", "fast"] = Field(
        "off", description="Step caching of requests that do not choose: off, balanced or fast."
    )
    identity: Literal["on", "off"] = Field(
        "on",
        description="Judge in every picture how close its character is to the reference's, if the "
        "bundle can: on or off.",
    )

    picture_metadata: bool = Field(
        True,
        description="Write into every picture file how it was drawn: prompt, seed, parameters, "
        "model, and the reference's hash; `castmate show FILE` prints it. No keys, paths or dates.",
    )

    database_url: SecretStr | None = Field(
        None,
        description="Where the ledger is: sqlite:////path/to/a/file or "
        "postgresql://user:password@host/name; by default a file in the data folder.",
    )
    database_pooler: bool = Field(
        False,
        description="Whether CASTMATE_DATABASE_URL leads through a pooler in transaction mode, as "
        "PgBouncer. Nobody can listen there, so other servers' work is looked for every second.",
    )
    storage_url: str | None = Field(
        None,
        description="Where pictures are: s3://bucket/prefix (credentials in AWS_* variables) or "
        "file:///a/folder; by default a folder in the data folder.",
    )
    files_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="Signs the addresses of files; servers that share a storage share it. At "
        "least 32 characters. By default one is drawn and kept in the data folder.",
    )
    presigned_urls: bool = Field(
        True,
        description="Send whoever opens a picture's address on to the bucket, with an address that "
        "it signs for five minutes. Off, pictures go through the server: for a bucket that callers "
        "cannot reach.",
    )
    durability: Literal["process", "power"] = Field(
        "process",
        description="What an acknowledged prediction survives: `process` the death of every "
        "process of ours, `power` a power cut too, at four disk flushes a prediction.",
    )
    queue_limit: int = Field(
        256,
        ge=1,
        le=10_000,
        description="How many predictions may wait; more are refused with a time to retry.",
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
        0.5,
        ge=0,
        allow_inf_nan=False,
        description="Spending cap for one prediction, in US dollars.",
    )
    max_usd_per_day: float | None = Field(
        5.0, ge=0, allow_inf_nan=False, description="Spending cap for one day (UTC), in US dollars."
    )
    max_usd_per_key: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Spending cap for one API key in total, in US dollars; unset means none.",
    )
    paid: Literal["never", "ask", "always"] = Field(
        "ask",
        description="Whether pictures that cost money may be drawn for agents, within the caps: "
        "`ask` lets the user agree first, once a day.",
    )
    stored_mb_per_key: int | None = Field(
        1024,
        ge=1,
        description="What an API key may keep on the server of the pictures that it sends "
        "(uploads, references, characters), MiB; each is stored and counted once. Callers without "
        "a key have no such limit.",
    )
    triton_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="gRPC addresses of Triton servers, host:port, separated by commas; "
        "`dns:///host:port` stands for all addresses of a name, looked up again and again.",
    )
    triton_event_timeout_s: float = Field(
        5.0,
        gt=0,
        description="Give up on a Triton server that sends nothing for this long, in seconds; a "
        "working one sends at least one event a second.",
    )

    @field_validator("data_dir")
    @classmethod
    def _anchor(cls, value: Path) -> Path:
        try:
            return value.absolute()
        except OSError:
            raise ValueError("is relative, and the working folder has been deleted") from None

    @field_validator("triton_urls", mode="before")
    @classmethod
    def _split_urls(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(filter(None, (url.strip() for url in value.split(","))))

    @field_validator("triton_urls")
    @classmethod
    def _check_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [url for url in value if not (is_server(url) or is_servers_name(url))]:
            raise ValueError(
                f"{wrong[0]!r} is no gRPC address; allowed: host:port without a scheme or a path, "
                "such as 127.0.0.1:8001, gpu-1:8001 or [::1]:8001, or dns:///triton:8001 for all "
                "servers of a name"
            )
        return value

    @field_validator("image_roots", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator("clients", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        """Split the names; `castmate.clients.registry` checks that the clients exist."""
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
        # Every call carries the key, so only this machine may get it unencrypted.
        if parts.scheme != "https" and not (parts.scheme == "http" and is_here(parts.hostname)):
            raise ValueError("must start with https:// (http:// only for this machine)")
        return value.rstrip("/")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options take precedence over variables, and variables over the settings file."""
        file = settings_file()
        try:
            return init_settings, env_settings, DotEnvSettingsSource(settings_cls, env_file=file)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise SettingsError(f"The settings file {file} cannot be read: {reason}.") from None

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment and the settings file; `overrides` (options) win.

        Raises:
            SettingsError: Names the variable and what it may be, or the file that cannot be read.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False)
            raise SettingsError("\n".join(map(_explain, details))) from None


def _explain(detail: ErrorDetails) -> str:
    name = "_".join(map(str, detail["loc"]))
    secret = name.endswith(("_api_key", "_secret", "_url"))  # keep passwords out of messages
    got = "" if secret else f"; got {detail['input']!r}"
    return f"CASTMATE_{name.upper()}: {detail['msg']}{got}"

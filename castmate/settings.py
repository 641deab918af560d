"""Every setting, read once from `CASTMATE_*` environment variables or a `.env` file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from castmate.errors import SettingsError


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(base) / "castmate"


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
    data_dir: Path = Field(
        default_factory=_default_data_dir, description="Where pictures and state are kept."
    )
    image_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default_factory=_default_image_roots,
        description="Folders whose pictures an agent may name by path, separated by "
        f"'{os.pathsep}'; by default the folder where the server starts.",
    )
    threads: int = Field(0, ge=0, description="CPU threads of a generation; 0 takes every core.")
    prompt_cache_mb: int = Field(64, ge=0, description="Memory for encoded prompts, MiB.")
    subject_cache_mb: int = Field(512, ge=0, description="Memory for encoded references, MiB.")

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
        description="A process that is silent for so long loses its work to another, seconds.",
    )
    priority_ageing_s: float = Field(
        60, gt=0, description="A waiting prediction climbs one priority each time, seconds."
    )
    worker_slots: int = Field(
        1, ge=0, le=256, description="Predictions that this process makes at a time; 0 makes none."
    )
    retention_days: float = Field(
        30, ge=0, description="How long finished predictions are kept; 0 keeps them for ever."
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

    @field_validator("image_roots", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

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

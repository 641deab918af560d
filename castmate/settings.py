"""Every setting, read once from `CASTMATE_*` environment variables or a `.env` file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator
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

    triton_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="gRPC addresses of Triton servers, host:port, separated by commas."
    )
    triton_event_timeout_s: float = Field(
        5.0,
        gt=0,
        description="A Triton server that sends nothing for this long is given up; it sends at "
        "least one event a second.",
    )

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

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment; `overrides` (flags) win.

        Raises:
            SettingsError: Names the variable and what it may be.
        """
        try:
            return cls(**{name: value for name, value in overrides.items() if value is not None})
        except ValidationError as error:
            lines = [
                f"CASTMATE_{'_'.join(map(str, detail['loc'])).upper()}: {detail['msg']}; "
                f"got {detail['input']!r}"
                for detail in error.errors(include_url=False, include_context=False)
            ]
            raise SettingsError("\n".join(lines)) from None

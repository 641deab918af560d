"""A few-step version of a published model, read from a TOML or JSON file.

The shipped ones are the `.toml` files beside this module; a file of one's own has the same form.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from castmate.defaults import Defaults, Span, check_limits
from castmate.engines.licences import Licence
from export.errors import ExportError
from export.lora.fuse import Lora

FOLDER = Path(__file__).parent

AnyDataclass = TypeVar("AnyDataclass")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraSource(_Model):
    """Where a LoRA is: a file of a repository on the hub, or a path beside the preset."""

    repository: str | None = None
    file: str
    scale: float = Field(allow_inf_nan=False)


class Preset(_Model):
    """How a published model is made into one of few steps."""

    name: str = Field(description="Of the file; the bundle's name ends with it.")
    folder: Path = Field(description="Of the file.")
    description: str = Field(description="One sentence for people, in the manifest.")
    sources: Mapping[str, str] = Field(
        default={}, description="What is loaded instead of the family's, where no flag says what."
    )
    network: Mapping[str, Any] = Field(
        default={}, description="What differs in the family's configuration, the schedule included."
    )
    lora: LoraSource | None = None
    defaults: Mapping[str, float] = Field(description="What differs in the family's defaults.")
    limits: Mapping[str, Span] = {}
    licences: Mapping[str, Licence] = Field(description="Of what it adds or loads instead.")
    replaces: tuple[str, ...] = Field(
        default=(), description="Parts among the family's licences that it does without."
    )

    @classmethod
    def read(cls, name_or_path: str) -> Self:
        """A shipped preset by its name, or one from a file.

        Raises:
            ExportError: There is none, or it cannot be read; says what is allowed.
        """
        shipped = FOLDER / f"{name_or_path}.toml"
        path = shipped if shipped.is_file() else Path(name_or_path)
        try:
            text = path.read_text()
            values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
            return cls.model_validate(values | {"name": path.stem, "folder": path.parent})
        except OSError:
            raise ExportError(
                f"--steps-preset {name_or_path}: allowed are {', '.join(names())}, or a TOML or "
                f"JSON file of the same form as those in {FOLDER}."
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ExportError(f"--steps-preset {path}: `{where}`: {first['msg']}.") from None
        except (ValueError, TypeError) as error:
            raise ExportError(f"--steps-preset {path} cannot be read: {error}.") from None

    def loaded_from(self, sources: AnyDataclass) -> AnyDataclass:
        """The sources with those of the preset, where a flag names no others."""
        usual = type(sources)()
        return self._changed(
            sources,
            {
                name: value
                for name, value in self.sources.items()
                if getattr(sources, name, None) == getattr(usual, name, None)
            },
        )

    def configured(self, config: AnyDataclass) -> AnyDataclass:
        """The configuration of the network, and its name with the preset's behind it."""
        name = getattr(config, "name", "")
        return self._changed(config, {**self.network, "name": f"{name}-{self.name}"})

    def over(self, defaults: Defaults) -> Defaults:
        """A family's defaults with those of the preset.

        Raises:
            ExportError: One is unknown, out of range or outside the preset's limits.
        """
        try:
            made = Defaults.model_validate(defaults.model_dump() | dict(self.defaults))
            check_limits(made, self.limits)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ExportError(f"{self._title}: `defaults.{where}`: {first['msg']}.") from None
        except ValueError as error:
            raise ExportError(f"{self._title}: {error}.") from None
        return made

    def licensed(self, licences: Mapping[str, Licence]) -> dict[str, Licence]:
        """A family's licences with those of the preset."""
        kept = {part: one for part, one in licences.items() if part not in self.replaces}
        return kept | dict(self.licences)

    def loras(self) -> tuple[Lora, ...]:
        """Its LoRA, fetched from the hub where it is there.

        Raises:
            ExportError: It cannot be had; says what to do.
        """
        if self.lora is None:
            return ()
        if self.lora.repository is None:
            path = self.folder / self.lora.file
            if not path.is_file():
                raise ExportError(f"{self._title}: {path} does not exist.")
            return (Lora(path, self.lora.scale),)
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            found = hf_hub_download(self.lora.repository, self.lora.file)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise ExportError(
                f"{self._title}: {self.lora.file} cannot be fetched from {self.lora.repository}: "
                f"{error} Download it, and name it in a copy of the preset without `repository`."
            ) from None
        return (Lora(Path(found), self.lora.scale),)

    def _changed(self, given: AnyDataclass, changes: Mapping[str, Any]) -> AnyDataclass:
        """A dataclass with other values; tables are merged."""
        known = {one.name: getattr(given, one.name) for one in fields(given)}  # type: ignore[arg-type]
        made: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in known:
                raise ExportError(f"{self._title}: there is no {name!r} in {', '.join(known)}.")
            if isinstance(value, Mapping):
                if unknown := [key for key in value if key not in known[name]]:
                    raise ExportError(
                        f"{self._title}: there is no {unknown[0]!r} in {name}, which has "
                        f"{', '.join(known[name])}."
                    )
                value = {**known[name], **value}
            made[name] = value
        return replace(given, **made)  # type: ignore[type-var]

    @property
    def _title(self) -> str:
        return f"--steps-preset {self.name}"


def names() -> list[str]:
    """The shipped presets."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))

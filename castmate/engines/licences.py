"""Licences: the terms for using a bundle's weights."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field


class Licence(BaseModel):
    """The licence of one part of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    url: str = Field(description="Where its text is.")
    allows: str = Field(description="What one may do under it, in a plain sentence.")


def in_short(licences: Mapping[str, Licence]) -> str:
    """Parts with the same licence together, such as 'Apache-2.0 (SigLIP, DINOv2)'."""
    parts: dict[str, list[str]] = {}
    for part, licence in licences.items():
        parts.setdefault(licence.name, []).append(part)
    return "; ".join(f"{name} ({', '.join(of)})" for name, of in parts.items())

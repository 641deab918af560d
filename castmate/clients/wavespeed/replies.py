"""Reads WaveSpeed's answers; each reader returns None for what it does not understand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")  # it becomes part of a path
_OVER: Final = ("completed", "failed", "cancelled", "canceled", "timeout", "deleted")


@dataclass(frozen=True)
class RemotePrediction:
    """A prediction as WaveSpeed reports it.

    Attributes:
        id: WaveSpeed's id.
        status: How far it is; `completed` has outputs.
        outputs: URLs of the pictures.
        has_nsfw: For each output, whether it was flagged.
        error: Why it failed, in WaveSpeed's words.
        code: The business code, if there is one.
    """

    id: str
    status: str = "created"
    outputs: tuple[str, ...] = ()
    has_nsfw: tuple[bool, ...] = ()
    error: str = ""
    code: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is final."""
        return self.status in _OVER


def as_prediction(data: Any, remote_id: str | None = None) -> RemotePrediction | None:
    """A prediction; a submission's answer must name its id, a later one its status."""
    if not isinstance(data, dict):
        return None
    name, status = remote_id or data.get("id"), data.get("status")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        return None
    if remote_id and not isinstance(status, str):
        return None
    outputs, flags, code = data.get("outputs"), data.get("has_nsfw_contents"), data.get("code")
    return RemotePrediction(
        name,
        status if isinstance(status, str) else "created",
        tuple(map(str, outputs)) if isinstance(outputs, list) else (),
        tuple(map(bool, flags)) if isinstance(flags, list) else (),
        str(data.get("error") or ""),
        code if isinstance(code, int) else None,
    )


def run_schema(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON schema of a model's inputs, from its entry in the list of models."""
    described = as_object(entry.get("api_schema")) or {}
    for schema in as_list(described.get("api_schemas")) or []:
        if isinstance(schema, dict) and schema.get("type") == "model_run":
            found = as_object(schema.get("request_schema")) or {}
            return found if isinstance(found.get("properties"), dict) else None
    return None


def as_price(data: Any) -> float | None:
    """US dollars, the highest price named: a discount may have ended by the time of billing."""
    if not isinstance(data, dict) or data.get("currency", "USD") != "USD":
        return None
    named = [_amount(data.get(name)) for name in ("price", "unit_price", "discounted_price")]
    return max((amount for amount in named if amount is not None), default=None)


def as_balance(data: Any) -> float | None:
    """US dollars; below zero is debt."""
    value = data.get("balance") if isinstance(data, dict) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def as_list(data: Any) -> list[Any] | None:
    """A JSON array."""
    return data if isinstance(data, list) else None


def as_object(data: Any) -> dict[str, Any] | None:
    """A JSON object."""
    return data if isinstance(data, dict) else None


def _amount(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None

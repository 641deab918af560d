"""Turns a request's fields into a tool's parameters, so ranges and descriptions exist once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

Tool = TypeVar("Tool", bound=Callable[..., Any])


def with_fields_of(
    model: type[BaseModel],
    descriptions: Mapping[str, str],
    defaults: Mapping[str, Any],
    only: Collection[str] | None = None,
) -> Callable[[Tool], Tool]:
    """Let a tool that takes `**values` take the fields of a model by name, before its own.

    Args:
        model: Has the fields.
        descriptions: Replace the fields' own descriptions for agents.
        defaults: The model's defaults for fields that a call omits, as far as they are known:
            advertised, but not put into the call.
        only: The fields that the tool takes; None is all.
    """

    def decorate(tool: Tool) -> Tool:
        def known(name: str) -> dict[str, Any]:
            return {"default": defaults[name]}

        signature = inspect.signature(tool, eval_str=True)
        named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=Annotated[
                    field.annotation,
                    field,
                    Field(description=descriptions.get(name, field.description)),
                    *([Field(json_schema_extra=known(name))] if name in defaults else []),
                ],
                default=inspect.Parameter.empty if field.is_required() else field.default,
            )
            for name, field in model.model_fields.items()
            if only is None or name in only
        ]
        first = [p for p in named if p.kind is not p.KEYWORD_ONLY]
        own = [p for p in named if p.kind is p.KEYWORD_ONLY]
        tool.__signature__ = signature.replace(parameters=first + fields + own)  # type: ignore[attr-defined]
        return tool

    return decorate

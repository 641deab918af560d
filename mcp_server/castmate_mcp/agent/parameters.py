"""The request's fields as parameters of a tool, so that ranges and descriptions exist once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

Tool = TypeVar("Tool", bound=Callable[..., Any])


def with_fields_of(
    model: type[BaseModel], descriptions: Mapping[str, str]
) -> Callable[[Tool], Tool]:
    """Let a tool that takes `**values` take the fields of a model by name, before its own.

    Args:
        model: Whose fields.
        descriptions: What this door says instead of a field's own description.
    """

    def decorate(tool: Tool) -> Tool:
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
                ],
                default=inspect.Parameter.empty if field.is_required() else field.default,
            )
            for name, field in model.model_fields.items()
        ]
        first = [p for p in named if p.kind is not p.KEYWORD_ONLY]
        own = [p for p in named if p.kind is p.KEYWORD_ONLY]
        tool.__signature__ = signature.replace(parameters=first + fields + own)  # type: ignore[attr-defined]
        return tool

    return decorate

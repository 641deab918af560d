"""The signatures of tools and prompts, read once in a process: each server reads them anew.

The models and schemas made of them are most of what it takes to build a server, and every test of
an agent builds one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from mcp.server.mcpserver.prompts import base as prompts
from mcp.server.mcpserver.resources import templates
from mcp.server.mcpserver.tools import base as tools
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata, func_metadata


def read_once() -> None:
    """From now on; two functions are one where all that a model is made of reads the same."""
    known: dict[tuple[str, ...], tuple[inspect.Signature, FuncMetadata]] = {}

    @functools.wraps(func_metadata)
    def once(
        func: Callable[..., Any],
        skip_names: Sequence[str] = (),
        structured_output: bool | None = None,
    ) -> FuncMetadata:
        signature = inspect.signature(func, eval_str=True)
        asked = [one for one in signature.parameters.values() if one.name not in skip_names]
        parts = (func.__module__, func.__qualname__, asked, signature.return_annotation)
        key = tuple(map(repr, (*parts, structured_output)))
        if key not in known:
            made = func_metadata(func, skip_names, structured_output)
            model: Any = made.arg_model
            model.model_json_schema = functools.cache(model.model_json_schema)
            known[key] = signature, made  # the addresses in the key must stay the signature's
        return known[key][1].model_copy()

    for module in (prompts, templates, tools):
        module.func_metadata = once  # type: ignore[attr-defined]

"""An MCPServer that rejects unknown arguments and says how to correct wrong ones.

The SDK silently ignores unknown arguments, shows pydantic's messages for wrong ones, and prefixes
errors with "Error executing tool ...". Changing that takes two of its private attributes; the tests
pin them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, CallToolResult, GetPromptResult, InputRequiredResult
from pydantic import BaseModel, ValidationError

from castmate.errors import CastmateError, InvalidRequest, Problem
from castmate.validation import problems_of
from castmate_mcp.agent import surrogates
from castmate_mcp.agent.advice import as_tool_error
from castmate_mcp.agent.schemas import OBJECT, compact, in_words

# Models' names for parameters, where the spelling is too different for a similarity match.
_MEANT: Final = {
    "character": "image",
    "character_id": "image",
    "height": "size",
    "id": "job_id",
    "image_url": "image",
    "images": "references",
    "n": "num_images",
    "reference": "image",
    "reference_image": "image",
    "resolution": "size",
    "steps": "num_inference_steps",
    "task_id": "job_id",
    "style": "style_words",
    "text": "prompt",
    "timeout": "wait_seconds",
    "width": "size",
}


Admit = Callable[[Context[Any, Any]], None]
"""Admits a call, or raises a `CastmateError`."""


class StrictServer(MCPServer[Any]):
    """A server whose errors tell a model what to correct.

    Attributes:
        admit: Called before every call of a tool that does more than read.
        shown: The part of an error that an agent may read, if it is not about its arguments.
    """

    admit: Admit | None = None
    shown: Callable[[str], str] = staticmethod(str)

    def add_tool(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Like the base; unknown arguments are errors, and advertised as such."""
        super().add_tool(fn, *args, **kwargs)
        tool = self._tool_manager.list_tools()[-1]
        tool.description = inspect.cleandoc(tool.description)
        tool.fn_metadata.arg_model.model_config["extra"] = "forbid"
        tool.fn_metadata.arg_model.model_rebuild(force=True)
        parameters = compact(tool.parameters)
        properties = {name: in_words(one) for name, one in parameters["properties"].items()}
        tool.parameters = parameters | {"properties": properties, "additionalProperties": False}
        if tool.fn_metadata.output_schema is not None:
            tool.fn_metadata.output_schema = OBJECT

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Like the base; errors are sentences for the model.

        Raises:
            ToolError: Says what is wrong, what is allowed, what it cost and what to do next.
        """
        self._ask_admittance(name, context)
        tool = self._tool_manager.get_tool(name)
        if halves := surrogates.problems(arguments):
            raise as_tool_error(InvalidRequest(halves), name)
        if tool is not None:
            arguments = _without_null(tool.fn_metadata.arg_model, arguments)
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, InvalidRequest):
                raise as_tool_error(cause, name) from None
            if isinstance(cause, CastmateError):
                raise ToolError(self.shown(str(as_tool_error(cause, name)))) from None
            if isinstance(error, UnexpectedToolError):
                raise  # a bug: logged, without showing its text
            if tool is None:
                known = ", ".join(known.name for known in self._tool_manager.list_tools())
                raise ToolError(f"There is no tool {name!r}. Tools: {known}.") from None
            if isinstance(cause, ValidationError):
                problems = _problems(tool.fn_metadata.arg_model, cause)
                raise as_tool_error(InvalidRequest(problems), name) from None
            if isinstance(cause, ToolError):
                raise cause from None
            raise

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        context: Context[Any, Any] | None = None,
    ) -> GetPromptResult | InputRequiredResult:
        """Like the base, but rejects text that no answer could hold.

        Raises:
            MCPError: Names the argument.
        """
        if halves := surrogates.problems(arguments or {}):
            raise MCPError(INVALID_PARAMS, "; ".join(map(str, halves)))
        return await super().get_prompt(name, arguments, context)

    def _ask_admittance(self, name: str, context: Context[Any, Any] | None) -> None:
        tool = self._tool_manager.get_tool(name)
        if self.admit is None or context is None or tool is None:
            return
        if tool.annotations is not None and tool.annotations.read_only_hint:
            return
        try:
            self.admit(context)
        except CastmateError as error:
            raise as_tool_error(error, name) from None


def _without_null(model: type[BaseModel], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments without nulls that may be omitted, which means the same."""
    fields = model.model_fields
    return {
        name: value
        for name, value in arguments.items()
        if value is not None or name not in fields or fields[name].is_required()
    }


def _problems(model: type[BaseModel], error: ValidationError) -> list[Problem]:
    return [_with_meaning(model, problem) for problem in problems_of(model, error)]


def _with_meaning(model: type[BaseModel], problem: Problem) -> Problem:
    meant = _MEANT.get(problem.parameter)
    if problem.message != "unknown parameter" or meant not in model.model_fields:
        return problem
    return replace(problem, hint=f"did you mean `{meant}`?")

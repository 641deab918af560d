"""MCPServer that refuses unknown arguments and answers wrong ones with what to change.

The SDK ignores unknown arguments silently, shows pydantic's messages for wrong ones, and puts
"Error executing tool ..." in front of ours. Two of its private attributes are used for that; the
tests pin them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.types import CallToolResult, InputRequiredResult
from pydantic import ValidationError

from castmate.errors import BundleError, CastmateError, InvalidRequest, Overloaded, Unavailable
from castmate.schema import problems_of


class StrictServer(MCPServer[Any]):
    """The server whose errors a model can repair."""

    def add_tool(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Like the base; an argument that the tool does not have is an error, and advertised so."""
        super().add_tool(fn, *args, **kwargs)
        tool = self._tool_manager.list_tools()[-1]
        tool.description = inspect.cleandoc(tool.description)
        tool.parameters["additionalProperties"] = False
        tool.fn_metadata.arg_model.model_config["extra"] = "forbid"
        tool.fn_metadata.arg_model.model_rebuild(force=True)

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Like the base; errors are sentences for the model.

        Raises:
            ToolError: With what is wrong, what is allowed, what it cost and what to do next.
        """
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise  # a bug of ours: logged, and its text stays here
        except ToolError as error:
            cause = error.__cause__
            tool = self._tool_manager.get_tool(name)
            if tool is None:
                known = ", ".join(known.name for known in self._tool_manager.list_tools())
                raise ToolError(f"There is no tool {name!r}. Tools: {known}.") from None
            if isinstance(cause, ValidationError):
                problems = problems_of(tool.fn_metadata.arg_model, cause)
                raise as_tool_error(InvalidRequest(problems), name) from None
            if isinstance(cause, ToolError):
                raise cause from None
            raise


def as_tool_error(error: CastmateError, tool: str) -> ToolError:
    """The error as a tool tells it: the sentence, the cost, the next step."""
    money = "The attempt was charged." if error.charged else "Nothing was charged."
    match error:
        case InvalidRequest():
            lines = "\n".join(f"- {problem}" for problem in error.problems)
            return ToolError(
                f"Invalid arguments; nothing was generated or charged:\n{lines}\n"
                f"Correct these and call {tool} again."
            )
        case Overloaded():
            step = f"Call {tool} again in {error.retry_after_s:.0f} s."
        case Unavailable():
            step = f"The request is fine: call {tool} again later."
        case BundleError():
            step = "No change of arguments helps: ask the user to run `castmate doctor`."
        case _:
            step = f"Call {tool} again, or ask the user to run `castmate doctor`."
    return ToolError(f"{error} {money} {step}")

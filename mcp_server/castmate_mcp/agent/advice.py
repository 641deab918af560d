"""Error texts for agents: the reason, the cost, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from mcp.server.mcpserver.exceptions import ToolError

from castmate.errors import CastmateError, InvalidRequest

_DOCTOR: Final = "ask the user to run `castmate doctor`"
_CODES: Final = {
    "not_agreed": "Call {tool} again: the user is asked whether to pay.",
    "budget_exceeded": "Ask the user to raise the cap, or wait until tomorrow (UTC).",
    "unavailable": "The request is fine: call {tool} again later.",
    "deadline_exceeded": "The request is fine: call {tool} again later, or with fewer "
    "num_inference_steps or a smaller size.",
    "maybe_charged": "Do not call {tool} again for it before the user has looked at the account.",
    "cancelled": "Call {tool} again if the picture is still wanted.",
    "interrupted": f"Call {{tool}} again, or {_DOCTOR}.",
    "prediction_not_found": "Call list_library with kind=jobs to see those that there are.",
    "idempotency_conflict": "Call {tool} again with another idempotency_key.",
}


def as_tool_error(error: CastmateError, tool: str) -> ToolError:
    """The error in a tool's words."""
    if isinstance(error, InvalidRequest):
        lines = "\n".join(f"- {problem}" for problem in error.problems)
        return ToolError(
            f"Invalid arguments; nothing was generated or charged:\n{lines}\n"
            f"Correct these and call {tool} again."
        )
    return ToolError(explain(error.as_dict(), tool))


def explain(error: Mapping[str, Any], tool: str) -> str:
    """The same for an error in the ledger's form."""
    message = str(error["message"])
    return f"{message} {_money(error, message)}{_next_step(error, tool)}"


def codes(error: Mapping[str, Any]) -> set[str]:
    """The codes of an error and of its clients' errors."""
    return {error["code"], *(cause["code"] for cause in error.get("causes", {}).values())}


def _money(error: Mapping[str, Any], message: str) -> str:
    if error["charged"] is None:
        return "It may have been charged. "
    if error["charged"]:
        return "The attempt was charged. "
    return "" if "nothing was charged" in message.lower() else "Nothing was charged. "


def _next_step(error: Mapping[str, Any], tool: str) -> str:
    if "not_agreed" in codes(error):
        return _CODES["not_agreed"].format(tool=tool)
    if "retry_after_s" in error:
        return f"Call {tool} again in {math.ceil(error['retry_after_s'])} s."
    if error["code"].startswith("bundle_"):
        return f"No change of arguments helps: {_DOCTOR}."
    default = f"Call {{tool}} again, or {_DOCTOR}."
    return _CODES.get(error["code"], default).format(tool=tool)

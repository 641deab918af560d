"""Tools of the suite that ask the client while they run: the older revision."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from mcp.server.mcpserver import Context
from mcp.types import SamplingMessage
from pydantic import BaseModel, Field

from castmate_mcp.agent.strict import StrictServer
from tests.mcp_server.agent.conformance.pieces import FIXTURE, text


class _Person(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class _Defaults(BaseModel):
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Literal["active", "inactive", "pending"] = "active"
    verified: bool = True


def add_asking(server: StrictServer) -> None:
    tool = partial(server.tool, description=FIXTURE)

    @tool(structured_output=False)
    async def test_sampling(ctx: Context[Any, Any], prompt: str) -> str:
        asked = [SamplingMessage(role="user", content=text(prompt))]
        answer = await ctx.session.create_message(
            asked, max_tokens=100, related_request_id=ctx.request_id
        )
        return f"LLM response: {getattr(answer.content, 'text', '')}"

    @tool(structured_output=False)
    async def test_elicitation(ctx: Context[Any, Any], message: str) -> str:
        answer = await ctx.elicit(message, _Person)
        return f"User response: {answer.action}"

    @tool(structured_output=False)
    async def test_elicitation_sep1034_defaults(ctx: Context[Any, Any]) -> str:
        answer = await ctx.elicit("Please review", _Defaults)
        return f"Elicitation completed: {answer.action}"

    @tool(structured_output=False)
    async def test_elicitation_sep1330_enums(ctx: Context[Any, Any]) -> str:
        three = ["option1", "option2", "option3"]
        titled = [{"const": name, "title": name.title()} for name in ("value1", "value2", "value3")]
        schema = {
            "type": "object",
            "properties": {
                "untitledSingle": {"type": "string", "enum": three},
                "titledSingle": {
                    "type": "string",
                    "oneOf": titled,
                },
                "legacyEnum": {
                    "type": "string",
                    "enum": ["opt1", "opt2", "opt3"],
                    "enumNames": ["Option One", "Option Two", "Option Three"],
                },
                "untitledMulti": {"type": "array", "items": {"type": "string", "enum": three}},
                "titledMulti": {
                    "type": "array",
                    "items": {"anyOf": titled},
                },
            },
            "required": [],
        }
        answer = await ctx.session.elicit_form(
            "Please choose", schema, related_request_id=ctx.request_id
        )
        return f"Elicitation completed: {answer.action}"

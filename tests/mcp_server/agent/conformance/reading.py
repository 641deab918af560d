"""Resources and prompts of the suite."""

from __future__ import annotations

import base64
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.types import InputRequiredResult

from castmate_mcp.agent.strict import StrictServer
from tests.mcp_server.agent.conformance.pieces import FIXTURE, PNG, embedded, image, question


def add_resources(server: StrictServer) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        return base64.b64decode(PNG)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        return f'{{"id":"{id}","templateTest":true,"data":"Data for ID: {id}"}}'

    @server.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        return "Watched resource content"


def add_prompts(server: StrictServer) -> None:
    @server.prompt(description=FIXTURE)
    def test_simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @server.prompt(description=FIXTURE)
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt(description=FIXTURE)
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        return [
            UserMessage(embedded(resourceUri, "Embedded resource content for testing.")),
            UserMessage("Please process the embedded resource above."),
        ]

    @server.prompt(description=FIXTURE)
    def test_prompt_with_image() -> list[UserMessage]:
        return [UserMessage(image()), UserMessage("Please analyze the image above.")]

    @server.prompt(description=FIXTURE)
    async def test_input_required_result_prompt(
        ctx: Context[Any, Any],
    ) -> str | InputRequiredResult:
        answers = ctx.input_responses or {}
        if "user_context" not in answers:
            asked: Any = {"user_context": question("What context?", "context")}
            return InputRequiredResult(input_requests=asked)
        return f"With context: {answers['user_context']}"

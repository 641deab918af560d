"""Tools of the suite that answer with every kind of content, log, report and notify."""

from __future__ import annotations

import asyncio
import base64
import io
import wave
from functools import partial
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import MISSING_REQUIRED_CLIENT_CAPABILITY, AudioContent, ContentBlock
from pydantic import Field

from castmate_mcp.agent.strict import StrictServer
from tests.mcp_server.agent.conformance.pieces import FIXTURE, embedded, image, text


def _wav() -> str:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 80)
    return base64.b64encode(stream.getvalue()).decode()


def add_contents(server: StrictServer) -> None:
    tool = partial(server.tool, description=FIXTURE)

    @tool(structured_output=False)
    def test_simple_text() -> str:
        return "This is a simple text response for testing."

    @tool(structured_output=False)
    def test_image_content() -> list[ContentBlock]:
        return [image()]

    @tool(structured_output=False)
    def test_audio_content() -> list[ContentBlock]:
        return [AudioContent(type="audio", data=_wav(), mime_type="audio/wav")]

    @tool(structured_output=False)
    def test_embedded_resource() -> list[ContentBlock]:
        return [embedded("test://embedded-resource", "This is an embedded resource content.")]

    @tool(structured_output=False)
    def test_multiple_content_types() -> list[ContentBlock]:
        mixed = embedded("test://mixed-content-resource", '{"test":"data"}', "application/json")
        return [text("Multiple content types test:"), image(), mixed]

    @tool(structured_output=False)
    async def test_tool_with_logging(ctx: Context[Any, Any]) -> str:
        for message in ("Tool execution started", "Tool processing data", "Tool execution done"):
            await ctx.session.send_log_message("info", message, related_request_id=ctx.request_id)
        return "Logged"

    @tool(structured_output=False)
    async def test_tool_with_progress(ctx: Context[Any, Any]) -> str:
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100, f"{done} of 100")
        return "Done"

    @tool(structured_output=False)
    def test_error_handling() -> str:
        raise ToolError("This tool intentionally returns an error for testing")

    @tool(structured_output=False)
    def test_x_mcp_header(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
    ) -> str:
        return region

    @tool(structured_output=False)
    def test_missing_capability(ctx: Context[Any, Any]) -> str:
        capabilities = ctx.client_capabilities
        if capabilities is None or capabilities.sampling is None:
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY,
                "This tool needs sampling",
                data={"requiredCapabilities": {"sampling": {}}},
            )
        return "It is there"

    @tool(structured_output=False)
    async def test_reconnection(ctx: Context[Any, Any]) -> str:
        await ctx.close_sse_stream()
        await asyncio.sleep(0.1)  # the client comes back meanwhile
        return "Reconnected"

    @tool(structured_output=False)
    async def test_trigger_tool_change(ctx: Context[Any, Any]) -> str:
        await ctx.notify_tools_changed()
        return "Told"

    @tool(structured_output=False)
    async def test_trigger_prompt_change(ctx: Context[Any, Any]) -> str:
        await ctx.notify_prompts_changed()
        return "Told"

    @tool(structured_output=False)
    def json_schema_2020_12_tool(name: str = "", address: dict[str, Any] | None = None) -> str:
        return name

    found = server._tool_manager.get_tool("json_schema_2020_12_tool")
    assert found is not None
    found.parameters = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }

"""What the official conformance suite calls by name, added to our server by its own factory."""

from __future__ import annotations

import asyncio
import base64
import io
import wave
from functools import partial
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    SetLevelRequestParams,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel, Field

from castmate_mcp.extensions.tasks import TasksExtension
from castmate_mcp.strict import StrictServer
from tests.doubles import picture

PNG = base64.b64encode(picture((1, 1))).decode()
STATE = "one"
_FIXTURE = "A fixture of the conformance suite."


def register(server: StrictServer, tasks: TasksExtension) -> None:
    """Add every fixture."""
    _tasks(server, tasks)
    _contents(server)
    _asking(server)
    _rounds(server)
    _resources(server)
    _prompts(server)

    async def set_level(ctx: Any, params: SetLevelRequestParams) -> EmptyResult:
        return EmptyResult()

    server._lowlevel_server.add_request_handler(
        "logging/setLevel", SetLevelRequestParams, set_level
    )


def _tasks(server: StrictServer, tasks: TasksExtension) -> None:
    tool = partial(server.tool, description=_FIXTURE, structured_output=False)

    @tool()
    async def greet(name: str = "you") -> str:
        return f"Hello, {name}!"

    @tool()
    async def slow_compute(ctx: Context[Any, Any], seconds: float = 1, label: str = "") -> str:
        steps = 4
        for step in range(steps):
            await ctx.report_progress(step, steps, f"{step} of {steps}")
            await asyncio.sleep(seconds / steps)
        return f"Computed {label}"

    @tool()
    async def failing_job() -> str:
        await asyncio.sleep(1)
        raise ToolError("The job failed")

    @tool()
    async def protocol_error_job() -> str:
        await asyncio.sleep(0.2)
        raise MCPError(INTERNAL_ERROR, "The protocol failed")

    @tool()
    async def test_tool_with_task(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        answers = ctx.input_responses or {}
        if "user_name" not in answers:
            asked: Any = {"user_name": _question("What is your name?", "name")}
            return InputRequiredResult(input_requests=asked)
        await asyncio.sleep(0.3)  # longer than what is answered directly
        return f"Hello, {answers['user_name']}"

    @tool()
    async def confirm_delete(ctx: Context[Any, Any], filename: str) -> str | InputRequiredResult:
        answers = ctx.input_responses or {}
        if "confirm" not in answers:
            asked: Any = {"confirm": _question(f"Delete {filename}?", "confirm", "boolean")}
            return InputRequiredResult(input_requests=asked)
        return f"{filename}: {answers['confirm']}"

    @tool()
    async def multi_input(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        answers = ctx.input_responses or {}
        if not {"name", "age"} <= answers.keys():
            asked: Any = {
                "name": _question("Your name?", "name"),
                "age": _question("Your age?", "age", "integer"),
            }
            return InputRequiredResult(input_requests=asked)
        return f"{answers['name']}, {answers['age']}"

    tasks.policies |= {
        "greet": "optional",
        "slow_compute": "optional",
        "failing_job": "required",
        "test_tool_with_task": "required",
        "protocol_error_job": "optional",
        "confirm_delete": "during",
        "multi_input": "during",
    }


def _wav() -> str:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 80)
    return base64.b64encode(stream.getvalue()).decode()


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def _image() -> ImageContent:
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    contents = TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return EmbeddedResource(type="resource", resource=contents)


def _contents(server: StrictServer) -> None:
    tool = partial(server.tool, description=_FIXTURE)

    @tool(structured_output=False)
    def test_simple_text() -> str:
        return "This is a simple text response for testing."

    @tool(structured_output=False)
    def test_image_content() -> list[ContentBlock]:
        return [_image()]

    @tool(structured_output=False)
    def test_audio_content() -> list[ContentBlock]:
        return [AudioContent(type="audio", data=_wav(), mime_type="audio/wav")]

    @tool(structured_output=False)
    def test_embedded_resource() -> list[ContentBlock]:
        return [_embedded("test://embedded-resource", "This is an embedded resource content.")]

    @tool(structured_output=False)
    def test_multiple_content_types() -> list[ContentBlock]:
        mixed = _embedded("test://mixed-content-resource", '{"test":"data"}', "application/json")
        return [_text("Multiple content types test:"), _image(), mixed]

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


class _Person(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class _Defaults(BaseModel):
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Literal["active", "inactive", "pending"] = "active"
    verified: bool = True


def _enum(**extra: Any) -> Any:
    return Field(json_schema_extra=extra)


def _titled(names: list[str]) -> list[dict[str, str]]:
    return [{"const": name, "title": name.title()} for name in names]


_THREE = ["value1", "value2", "value3"]


def _asking(server: StrictServer) -> None:
    tool = partial(server.tool, description=_FIXTURE)

    @tool(structured_output=False)
    async def test_sampling(ctx: Context[Any, Any], prompt: str) -> str:
        asked = [SamplingMessage(role="user", content=_text(prompt))]
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
        schema = {
            "type": "object",
            "properties": {
                "untitledSingle": {"type": "string", "enum": three},
                "titledSingle": {"type": "string", "oneOf": _titled(_THREE)},
                "legacyEnum": {
                    "type": "string",
                    "enum": ["opt1", "opt2", "opt3"],
                    "enumNames": ["Option One", "Option Two", "Option Three"],
                },
                "untitledMulti": {"type": "array", "items": {"type": "string", "enum": three}},
                "titledMulti": {"type": "array", "items": {"anyOf": _titled(_THREE)}},
            },
            "required": [],
        }
        answer = await ctx.session.elicit_form(
            "Please choose", schema, related_request_id=ctx.request_id
        )
        return f"Elicitation completed: {answer.action}"


def _question(message: str, name: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    params = ElicitRequestFormParams.model_validate(
        {"message": message, "requestedSchema": schema, "mode": "form"}
    )
    return ElicitRequest(method="elicitation/create", params=params)


def _sample(text: str) -> CreateMessageRequest:
    messages = [SamplingMessage(role="user", content=_text(text))]
    params = CreateMessageRequestParams(messages=messages, max_tokens=100)
    return CreateMessageRequest(method="sampling/createMessage", params=params)


def _roots() -> ListRootsRequest:
    return ListRootsRequest(method="roots/list")


def _rounds(server: StrictServer) -> None:
    def ask(name: str, state: str | None = None, **requests: Any) -> None:
        """A tool that asks all of it once, and then is content."""

        async def body(ctx: Context[Any, Any]) -> str | InputRequiredResult:
            answers = ctx.input_responses or {}
            capabilities = ctx.client_capabilities
            wanted = {
                key: request
                for key, request in requests.items()
                if key not in answers and _can(capabilities, request)
            }
            if wanted:
                return InputRequiredResult(input_requests=wanted, request_state=state)
            return f"state-ok: {sorted(answers)}"

        server.tool(
            name=f"test_input_required_result_{name}",
            description=_FIXTURE,
            structured_output=False,
        )(body)

    ask("elicitation", user_name=_question("What is your name?", "name"))
    ask("sampling", capital_question=_sample("What is the capital of France?"))
    ask("list_roots", client_roots=_roots())
    ask("request_state", STATE, confirm=_question("Please confirm", "ok", "boolean"))
    ask("tampered_state", STATE, confirm=_question("Please confirm", "ok", "boolean"))
    ask(
        "multiple_inputs",
        STATE,
        user_name=_question("What is your name?", "name"),
        greeting=_sample("Generate a greeting"),
        client_roots=_roots(),
    )
    ask(
        "capabilities",
        user_name=_question("What is your name?", "name"),
        greeting=_sample("Generate a greeting"),
    )

    @server.tool(
        name="test_input_required_result_multi_round",
        description=_FIXTURE,
        structured_output=False,
    )
    async def multi_round(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        answers, state = ctx.input_responses or {}, ctx.request_state
        if state is None:
            asked: Any = {"step1": _question("Step 1: your name?", "name")}
            return InputRequiredResult(input_requests=asked, request_state="first")
        if state == "first" and "step1" in answers:
            asked = {"step2": _question("Step 2: your colour?", "color")}
            return InputRequiredResult(input_requests=asked, request_state="second")
        return "Both are known"


def _can(capabilities: Any, request: Any) -> bool:
    name = {"elicitation/create": "elicitation", "roots/list": "roots"}.get(
        request.method, "sampling"
    )
    return capabilities is None or getattr(capabilities, name) is not None


def _resources(server: StrictServer) -> None:
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


def _prompts(server: StrictServer) -> None:
    @server.prompt(description=_FIXTURE)
    def test_simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @server.prompt(description=_FIXTURE)
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt(description=_FIXTURE)
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        return [
            UserMessage(_embedded(resourceUri, "Embedded resource content for testing.")),
            UserMessage("Please process the embedded resource above."),
        ]

    @server.prompt(description=_FIXTURE)
    def test_prompt_with_image() -> list[UserMessage]:
        return [UserMessage(_image()), UserMessage("Please analyze the image above.")]

    @server.prompt(description=_FIXTURE)
    async def test_input_required_result_prompt(
        ctx: Context[Any, Any],
    ) -> str | InputRequiredResult:
        answers = ctx.input_responses or {}
        if "user_context" not in answers:
            asked: Any = {"user_context": _question("What context?", "context")}
            return InputRequiredResult(input_requests=asked)
        return f"With context: {answers['user_context']}"

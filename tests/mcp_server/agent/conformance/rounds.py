"""Tools of the suite that answer with a question and are called again: the newer revision."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from mcp.types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
)

from castmate_mcp.agent.strict import StrictServer
from tests.mcp_server.agent.conformance.pieces import FIXTURE, question, text

STATE = "one"


def _sample(words: str) -> CreateMessageRequest:
    messages = [SamplingMessage(role="user", content=text(words))]
    params = CreateMessageRequestParams(messages=messages, max_tokens=100)
    return CreateMessageRequest(method="sampling/createMessage", params=params)


def _roots() -> ListRootsRequest:
    return ListRootsRequest(method="roots/list")


def add_rounds(server: StrictServer) -> None:
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
            description=FIXTURE,
            structured_output=False,
        )(body)

    ask("elicitation", user_name=question("What is your name?", "name"))
    ask("sampling", capital_question=_sample("What is the capital of France?"))
    ask("list_roots", client_roots=_roots())
    ask("request_state", STATE, confirm=question("Please confirm", "ok", "boolean"))
    ask("tampered_state", STATE, confirm=question("Please confirm", "ok", "boolean"))
    ask(
        "multiple_inputs",
        STATE,
        user_name=question("What is your name?", "name"),
        greeting=_sample("Generate a greeting"),
        client_roots=_roots(),
    )
    ask(
        "capabilities",
        user_name=question("What is your name?", "name"),
        greeting=_sample("Generate a greeting"),
    )

    @server.tool(
        name="test_input_required_result_multi_round",
        description=FIXTURE,
        structured_output=False,
    )
    async def multi_round(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        answers, state = ctx.input_responses or {}, ctx.request_state
        if state is None:
            asked: Any = {"step1": question("Step 1: your name?", "name")}
            return InputRequiredResult(input_requests=asked, request_state="first")
        if state == "first" and "step1" in answers:
            asked = {"step2": question("Step 2: your colour?", "color")}
            return InputRequiredResult(input_requests=asked, request_state="second")
        return "Both are known"


def _can(capabilities: Any, request: Any) -> bool:
    name = {"elicitation/create": "elicitation", "roots/list": "roots"}.get(
        request.method, "sampling"
    )
    return capabilities is None or getattr(capabilities, name) is not None

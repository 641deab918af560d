"""Tasks of the 2026-07-28 revision (SEP-2663): calls whose results clients ask for later.

A task is this process's handle on a call. It starts before there is a job, while a reference is
fetched or the user is asked. If the job starts soon, the announced task id contains it; then any
process that shares the ledger can answer for the task, even after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import authenticated_principal, require_client_extension
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import decode_header_value
from mcp.types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from castmate.errors import CastmateError
from castmate.times import rfc3339

IDENTIFIER: Final = "io.modelcontextprotocol/tasks"
TTL_S: Final = 3600.0
POLL_MS: Final = 1000
_AT_ONCE_S: Final = 0.05
_JOB_S: Final = 5.0  # for a job to start, before its task is announced without it
_MOST: Final = 1000
_GONE: Final = (
    "There is no such task: it has expired, or the server was started again. What it drew is not "
    "lost: call list_library with kind=jobs for its job_id, then get_job."
)

Policy = Literal["optional", "required", "during"]
"""`optional`: a client may; `required`: it must; `during`: questions are asked in the task."""


class TaskId(RequestParams):
    """Names a task."""

    task_id: str


class TaskAnswers(TaskId):
    """A client's answers to a task's questions."""

    input_responses: dict[str, Any]


class Jobs(Protocol):
    """The ledger's view of calls whose tasks other processes hold."""

    async def cancel(self, name: str) -> None:
        """Stop a caller's job."""
        ...

    async def look(self, ctx: ServerRequestContext[Any, Any], name: str) -> CallToolResult | None:
        """The result of the call, or None while its job runs.

        Raises:
            CastmateError: The caller has no such job.
        """
        ...


@dataclass
class Task:
    """One call that goes on in the background of its request."""

    id: str
    owner: object
    status: str = "working"
    message: str = ""
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    asks: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    runner: asyncio.Task[None] | None = None
    job_id: str | None = None
    has_job: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def final(self) -> bool:
        """Whether its state is final."""
        return self.status in ("completed", "failed", "cancelled")

    def draws(self, name: str) -> None:
        """Note that it waits for this job."""
        self.job_id = name
        self.has_job.set()

    def set(self, status: str, message: str = "") -> None:
        """Change the status, unless it is final."""
        if not self.final:
            self.status, self.message, self.updated = status, message, time.time()

    def wire(self, full: bool) -> dict[str, Any]:
        """The protocol's form; with `full`, including the outcome."""
        values: dict[str, Any] = {
            "taskId": self.id,
            "status": self.status,
            "createdAt": rfc3339(self.created),
            "lastUpdatedAt": rfc3339(self.updated),
            "ttlMs": int(TTL_S * 1000),
            "pollIntervalMs": POLL_MS,
        }
        if self.message:
            values["statusMessage"] = self.message
        if full and self.status == "completed":
            values["result"] = self.result
        if full and self.status == "failed":
            values["error"] = self.error
        if full and self.status == "input_required":
            values["inputRequests"] = {
                key: ask for key, ask in self.asks.items() if key not in self.answers
            }
        return values


class TaskSession:
    """The session of a task: progress becomes its status, since nobody awaits notifications."""

    def __init__(self, session: Any, task: Task) -> None:
        self._session, self.task = session, task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def report_progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Show progress in the status."""
        if self.task.status == "working":
            self.task.set("working", message or f"{progress:g} of {total or 0:g}")


class TasksExtension(Extension):
    """Lets clients that declare it ask later for the results of some tools."""

    identifier = IDENTIFIER

    def __init__(self, policies: Mapping[str, Policy], jobs: Jobs) -> None:
        """Start without tasks.

        Args:
            policies: By tool, for those that start or wait for a job; calls of others never become
                tasks.
            jobs: Finds the jobs.
        """
        self.policies = dict(policies)
        self._of_jobs = frozenset(policies)
        self._jobs = jobs
        self._tasks: dict[str, Task] = {}

    def methods(self) -> Sequence[MethodBinding]:
        """`tasks/get`, `tasks/update` and `tasks/cancel`."""
        return [
            MethodBinding("tasks/get", TaskId, self._on_get),
            MethodBinding("tasks/update", TaskAnswers, self._on_update),
            MethodBinding("tasks/cancel", TaskId, self._on_cancel),
        ]

    async def intercept_tool_call(
        self,
        params: CallToolRequestParams,
        ctx: ServerRequestContext[Any, Any],
        call_next: CallNext,
    ) -> HandlerResult:
        """Turn a call that is not answered at once into a task."""
        policy = self.policies.get(params.name)
        capabilities = ctx.session.client_capabilities
        declared = (capabilities.extensions or {}) if capabilities else {}
        # A client may declare it but speak an older revision, whose results cannot say "task".
        modern = ctx.session.protocol_version in MODERN_PROTOCOL_VERSIONS
        if policy is None or not modern or IDENTIFIER not in declared:
            if policy == "required":
                require_client_extension(ctx, IDENTIFIER)
            return await call_next(ctx)
        self._sweep()
        task = Task(f"task_{secrets.token_urlsafe(18)}", authenticated_principal(ctx))
        first: asyncio.Future[HandlerResult] = asyncio.get_running_loop().create_future()
        inside = replace(ctx, session=TaskSession(ctx.session, task))  # type: ignore[arg-type]
        drive = self._drive(task, params, inside, call_next, first)
        task.runner = asyncio.create_task(drive)
        if policy != "during":  # quick results and first questions are answered directly
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(asyncio.shield(first), _AT_ONCE_S)
        if params.name in self._of_jobs:
            await _either(first, task.has_job, _JOB_S)
            if first.done():
                return await first
            if task.job_id is not None:
                task.id = f"{task.id}.{task.job_id}"
        self._tasks[task.id] = task  # before it is announced
        return {"resultType": "task", **task.wire(False)}

    async def _drive(
        self,
        task: Task,
        params: CallToolRequestParams,
        ctx: ServerRequestContext[Any, Any],
        call_next: CallNext,
        first: asyncio.Future[HandlerResult],
    ) -> None:
        try:
            while isinstance(result := await call_next(ctx), InputRequiredResult):
                if task.id not in self._tasks:  # no task yet: the client asks again itself
                    return _settle(first, result)
                asked = (result.input_requests or {}).items()
                task.asks = {key: _plain(request) for key, request in asked}
                task.answers = {}
                task.set("input_required", "Waiting for input")
                while set(task.asks) - set(task.answers):
                    task.wake.clear()
                    await task.wake.wait()
                task.set("working")
                params.input_responses = task.answers  # call_next reads the same object
                params.request_state = result.request_state
            task.result = {"resultType": "complete", **_plain(result)}
            task.set("completed", "Done")
            _settle(first, result)
        except asyncio.CancelledError:
            task.set("cancelled", "Cancelled")
            _settle(first, MCPError(INTERNAL_ERROR, "cancelled"))
        except Exception as error:
            task.error = {"code": INTERNAL_ERROR, "message": "Internal server error"}
            if isinstance(error, MCPError):
                task.error = _plain(error.error)
            task.set("failed", str(task.error["message"]))
            _settle(first, error)

    def _get(self, ctx: ServerRequestContext[Any, Any], task_id: str) -> Task | None:
        """The task, or None if only its job can be looked up."""
        headers = getattr(ctx.request, "headers", None)
        if headers is not None and decode_header_value(headers.get("mcp-name")) != task_id:
            raise MCPError(HEADER_MISMATCH, "Mcp-Name header does not match params.taskId")
        require_client_extension(ctx, IDENTIFIER)
        task = self._tasks.get(task_id)
        if task is None and _job_of(task_id):
            return None
        if task is None or task.owner != authenticated_principal(ctx):
            raise MCPError(INVALID_PARAMS, _GONE)
        return task

    async def _elsewhere(
        self, ctx: ServerRequestContext[Any, Any], task_id: str, cancel: bool = False
    ) -> Task:
        """Look up, through the ledger, a task that another process holds or held."""
        name = _job_of(task_id)
        try:
            if cancel:
                await self._jobs.cancel(name)
            result = await self._jobs.look(ctx, name)
        except CastmateError:
            raise MCPError(INVALID_PARAMS, _GONE) from None
        task = Task(task_id, None, job_id=name)
        if result is not None:
            task.result = {"resultType": "complete", **_plain(result)}
            task.set("cancelled" if cancel else "completed", "Cancelled" if cancel else "Done")
        return task

    async def _on_get(self, ctx: ServerRequestContext[Any, Any], params: TaskId) -> dict[str, Any]:
        task = self._get(ctx, params.task_id) or await self._elsewhere(ctx, params.task_id)
        return {"resultType": "complete", **task.wire(True)}

    async def _on_update(
        self, ctx: ServerRequestContext[Any, Any], params: TaskAnswers
    ) -> dict[str, Any]:
        task = self._get(ctx, params.task_id)
        if task is None:  # a call with a job asks nothing more
            return {"resultType": "complete"}
        for key, answer in params.input_responses.items():
            if key in task.asks and key not in task.answers:
                task.answers[key] = answer
        task.wake.set()
        return {"resultType": "complete"}

    async def _on_cancel(
        self, ctx: ServerRequestContext[Any, Any], params: TaskId
    ) -> dict[str, Any]:
        task = self._get(ctx, params.task_id)
        if task is None:
            await self._elsewhere(ctx, params.task_id, cancel=True)
        elif not task.final:
            if task.job_id is not None:
                await self._jobs.cancel(task.job_id)
            if task.runner is not None:
                task.runner.cancel()
            task.set("cancelled", "Cancelled")
        return {"resultType": "complete"}

    def _sweep(self) -> None:
        before = time.time() - TTL_S
        kept = {
            one.id: one for one in self._tasks.values() if not one.final or one.updated > before
        }
        while len(kept) >= _MOST:
            kept.pop(next(iter(kept)))
        self._tasks = kept


def _job_of(task_id: str) -> str:
    """The job named in a task's id; empty if there is none."""
    return task_id.partition(".")[2]


async def _either(
    first: asyncio.Future[HandlerResult], event: asyncio.Event, timeout_s: float
) -> None:
    """Wait for an answer or an event, whichever comes first."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((first, waiting), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _settle(first: asyncio.Future[HandlerResult], outcome: Any) -> None:
    if first.done():
        return
    if isinstance(outcome, BaseException):
        first.set_exception(outcome)
        first.exception()  # possibly nobody waits any more
    else:
        first.set_result(outcome)


def _plain(value: Any) -> dict[str, Any]:
    if not hasattr(value, "model_dump"):
        return dict(value)
    plain: dict[str, Any] = value.model_dump(by_alias=True, mode="json", exclude_none=True)
    return plain

"""How the server does, on the wire: for its operators alone."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from castmate.breaker import BreakerState
from castmate.jobs.keys import Scope


class ServersOut(BaseModel):
    """The servers behind a client."""

    usable: int
    resting: int = Field(description="Those that failed, and are left alone for a while.")
    ahead: int = Field(description="Requests of anybody that the usable ones had when asked last.")


class ClientOut(BaseModel):
    """One source of pictures, in the order in which they are asked."""

    name: str
    up: bool = Field(description="The next request would be given to it.")
    opening: bool = Field(description="Its model still loads.")
    breaker: BreakerState | None = Field(None, description="Left out where it is not set up.")
    reason: str = Field(description="Of its last failure, or why it is not set up; else empty.")
    servers: ServersOut | None = None


class QueueOut(BaseModel):
    """What is not finished yet, of every key and all servers of the ledger."""

    waiting: int
    running: int
    oldest_wait_s: float = Field(description="How long the first of those that wait has waited.")
    work_s: float = Field(description="How long one instance of the model would draw all of it.")


class SpendOut(BaseModel):
    """What hosted pictures have cost a key on a day."""

    day: str = Field(description="UTC.")
    key: str
    usd: float


class BucketOut(BaseModel):
    """Predictions whose steps took so long."""

    up_to_ms: float
    count: int


class StepTimesOut(BaseModel):
    """How long the steps of a client's last predictions took."""

    client: str
    count: int = Field(description="Predictions, of the last 200.")
    median_ms: float = Field(description="Of a step that was computed in full.")
    p95_ms: float
    histogram: list[BucketOut]


class KeyOut(BaseModel):
    """An API key, without its secret."""

    name: str
    scopes: list[Scope]
    created_at: str = Field(description="RFC 3339, UTC.")
    revoked_at: str | None = None


class ServerStatusOut(BaseModel):
    """How the server does."""

    version: str
    clients: list[ClientOut]
    queue: QueueOut
    memory: list[dict[str, Any]] = Field(
        description="What is where on the GPU, as `castmate doctor --json` reports it; empty "
        "without one."
    )
    spend: list[SpendOut] = Field(description="Of the last 30 days, today included.")
    step_times: list[StepTimesOut]
    keys: list[KeyOut] = Field(description="Empty where the server answers this machine alone.")

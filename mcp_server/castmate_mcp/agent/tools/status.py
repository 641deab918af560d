"""get_status: who can draw now, how long it takes, what it costs, and what is left to spend."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from mcp.types import CallToolResult
from pydantic import BaseModel, Field

from castmate.clients.registry import is_paid, licences
from castmate.engines.licences import in_short
from castmate.jobs.budget import totals
from castmate.jobs.storage import DAY_S
from castmate.route import ClientStatus
from castmate.times import day_of
from castmate_mcp.agent.results import tool_result
from castmate_mcp.agent.spending import Spending
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.agent.tools import READS


class ClientOut(BaseModel):
    """One source of pictures."""

    name: str
    up: bool
    paid: bool
    detail: str = ""


class StatusOut(BaseModel):
    """How the server does."""

    clients: list[ClientOut]
    waiting: int
    running: int
    wait_s: float | None = None  # Of a new job, about.
    cost_usd: float  # Of num_images now, about.
    paid_pictures: Literal["never", "ask", "always"]
    agreed_today: bool
    kept_days: float | None = None
    spent_today_usd: float
    left_today_usd: float | None = None
    licence: str = ""
    defaults: str = ""
    styles: list[str] = []
    next_step: str


def add(server: StrictServer, studio: Studio) -> None:
    """Add the tool.

    Args:
        server: To which one.
        studio: What it works with.
    """
    spending = Spending(studio)

    @server.tool(
        title="Who can draw, how soon, at what price",
        annotations=READS,
    )
    async def get_status(
        num_images: Annotated[int, Field(ge=1, le=4, description="The price is for so many:")] = 1,
    ) -> Annotated[CallToolResult, StatusOut]:
        """Tell who can draw now, the queue, the price, and the budget.

        Use it when asked about cost or time, or after an error. Not before every picture. It is
        free. Returns the estimate and what to do next.
        """
        return tool_result(await _status(studio, spending, num_images))


async def _status(studio: Studio, spending: Spending, num_images: int) -> StatusOut:
    castmate = studio.castmate
    settings = castmate.settings
    load = await castmate.ledger.load()
    today = day_of(time.time())
    spent = await castmate.budget.spending(since=today)
    spent_usd = sum(totals(spent, lambda one: one.key_name).values())
    mine = totals([one for one in spent if one.key_name == studio.caller], lambda one: one.day)
    cap = settings.max_usd_per_day
    clients = [
        ClientOut(name=c.name, up=c.up, paid=is_paid(c.name), detail=_detail(studio, c))
        for c in castmate.router.status()
    ]
    free = any(client.up and not client.paid for client in clients)
    slots = max(1, settings.worker_slots)
    jobs_before = (load.waiting + load.running) // slots + 1
    return StatusOut(
        clients=clients,
        waiting=load.waiting,
        running=load.running,
        wait_s=load.mean_s and round(load.mean_s * jobs_before, 1),
        cost_usd=0.0 if free or not spending.possible else spending.price_usd * num_images,
        paid_pictures=settings.paid,
        agreed_today=await castmate.consents.given(studio.caller),
        kept_days=None if (kept_s := castmate.ledger.keep_s) is None else kept_s / DAY_S,
        spent_today_usd=mine.get(today, 0.0),
        left_today_usd=None if cap is None else round(max(0.0, cap - spent_usd), 4),
        licence=in_short(licences(settings)),
        defaults=known.in_words if (known := castmate.router.defaults) else "",
        styles=list(castmate.router.styles),
        next_step=_next_step(free, spending),
    )


def _detail(studio: Studio, client: ClientStatus) -> str:
    if client.opening:
        return "Still loading: a call waits for it."
    return studio.shown(client.last_error)


def _next_step(free: bool, spending: Spending) -> str:
    if free:
        return "generate_character_image draws now, for free."
    if spending.possible:
        return "generate_character_image asks the user before it costs anything."
    return "Nobody can draw now: ask the user to run `castmate doctor`, or try again later."

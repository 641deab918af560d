"""`castmate spend`: what hosted pictures have cost, and whether agents may pay for more today."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from castmate.errors import InvalidRequest, Problem
from castmate.options import AsJson, DataDir
from castmate.reporting import print_json, reporting

# `castmate --help` imports this module, so anything that loads the ledger is imported where used.
if TYPE_CHECKING:
    from castmate.service import Castmate

spend = typer.Typer()

_OAUTH: Final = "oauth:"  # before the subject of a token
KeyName = Annotated[
    str,
    typer.Option(
        "--key",
        help="Who may pay: the name of an API key; `local` is who starts `castmate mcp` here.",
    ),
]


@spend.callback(invoke_without_command=True)
def list_spending(
    ctx: typer.Context,
    days: Annotated[
        int, typer.Option(min=1, max=3660, help="How many days (UTC), today included.")
    ] = 30,
    key: Annotated[str | None, typer.Option(help="Only what one API key spent, by name.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what was paid for hosted pictures, and add it up by day and by key."""
    if ctx.invoked_subcommand is None:
        with reporting(as_json=as_json):
            asyncio.run(_list(days, key, as_json))


@spend.command("allow")
def allow(key: KeyName = "local", data_dir: DataDir = None) -> None:
    """Let agents pay for hosted pictures until midnight (UTC), within the budget.

    It is the answer that a host would otherwise ask for: run it yourself, and let no agent run it.
    """

    async def give(castmate: Castmate) -> None:
        await _check(castmate, key)
        await castmate.consents.give(key)
        cap = castmate.settings.max_usd_per_day
        limit = "without a cap (CASTMATE_MAX_USD_PER_DAY)" if cap is None else f"up to ${cap:.2f}"
        typer.echo(f"Agents of {key} may pay for hosted pictures until midnight (UTC), {limit}.")
        if castmate.settings.paid == "never":
            typer.echo("CASTMATE_PAID is never, so nothing is paid as long as it is.", err=True)

    with reporting():
        _with(give, data_dir)


@spend.command("disallow")
def disallow(key: KeyName = "local", data_dir: DataDir = None) -> None:
    """Take today's permission back; jobs that were submitted before may still cost."""

    async def withdraw(castmate: Castmate) -> None:
        await _check(castmate, key)
        await castmate.consents.withdraw(key)
        typer.echo(f"Agents of {key} ask again before they pay.")

    with reporting():
        _with(withdraw, data_dir)


async def _check(castmate: Castmate, key: str) -> None:
    """Reject a name that no caller has, so that a typo does not look like a permission."""
    from castmate.jobs.keys import LOCAL_KEY

    names = {LOCAL_KEY, *(known.name for known in await castmate.keys.list())}
    if key not in names and not key.startswith(_OAUTH):
        allowed = f"{', '.join(sorted(names))}, or oauth: and the subject of a token"
        raise InvalidRequest([Problem("key", f"there is no key {key!r}", allowed)])


def _with(use: Callable[[Castmate], Awaitable[None]], data_dir: Path | None) -> None:
    from castmate.service import Castmate
    from castmate.settings import Settings

    async def run() -> None:
        async with Castmate.open(Settings.load(data_dir=data_dir)) as castmate:
            await use(castmate)

    asyncio.run(run())


async def _list(days: int, key: str | None, as_json: bool) -> None:
    from castmate.jobs.budget import totals
    from castmate.service import Castmate
    from castmate.settings import Settings
    from castmate.times import day_of

    since = day_of(time.time(), days - 1)
    async with Castmate.open(Settings.load()) as castmate:
        spent = await castmate.budget.spending(since=since, key_name=key)
    by_day = totals(spent, lambda one: one.day)
    by_key = totals(spent, lambda one: one.key_name)
    if as_json:
        payments = [one.as_dict() for one in spent]
        return print_json(
            {"since": since, "by_day": by_day, "by_key": by_key, "payments": payments}
        )
    for one in spent:
        paid = one.payment
        price = f"${paid.price_usd:.3f}" if one.counts else "$0"
        where = f"{paid.client} {paid.remote_id or '(no id)'}"
        what = f"{one.prediction_id} picture {paid.index + 1}"
        typer.echo(f"{one.day}  {price:>7}  {paid.state:<10}  {one.key_name}  {what}  {where}")
    for title, sums in (("Day", by_day), ("Key", by_key)):
        for name, usd in sums.items():
            typer.echo(f"{title} {name}: ${usd:.3f}")
    typer.echo(f"Since {since}: ${sum(by_day.values()):.3f}")

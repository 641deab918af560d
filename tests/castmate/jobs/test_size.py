"""A ledger with a million finished predictions: every statement of its daily work uses an index."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from castmate.jobs.claims import Claims
from castmate.jobs.database import Transaction
from castmate.jobs.gallery import Gallery, Wanted
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import State
from castmate.jobs.retention import _remove_rows
from castmate.jobs.storage import memory_storage
from castmate.jobs.webhooks import Webhooks
from castmate.schema import GenerateRequest
from tests.castmate.jobs.claiming import RESULT
from tests.castmate.jobs.conftest import NOON, Clock, submitter

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

BATCH = 20_000
LARGE = ("predictions", "attempts", "search_terms")
OF_THE_UNFINISHED = ("waiting_by_key", "running_by_lease", "predictions_not_findable")
DAY_S = 86_400.0


def fill(tx: Transaction, first: int, last: int, count: int) -> None:
    """Some of `count` finished predictions of a hundred keys over the last year."""
    numbers = (
        f"generate_series({first}, {last}) as g(n)"
        if tx.connection.dialect.name == "postgresql"
        else f"(with recursive g(n) as (select {first} union all "
        f"select n + 1 from g where n < {last}) select n from g) as g"
    )
    when = f"({NOON - 365 * DAY_S} + n * {364 * DAY_S / count})"
    milliseconds = f"cast(1000 * {when} as bigint)"
    ids = (
        f"lpad(to_hex({milliseconds}), 12, '0') || lpad(n::text, 20, '0')"
        if tx.connection.dialect.name == "postgresql"
        else f"printf('%012x%020d', {milliseconds}, n)"
    )
    request = GenerateRequest.parse({"prompt": "waving", "image": "red.png"}).model_dump_json()
    tx.connection.execute(
        text(
            "insert into predictions (id, key_name, body_hash, state, turn, request, input, "
            "attempt, deaths, cancel_requested, created, started, finished, result, keep_s, "
            "findable) "
            f"select {ids}, 'key' || (n % 100), 'h' || n, 'completed', 0, :request, 'inputs/x', 1, "
            f"0, 0, {when}, {when}, {when}, :result, 2592000000, 1 from {numbers}"
        ),
        {"request": request, "result": RESULT.to_json()},
    )
    tx.connection.execute(
        text(
            "insert into attempts (prediction_id, attempt, owner, started, finished, outcome) "
            f"select {ids}, 1, 'me', 0, 1, 'completed' from {numbers}"
        )
    )

    for term in ("'waving'", "'scene' || (n % 1000)"):  # one that all have, and a rare one
        word = (
            f"encode(convert_to({term}, 'UTF8'), 'hex')"
            if tx.connection.dialect.name == "postgresql"
            else f"lower(hex({term}))"
        )
        tx.connection.execute(
            text(
                "insert into search_terms (key_name, term, prediction_id) "
                f"select 'key' || (n % 100), {word}, {ids} from {numbers}"
            )
        )


@pytest.fixture(
    params=[20_000, pytest.param(1_000_000, marks=[pytest.mark.fleet, pytest.mark.timeout(900)])]
)
async def full(
    request: pytest.FixtureRequest, database_url: str, clock: Clock
) -> AsyncIterator[Ledger]:
    database = await open_database(database_url, clock=clock)
    began = time.monotonic()
    count = request.param
    for first in range(1, count, BATCH):  # no statement may take longer than any other
        batch = functools.partial(fill, first=first, last=first + BATCH - 1, count=count)
        await database.run(batch)
    await database.run(_analyze)
    print(f"{request.param} rows in {time.monotonic() - began:.0f} s")
    yield Ledger(database, memory_storage(), clock=clock)
    await database.aclose()


def _analyze(tx: Transaction) -> None:
    tx.connection.execute(text("analyze"))


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """What is sent to a database meanwhile."""
    sent: list[tuple[str, Any]] = []

    def keep(connection: object, cursor: object, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", keep)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", keep)


def plan_of(tx: Transaction, statement: str, parameters: Any) -> str:
    """How the database would run it."""
    if isinstance(parameters, list):
        parameters = parameters[0]
    postgres = tx.connection.dialect.name == "postgresql"
    how = "explain " if postgres else "explain query plan "
    rows = tx.connection.exec_driver_sql(how + statement, parameters).all()
    return "\n".join(str(row[0] if postgres else row[-1]) for row in rows)


def scanned(plan: str) -> list[str]:
    """Parts of a plan that read a large table, or one of its whole indexes, from end to end."""
    nodes = re.split(r"\n\s*(?=->)", plan) if "cost=" in plan else plan.splitlines()
    return [
        node
        for node in nodes
        if re.search(rf"(?:Scan.* on|SCAN) (?:{'|'.join(LARGE)})", node)
        and "Cond:" not in node
        and not any(index in node for index in OF_THE_UNFINISHED)
    ]


async def look_through(full: Ledger) -> None:
    """Searches of every kind; none of these predictions has pictures, so each reads to its end."""
    gallery = Gallery(full.database)
    for wanted in (
        Wanted("key5"),
        Wanted("key5", "waving"),
        Wanted("key5", "waving sce"),
        Wanted("key5", "scene105"),
        Wanted("key5", style="night-ink"),
        Wanted("key5", references=["ab" * 32], since=NOON - 30 * DAY_S, until=NOON),
    ):
        assert [one async for one in gallery.find(wanted, page=1000)] == []
    assert await gallery.let_all_be_found() == 0


async def test_no_daily_work_reads_what_is_finished(full: Ledger, reference: Any) -> None:
    submit, claims = submitter(full, reference), Claims(full.database, full.limits)
    with statements() as sent:
        first = await submit(idempotency_key="a", max_unfinished=9, key_name="key1")
        await submit(idempotency_key="a", max_unfinished=9, key_name="key1", seed=0)
        await submit(join_running=True, key_name="key2")
        await full.check_room("key1", 9)
        held = await claims.claim("me", 5)
        await claims.keep_alive("me", {claim.id: claim.attempt for claim in held})
        await claims.show([(held[0], "{}")])
        await claims.recover()
        await claims.complete(held[0], RESULT)
        await claims.release(held[1])
        await full.cancel(held[1].id)
        await full.get(first.id)
        await full.backlog()
        await full.load()
        await full.list(key_name="key5", limit=50)
        await full.list(key_name="nobody", limit=50)
        await full.list(state=State.FAILED, created_after=NOON - DAY_S, limit=50)
        await full.database.run(lambda tx: _remove_rows(tx, None))
        await Webhooks(full.database).take(16)
        await look_through(full)
    seen = dict(sent)
    work = [one for one in seen.items() if any(name in one[0] for name in LARGE)]
    assert len(work) > 20
    for statement, parameters in work:
        if statement.startswith(("INSERT", "analyze")):
            continue
        plan = await full.database.run(
            lambda tx, one=(statement, parameters): plan_of(tx, *one)  # type: ignore[misc]
        )
        assert scanned(plan) == [], f"{statement}\n{plan}"

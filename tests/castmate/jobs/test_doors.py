"""What the server's doors need of the ledger: limits of a key, notes, pages, deletion, uploads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from castmate.errors import BudgetExceeded, Overloaded, PredictionNotFound
from castmate.jobs.budget import Budget, Caps
from castmate.jobs.claims import Claim, Claims
from castmate.jobs.database import Database, Transaction
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import State, StoredImage, StoredResult
from castmate.jobs.retention import sweep
from castmate.jobs.storage import UPLOADS_KEPT_S, output_name
from castmate.jobs.tables import api_keys
from castmate.jobs.webhooks import Webhooks
from castmate.schema import OutputFormat
from tests.castmate.jobs.claiming import RESULT
from tests.castmate.jobs.conftest import NOON, Clock, Submit

pytestmark = pytest.mark.anyio


async def claim_one(claims: Claims) -> Claim:
    (claim,) = await claims.claim("me", 1)
    return claim


async def test_a_key_may_have_so_many_unfinished_predictions(
    claims: Claims, submit: Submit
) -> None:
    await submit(max_unfinished=2)
    await claim_one(claims)
    await submit(max_unfinished=2)
    with pytest.raises(Overloaded, match="Key 'local' has 2 predictions that are not finished"):
        await submit(max_unfinished=2)
    await submit(max_unfinished=2, key_name="ann")
    await submit()


async def test_what_is_written_with_a_submit_is_there_with_it_or_not_at_all(
    ledger: Ledger, submit: Submit
) -> None:
    written: list[str] = []
    prediction = await submit(
        note="base64", idempotency_key="again", also=lambda tx, name: written.append(name)
    )
    assert written == [prediction.id]
    assert (await ledger.get(prediction.id)).note == "base64"
    await submit(seed=prediction.request.seed, idempotency_key="again", also=lambda tx, name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await submit(also=lambda tx, name: 1 / 0)
    assert len(await ledger.list()) == 1


async def test_a_webhook_that_was_due_before_the_clock_was_set_back_is_told(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    webhooks = Webhooks(ledger.database)
    also = webhooks.registration("https://ann.example/hook", "https://castmate.example")
    prediction = await submit(also=also)
    assert await claims.complete(await claim_one(claims), RESULT)
    clock.now -= 3600
    (due,), _ = await webhooks.take(8)
    assert due.prediction_id == prediction.id
    assert (await webhooks.take(8))[0] == [], "it is on its way"


async def test_the_list_is_cut_by_time_and_place(
    ledger: Ledger, submit: Submit, clock: Clock
) -> None:
    names = []
    for _ in range(3):
        names.append((await submit()).id)
        clock.now += 10

    async def listed(**options: Any) -> list[int]:
        return [names.index(found.id) for found in await ledger.list(**options)]

    assert await listed(offset=1, limit=1) == [1]
    assert await listed(created_after=NOON + 10) == [2, 1]
    assert await listed(created_before=NOON + 10) == [0]


async def test_only_finished_predictions_of_the_key_are_deleted_with_their_pictures(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    finished, waiting = await submit(), await submit()
    claim = await claim_one(claims)
    assert claim.id == finished.id
    name = output_name(claim.id, 1, 0, "png")
    await ledger.storage.put(name, b"picture")
    image = StoredImage(
        name=name, output_format=OutputFormat.PNG, width=512, height=512, seed=1, num_bytes=7
    )
    await claims.complete(claim, StoredResult((image,), "local", "toon", {"total": 1.0}, (), 0.0))
    assert await ledger.delete([waiting.id, finished.id], "ann") == 0
    assert await ledger.delete([waiting.id, finished.id], "local") == 1
    with pytest.raises(PredictionNotFound):
        await ledger.get(finished.id)
    assert (await ledger.get(waiting.id)).state == State.CREATED
    assert not await ledger.storage.exists(name)


async def test_a_key_with_a_budget_of_its_own_has_that_instead_of_the_common_one(
    database: Database, claims: Claims, submit: Submit
) -> None:
    def own(tx: Transaction) -> None:
        values = {"name": "ann", "secret_hash": "x", "scopes": "", "weight": 1.0, "created": NOON}
        tx.connection.execute(insert(api_keys), values | {"max_micro_usd": 250_000})

    await database.run(own)
    budget = Budget(database, Caps(per_key=0.1))
    assert await budget.left("ann") == 0.25
    assert await budget.left("bob") == 0.1
    assert await Budget(database).left("bob") is None
    await submit(key_name="ann", num_images=3)
    payments = budget.payments(await claim_one(claims))
    await payments.reserve(0, "wavespeed", 0.1)
    await payments.reserve(1, "wavespeed", 0.1)
    with pytest.raises(BudgetExceeded, match=r"would pass the key's own budget \(\$0.25\)"):
        await payments.reserve(2, "wavespeed", 0.1)
    assert await budget.left("ann") == pytest.approx(0.05)


async def test_uploads_go_after_a_week(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    for age_s, name in ((UPLOADS_KEPT_S + 60, "old"), (UPLOADS_KEPT_S - 60, "young")):
        await ledger.storage.put(f"uploads/2027-01-01/{name}.png", b"picture")
        path = ledger.storage.local_path(f"uploads/2027-01-01/{name}.png")
        assert path is not None
        os.utime(path, (clock.now - age_s, clock.now - age_s))
    assert (await sweep(ledger, 3600)).files == 1
    assert not await ledger.storage.exists("uploads/2027-01-01/old.png")
    assert await ledger.storage.exists("uploads/2027-01-01/young.png")

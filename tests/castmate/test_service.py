"""From settings to pictures, and what was spent for them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from castmate.cli import app
from castmate.clients.base import Progress
from castmate.clients.payments import PaymentState
from castmate.errors import CastmateError, ImageRejected, Overloaded, SettingsError
from castmate.images import Reference
from castmate.jobs.claims import Claims
from castmate.jobs.predictions import State
from castmate.service import Castmate
from castmate.settings import Settings
from tests.castmate.jobs.conftest import submitter
from tests.doubles import FlatClient, StuckClient, picture, routed

runner = CliRunner()


@pytest.fixture
def reference() -> Reference:
    return Reference.from_bytes(picture(), "fox.png")


@pytest.mark.anyio
async def test_the_default_settings_make_a_prediction_in_the_data_folder(
    own_folder: Path, reference: Reference
) -> None:
    settings = Settings.load()
    async with Castmate.open(settings, router=routed(FlatClient())) as castmate:
        castmate.work()
        prediction = await submitter(castmate.ledger, reference)()
        found = await castmate.ledger.wait(prediction.id, 10)
    assert found.state == State.COMPLETED
    assert (settings.data_dir / "ledger.sqlite3").exists()
    assert (settings.data_dir / "files/outputs" / f"{prediction.id}-1/0.png").exists()


@pytest.mark.anyio
async def test_a_process_without_slots_submits_and_another_one_makes(
    own_folder: Path, reference: Reference
) -> None:
    async with Castmate.open(Settings.load(worker_slots=0), router=routed(FlatClient())) as door:
        door.work()
        prediction = await submitter(door.ledger, reference)()
        assert (await door.ledger.wait(prediction.id, 0.05)).state == State.CREATED
        async with Castmate.open(Settings.load(), router=routed(FlatClient())) as maker:
            maker.work()
            assert (await door.ledger.wait(prediction.id, 10)).state == State.COMPLETED


@pytest.mark.anyio
async def test_a_caller_who_waits_gets_pictures_and_progress_and_leaves_the_queue_alone(
    own_folder: Path, reference: Reference
) -> None:
    seen: list[Progress] = []
    client, settings = FlatClient(warnings=("odd",)), Settings.load(picture_metadata=False)
    async with Castmate.open(settings, router=routed(client)) as castmate:
        waiting = await submitter(castmate.ledger, reference)()
        result = await castmate.generate(waiting.request, reference, seen.append)
        assert (await castmate.ledger.get(waiting.id)).state == State.CREATED
    assert [progress.step for progress in seen] == [0, 1, 2]
    assert (result.client, result.warnings, result.timings_ms) == ("flat", ("odd",), {"total": 12})
    made = await client.generate(waiting.request, reference)
    assert result.images == made.images


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error", [Overloaded("Full.", retry_after_s=3), ImageRejected("no face", hint="Another one.")]
)
async def test_a_caller_who_waits_gets_the_error_as_the_client_raised_it(
    own_folder: Path, reference: Reference, error: CastmateError
) -> None:
    async with Castmate.open(Settings.load(), router=routed(FlatClient(error))) as castmate:
        request = (await submitter(castmate.ledger, reference)()).request
        with pytest.raises(type(error)) as caught:
            await castmate.generate(request, reference)
    assert caught.value.as_dict() == error.as_dict()


@pytest.mark.anyio
async def test_a_caller_who_goes_away_cancels_its_prediction(
    own_folder: Path, reference: Reference
) -> None:
    client = StuckClient()
    async with Castmate.open(Settings.load(), router=routed(client)) as castmate:
        request = (await submitter(castmate.ledger, reference)()).request
        waiting = asyncio.create_task(castmate.generate(request, reference))
        await asyncio.wait_for(client.started.wait(), 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert client.cancelled.is_set()
        (found,) = await castmate.ledger.list(state=State.CANCELLED)
        assert found.attempt == 1


async def pay(reference: Reference) -> str:
    """Pay for two pictures of one prediction, and release a third."""
    async with Castmate.open(Settings.load()) as castmate:
        prediction = await submitter(castmate.ledger, reference)(key_name="ann", num_images=3)
        (claim,) = await Claims(castmate.ledger.database).claim("me", 1)
        payments = castmate.budget.payments(claim)
        for index in range(3):
            await payments.reserve(index, "wavespeed", 0.1)
        await payments.move(0, PaymentState.SETTLED, "abc")
        await payments.move(1, PaymentState.UNKNOWN)
        await payments.move(2, PaymentState.RELEASED)
    return prediction.id


def test_spend_lists_every_payment_and_adds_up_what_may_be_charged(
    own_folder: Path, reference: Reference
) -> None:
    prediction_id = anyio.run(pay, reference)
    result = runner.invoke(app, ["spend"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[1:4] for line in lines[:3]] == [
        ["$0.100", "settled", "ann"],
        ["$0.100", "unknown", "ann"],
        ["$0", "released", "ann"],
    ]
    assert f"{prediction_id} picture 1 wavespeed abc".split() == lines[0].split()[4:]
    assert lines[3].startswith("Day ")
    assert lines[4] == "Key ann: $0.200"
    assert lines[5].endswith(": $0.200")


def test_spend_as_json_is_one_document(own_folder: Path, reference: Reference) -> None:
    prediction_id = anyio.run(pay, reference)
    values = json.loads(runner.invoke(app, ["spend", "--json", "--key", "ann"]).stdout)
    assert values["by_key"] == {"ann": 0.2}
    assert list(values["by_day"].values()) == [0.2]
    first = values["payments"][0]
    assert (first["prediction_id"], first["state"]) == (prediction_id, "settled")
    assert (first["remote_id"], first["counts"]) == ("abc", True)
    others = json.loads(runner.invoke(app, ["spend", "--json", "--key", "bob"]).stdout)
    assert others["payments"] == []


def test_where_nothing_was_spent_it_is_said(own_folder: Path) -> None:
    result = runner.invoke(app, ["spend", "--days", "1"])
    assert result.exit_code == 0
    assert result.stdout.endswith(": $0.000\n")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("DURABILITY", "disk", "'process' or 'power'"),
        ("QUEUE_LIMIT", "0", "greater than or equal to 1"),
        ("LEASE_S", "0.1", "greater than or equal to 1"),
        ("MAX_USD_PER_DAY", "-1", "greater than or equal to 0"),
        ("MAX_USD_PER_KEY", "nan", "finite"),
        ("RETENTION_DAYS", "month", "valid number"),
    ],
)
def test_a_wrong_setting_is_told_with_its_variable(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(f"CASTMATE_{variable}", value)
    with pytest.raises(SettingsError, match=rf"CASTMATE_{variable}: .*{expected}.*got '{value}'"):
        Settings.load()


def test_a_secret_is_never_shown(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTMATE_FILES_SECRET", "short" * 6)
    with pytest.raises(SettingsError, match=r"CASTMATE_FILES_SECRET: .*32") as caught:
        Settings.load()
    assert "short" not in str(caught.value)
    monkeypatch.setenv("CASTMATE_FILES_SECRET", "long enough to be a secret of ours")
    monkeypatch.setenv("CASTMATE_DATABASE_URL", "postgresql://ann:hunter2@host/name")
    assert "hunter2" not in repr(Settings.load())
    assert "long enough" not in repr(Settings.load())


def test_spend_on_a_wrong_database_is_one_clear_error(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_DATABASE_URL", "mysql://ann:hunter2@host/name")
    result = runner.invoke(app, ["spend"])
    assert result.exit_code == 2
    assert "CASTMATE_DATABASE_URL: 'mysql' cannot hold a ledger; allowed" in result.stderr

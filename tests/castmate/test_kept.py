"""Nothing finished is thrown away: full disks end a command soon, and pictures stay."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from castmate.errors import Unavailable
from castmate.images import Reference
from castmate.jobs.claims import Claims
from castmate.jobs.retention import Swept, sweep
from castmate.jobs.storage import DAY_S
from castmate.schema import GenerateRequest
from castmate.service import Castmate
from castmate.settings import Settings
from tests.castmate.jobs.conftest import submitter
from tests.doubles import FlatClient, picture, routed

_MOUNTED = ["unshare", "-rm", "sh", "-ec"]
_FULL = """
mount -t tmpfs -o size=2m tmpfs "$1"
mkdir "$1/data" && head -c {kib}K /dev/zero > "$1/filling" || true
exec "$2" -m castmate.cli generate -i "$3" -p waving --size 512*512 --steps 1 -o "$4/out.png"
"""


@pytest.fixture
def reference() -> Reference:
    return Reference.from_bytes(picture(), "fox.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kib", "reason"),
    [(2048, "CASTMATE_DATA_DIR"), (1580, "No space left on device"), (1880, "disk is full")],
)
def test_a_full_disk_ends_the_command_in_bounded_time_with_one_sentence(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, kib: int, reason: str
) -> None:
    disk, image = own_folder / "disk", own_folder / "fox.png"
    disk.mkdir()
    image.write_bytes(picture())
    try:
        probe = subprocess.run([*_MOUNTED, f"mount -t tmpfs tmpfs {disk}"], check=False, timeout=10)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if probe.returncode:
        pytest.skip("no file system can be mounted here")
    monkeypatch.setenv("CASTMATE_DATA_DIR", str(disk / "data"))
    began = time.monotonic()
    arguments = (str(disk), sys.executable, str(image), str(own_folder))
    done = subprocess.run(
        [*_MOUNTED, _FULL.format(kib=kib), "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 2), done.stderr
    assert time.monotonic() - began < 30
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.anyio
async def test_a_caller_in_person_is_told_soon_when_the_end_cannot_be_written_down(
    own_folder: Path,
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
    make_request: Callable[..., GenerateRequest],
) -> None:
    async def full(*args: object) -> bool:
        raise Unavailable("The ledger cannot be written: the disk is full.")

    monkeypatch.setattr("castmate.jobs.worker._IMPATIENT_S", 0.6)
    monkeypatch.setattr(Claims, "complete", full)
    async with Castmate.open(Settings.load(), router=routed(FlatClient())) as castmate:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="the disk is full"):
            await castmate.generate(make_request(), reference)
        assert time.monotonic() - began < 10


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("keep_days", "retention_days", "removed"),
    [(None, None, False), (30, None, True), (None, 7, True), (30, 0, False)],
    ids=["command and stdio", "server", "set", "for ever"],
)
async def test_pictures_of_users_stay_and_those_of_a_servers_callers_go_when_it_was_said(
    own_folder: Path,
    reference: Reference,
    keep_days: float | None,
    retention_days: float | None,
    removed: bool,
) -> None:
    settings = Settings.load(retention_days=retention_days)
    router = routed(FlatClient())
    async with Castmate.open(settings, router=router, keep_days=keep_days) as castmate:
        castmate.work()
        prediction = await submitter(castmate.ledger, reference)()
        found = await castmate.ledger.wait(prediction.id, 10)
        days = retention_days if retention_days is not None else keep_days
        assert found.finished is not None
        assert found.expires == (found.finished + days * DAY_S if days else None)
        castmate.ledger.database._clock = lambda: time.time() + 31 * DAY_S  # type: ignore[attr-defined]
        swept = await sweep(castmate.ledger)
        assert swept == Swept(int(removed), int(removed)), "the prediction, and its reference"


@pytest.mark.anyio
async def test_a_server_beside_them_removes_nothing_of_the_command_or_of_stdio(
    own_folder: Path, reference: Reference
) -> None:
    router = routed(FlatClient())
    async with Castmate.open(Settings.load(), router=router) as mine:
        mine.work()
        prediction = await submitter(mine.ledger, reference)()
        await mine.ledger.wait(prediction.id, 10)
    async with Castmate.open(Settings.load(), router=router, keep_days=30) as server:
        server.ledger.database._clock = lambda: time.time() + 400 * DAY_S  # type: ignore[attr-defined]
        assert await sweep(server.ledger) == Swept(0, 0)

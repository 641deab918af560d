"""One entry in the registry is all that makes a client known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from castmate.clients import registry
from castmate.doctor import examine
from castmate.errors import SettingsError
from castmate.router import Router
from castmate.settings import Settings
from tests.castmate.routes import draw
from tests.doubles import MemoryPayments
from tests.fakes.registered import elsewhere

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def throw_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CLIENTS", (*registry.CLIENTS, elsewhere()))


@pytest.mark.usefixtures("throw_away")
async def test_a_registered_client_is_opened_and_asked() -> None:
    router = Router.of(Settings.load(clients="elsewhere,local", threads=3))
    result = await draw(router, payments=MemoryPayments())
    assert (result.client, router.status()[0].name) == ("elsewhere", "elsewhere")
    await router.aclose()


@pytest.mark.usefixtures("throw_away")
def test_doctor_checks_a_registered_client_and_says_what_one_lacks() -> None:
    checks = {c.name: c for c in examine(Settings.load(clients="elsewhere", threads=3))}
    assert (checks["clients"].found, checks["elsewhere"].found) == ("elsewhere", "it is there")
    checks = {c.name: c for c in examine(Settings.load(clients="elsewhere"))}
    assert not checks["clients"].ok
    assert "elsewhere (CASTMATE_THREADS is not 3)" in checks["clients"].fix
    assert "elsewhere" not in checks


def test_the_hosted_client_is_named_in_files_of_clients_alone() -> None:
    """What named it elsewhere would have to be changed for every other client too."""
    naming = [
        str(path.relative_to(ROOT))
        for folder in ("castmate", "mcp_server")
        for path in (ROOT / folder).rglob("*.py")
        if re.search("[\"']wavespeed[\"']|clients.wavespeed", path.read_text())
    ]
    own = ("castmate/clients/registry.py", "castmate/clients/wavespeed/")
    assert "castmate/clients/registry.py" in naming
    assert [path for path in naming if not path.startswith(own)] == []


def test_by_default_triton_servers_are_asked_before_this_process() -> None:
    settings = Settings.load(triton_urls="127.0.0.1:8001")
    assert [entry.name for entry in registry.set_up(settings)] == ["triton", "local"]
    assert [entry.name for entry in registry.set_up(Settings.load())] == ["local"]


def test_what_costs_money_comes_last_by_default() -> None:
    entries = registry.named(Settings.load())
    assert [entry.is_paid for entry in entries] == [False, False, True]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "names each of triton, local, wavespeed at most once, and at least one"),
        ("local,local", "at most once"),
        ("local,openai", "no such client as openai; there are triton, local, wavespeed"),
    ],
)
def test_a_client_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    monkeypatch.setenv("CASTMATE_CLIENTS", value)
    with pytest.raises(SettingsError, match=f"CASTMATE_CLIENTS: .*{reason}"):
        registry.named(Settings.load())

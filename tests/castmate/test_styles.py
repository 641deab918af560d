"""A model says itself which styles it has, to every door; what it does not have is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castmate.clients import registry
from castmate.clients.local import LocalClient
from castmate.clients.local_check import check
from castmate.engines.bundle import Bundle
from castmate.errors import InvalidRequest, Unavailable
from castmate.images import Reference
from castmate.jobs.predictions import hash_of
from castmate.router import Router
from castmate.schema import GenerateRequest
from castmate.settings import Settings
from castmate.styles import check_style
from castmate.triton import wire
from tests.castmate.command import castmate_
from tests.castmate.test_defaults import ASKED, edited
from tests.fakes.world import World

NAMES = ("night-ink", "pastel")


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with its style under two names."""
    styles = Bundle.open("toon").manifest.model_dump(mode="json")["styles"]
    known = dict.fromkeys(NAMES, styles["known"]["night-ink"])
    folder = tmp_path_factory.mktemp("styled") / "bundle"
    return edited(folder, styles=styles | {"known": known})


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model as if it had no style."""
    return edited(tmp_path_factory.mktemp("plain") / "bundle", styles=None)


def asked(style: str) -> GenerateRequest:
    return GenerateRequest.parse(ASKED | {"style": style})


@pytest.mark.slow
@pytest.mark.anyio
async def test_every_place_that_lists_styles_lists_the_bundles(
    styled: Path, monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    settings = Settings.load(clients="local", bundle=str(styled))
    assert (*registry.styles(settings),) == (*Router.of(settings).styles,) == NAMES
    (found, *_) = await check(settings)
    assert found.found.endswith("; styles: night-ink, pastel")
    monkeypatch.setenv("CASTMATE_BUNDLE", str(styled))
    said = " ".join(castmate_("generate", "--help").output.split())
    assert "Now: night-ink, pastel." in said


@pytest.mark.anyio
async def test_a_model_without_styles_lists_none(plain: Path, own_folder: Path) -> None:
    settings = Settings.load(clients="local", bundle=str(plain))
    assert (*registry.styles(settings),) == (*Router.of(settings).styles,) == ()
    (found, *_) = await check(settings)
    assert "; styles" not in found.found


@pytest.mark.anyio
async def test_an_unknown_style_is_refused_with_the_known_ones(
    styled: Path, character: Callable[[str], Reference]
) -> None:
    client = LocalClient.open(Settings.load(bundle=str(styled)))
    try:
        with pytest.raises(InvalidRequest) as caught:
            await client.generate(asked("pastell"), character("mira"))
    finally:
        await client.aclose()
    assert str(caught.value) == (
        "`style`: 'toon' has no style 'pastell'; allowed: night-ink, pastel, or nothing; did you "
        "mean `pastel`?"
    )


@pytest.mark.anyio
async def test_a_model_without_styles_says_so(
    plain: Path, character: Callable[[str], Reference]
) -> None:
    client = LocalClient.open(Settings.load(bundle=str(plain)))
    try:
        with pytest.raises(InvalidRequest, match="leave it out: the model has no styles"):
            await client.generate(asked("pastel"), character("mira"))
    finally:
        await client.aclose()


def test_no_style_is_allowed_everywhere() -> None:
    check_style("", (), "toon")
    check_style("", NAMES, "toon")


def test_a_file_of_a_style_is_checked_with_the_others(styled: Path) -> None:
    Bundle.open(styled).check()


def test_a_style_makes_another_request_of_it_and_reaches_triton() -> None:
    parameters: dict[str, Any] = wire.encode_parameters(asked(""))
    assert wire.encode_parameters(asked("pastel"))["style"] == "pastel"
    assert "style" not in parameters
    assert hash_of(asked("")) != hash_of(asked("pastel"))


@pytest.mark.anyio
@pytest.mark.usefixtures("own_folder")
async def test_the_hosted_model_has_no_styles_and_is_sent_nothing(world: World) -> None:
    error = await world.fails("waving", Unavailable, style="pastel")
    assert "has no styles" in str(error)
    assert "Nothing was sent or charged" in str(error)
    assert not error.passes, "waiting does not help"
    assert (world.fake.calls, world.payments.history) == ([], [])

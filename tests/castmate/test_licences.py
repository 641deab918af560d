"""Under which terms a model may be used is said by whatever shows the model."""

from __future__ import annotations

import json

import pytest

from castmate.clients import registry
from castmate.engines.bundle import Bundle, shipped
from castmate.engines.licences import Licence, in_short
from castmate.settings import Settings
from tests.castmate.command import castmate_

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_bundle_may_be_used_for_anything(name: str) -> None:
    licences = Bundle.open(name).manifest.licences
    assert licences
    assert {licence.name for licence in licences.values()} == {"Apache-2.0"}


def test_parts_under_the_same_licence_are_named_together() -> None:
    one, other = (Licence(name=name, url="https://x", allows="All.") for name in ("A", "B"))
    assert in_short({"head": one, "legs": other, "arms": one}) == "A (head, arms); B (legs)"


@pytest.mark.slow
def test_bundle_commands_and_doctor_say_the_licence() -> None:
    assert "Licence: Apache-2.0 (toon)" in castmate_("bundle", "list").stdout
    assert "Licence: Apache-2.0 (toon)" in castmate_("bundle", "check", "toon").stdout
    assert "licence: Apache-2.0 (toon)" in castmate_("doctor").stdout
    listed, *_ = json.loads(castmate_("bundle", "list", "--json").stdout)
    assert listed["licences"]["toon"]["url"].startswith("https://")
    assert listed["licences"]["toon"]["allows"]


def test_a_bundle_that_cannot_be_read_and_a_machine_that_does_not_draw_name_no_licence() -> None:
    assert registry.licences(Settings.load(bundle="nope")) == {}
    remote = Settings.load(clients="triton", triton_urls="127.0.0.1:1")
    assert registry.licences(remote) == {}

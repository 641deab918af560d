"""What is published of a family names the terms of its weights, for the manifest."""

from __future__ import annotations

from export.families.instantcharacter.load import Sources
from export.family import published


def test_instantcharacter_is_for_research_and_flux_dev_is_non_commercial() -> None:
    licences = published("instantcharacter").licences(Sources())
    allowed = licences["InstantCharacter"].allows
    assert all(word in allowed for word in ("Academic", "research", "education use only"))
    assert licences["FLUX.1-dev"].allows == "Non-commercial use only."
    assert licences["SigLIP"].name == licences["DINOv2"].name == "Apache-2.0"
    assert all(licence.url.startswith("https://") for licence in licences.values())


def test_a_matte_has_a_licence_of_its_own_where_there_is_one() -> None:
    licences = published("instantcharacter").licences
    assert "matte" not in licences(Sources())
    assert "Apache-2.0" in licences(Sources(matte="isnet-general-use.pth"))["matte"].name

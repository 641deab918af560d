"""`--image` takes what is saved in the local library, by name or id, beside paths and addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from castmate.images import Reference
from castmate.router import Router
from castmate.service import Castmate
from castmate.settings import Settings
from tests.castmate.command import castmate_
from tests.doubles import FlatClient, picture, routed

pytestmark = pytest.mark.usefixtures("own_folder")
RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FlatClient:
    drawing = FlatClient()
    monkeypatch.setattr(Router, "of", lambda settings: routed(drawing))
    return drawing


def save(name: str, *colours: str, key: str = "local") -> str:
    """Save a character of flat pictures; gives its id."""

    async def references() -> AsyncIterator[Reference]:
        for colour in colours:
            yield Reference.from_bytes(picture((64, 64), colour), colour)

    async def run() -> str:
        async with Castmate.open(Settings.load()) as castmate:
            return (await castmate.characters.create(name, references(), key_name=key)).id

    return asyncio.run(run())


def generate(image: str) -> tuple[int, str]:
    result = castmate_("generate", "--image", image, "--prompt", "waving", "--size", "512*512")
    return result.exit_code, result.stderr


def colours_of(reference: Reference) -> list[object]:
    return [one.image.getpixel((0, 0)) for one in reference.pictures]


@pytest.mark.slow
def test_a_saved_character_is_drawn_by_its_name_and_id_from_all_or_one_of_its_pictures(
    client: FlatClient,
) -> None:
    saved = save("Mira Vale", "red", "blue")
    for image in ("Mira Vale", "mira vale", saved, f"character://{saved}"):
        assert generate(image) == (0, "")
        assert colours_of(client.references[-1]) == [RED, BLUE]
    for image in (f"{saved}/2", "mira vale/2"):
        assert generate(image) == (0, "")
        assert colours_of(client.references[-1]) == [BLUE]


def test_a_series_takes_a_name_too(client: FlatClient, own_folder: Path) -> None:
    save("Mira", "red", "blue")
    (own_folder / "story.txt").write_text("waving\nrunning\n")
    done = castmate_("storyboard", "--image", "mira", "--scenes", "story.txt", "-o", "story")
    assert done.exit_code == 0, done.stderr
    assert [colours_of(one) for one in client.references] == [[RED, BLUE]] * 2


def test_a_file_wins_over_a_character_of_its_name(client: FlatClient, own_folder: Path) -> None:
    save("Mira", "red")
    (own_folder / "Mira").write_bytes(picture((64, 64), "blue"))
    assert generate("Mira") == (0, "")
    assert colours_of(client.references[-1]) == [BLUE]


@pytest.mark.parametrize("of", ["Mirra", "MIRAA"])
def test_a_name_that_nobody_has_tells_the_closest(client: FlatClient, of: str) -> None:
    save("Mira", "red")
    save("Rusty", "blue")
    code, message = generate(of)
    assert code == 2
    assert f"no saved character is called '{of}'" in message
    assert "The nearest: `Mira`" in message
    assert "a path, an https URL, a data URI, or a saved character's name or id" in message


@pytest.mark.slow
def test_what_cannot_be_drawn_from_is_told_before_anything_is_drawn(client: FlatClient) -> None:
    saved = save("Mira", "red", "blue")
    save("Of Ann", "red", key="ann")
    twice = save("Pim", "red"), save("pim", "blue")
    for image, expected in (
        (f"{saved}/3", "Mira has 2 pictures, and no 3"),
        (f"chr_{'0' * 16}", "no saved character is called"),
        ("Of Ann", "no saved character is called"),
        ("missing.png", "does not exist"),
        *(("PIM", one) for one in twice),
    ):
        code, error = generate(image)
        assert (code, expected in error) == (2, True), error
    assert client.references == []

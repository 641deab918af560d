"""`castmate storyboard` and `castmate sheet` draw a series, and again only what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import Result

from castmate.errors import CastmateError
from castmate.router import Router
from castmate.schema import GenerateRequest, GenerateResult
from tests.castmate.command import castmate_
from tests.doubles import FlatClient, picture, routed

SCENES = "# a story\nwaving\n\n  reading  \nasleep\n"


class Unlucky(FlatClient):
    """Cannot draw a word."""

    word = ""

    async def generate(self, request: GenerateRequest, *args: Any, **kw: Any) -> GenerateResult:
        if self.word and self.word in request.prompt:
            raise CastmateError(f"No {self.word} today.")
        return await super().generate(request, *args, **kw)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> Unlucky:
    """What draws instead of a model; a reference and scenes lie in the folder."""
    (own_folder / "fox.png").write_bytes(picture())
    (own_folder / "scenes.txt").write_text(SCENES, encoding="utf-8")
    drawing = Unlucky()
    monkeypatch.setattr(Router, "of", lambda settings: routed(drawing))
    return drawing


def storyboard(*arguments: str) -> Result:
    command = ("storyboard", "--image", "fox.png", "--scenes", "scenes.txt", "--size", "512*512")
    return castmate_(*command, *arguments)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_line_is_a_scene_and_all_are_in_the_folder(client: Unlucky, own_folder: Path) -> None:
    result = storyboard("-o", "out", "--style-words", "ink", "--seed", "7")
    assert result.exit_code == 0, result.output
    assert names(own_folder / "out") == [
        *(f"scene-0{number}.png" for number in (1, 2, 3)),
        "sheet.png",
    ]
    assert {one.prompt for one in client.requests} == {"waving, ink", "reading, ink", "asleep, ink"}
    assert "out/scene-02.png  reading\n" in result.stdout
    with Image.open("out/sheet.png") as sheet:
        assert sheet.width > 3 * 512


def test_a_scene_that_fails_is_told_and_drawn_by_the_same_command_again(
    client: Unlucky, own_folder: Path
) -> None:
    client.word = "reading"
    result = storyboard("-o", "out")
    assert result.exit_code == 1
    assert "Scene 2 was not drawn: No reading today." in result.stderr
    assert "scene-02.png" not in names(own_folder / "out")
    client.word = ""
    again = storyboard("-o", "out")
    assert again.exit_code == 0
    assert len(client.requests) == 3
    assert names(own_folder / "out") == [
        *(f"scene-0{number}.png" for number in (1, 2, 3)),
        "sheet-2.png",  # the first one has a gap
        "sheet.png",
    ]


def test_json_has_the_paths_and_the_reasons(client: Unlucky, own_folder: Path) -> None:
    client.word = "asleep"
    report = json.loads(storyboard("-o", "out", "--json").stdout)
    assert [Path(one["path"]).name if one["path"] else None for one in report["scenes"]] == [
        "scene-01.png",
        "scene-02.png",
        None,
    ]
    assert report["scenes"][2]["error"] == "No asleep today."
    assert Path(report["sheet"]).is_file()


@pytest.mark.parametrize("recipe", ["expressions", "poses", "turnaround"])
def test_a_sheet_has_the_views_of_its_recipe_on_white(
    client: Unlucky, own_folder: Path, recipe: str
) -> None:
    result = castmate_("sheet", "-i", "fox.png", "--recipe", recipe, "--size", "512*512")
    assert result.exit_code == 0, result.output
    assert all(one.prompt.endswith(", plain white background") for one in client.requests)
    assert len(client.requests) in (4, 6)
    (folder,) = own_folder.glob("castmate-*")
    assert "sheet.png" in names(folder)


@pytest.mark.parametrize(
    ("scenes", "expected"),
    [
        ("", "a list of 1..12 texts"),
        ("x\n" * 13, "a list of 1..12 texts"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_is_no_list_of_scenes_is_refused(
    client: Unlucky, own_folder: Path, scenes: str | bytes | None, expected: str
) -> None:
    path = own_folder / "scenes.txt"
    if scenes is None:
        path.unlink()
    else:
        path.write_bytes(scenes if isinstance(scenes, bytes) else scenes.encode())
    result = storyboard()
    assert (result.exit_code, client.requests) == (2, [])
    assert expected in result.stderr

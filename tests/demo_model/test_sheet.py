"""README's picture is what the command beside it draws."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from castmate.cli import app
from castmate.storyboard import StoryboardRequest
from demo_model.sheet import CELL_PX, KEY, SCENES, SEED, SETTINGS, SHEET, SIZE

README = Path(__file__).parents[2] / "README.md"


def test_the_picture_was_drawn_with_the_settings_of_its_program() -> None:
    with Image.open(SHEET) as picture:
        assert json.loads(picture.info[KEY]) == SETTINGS
        assert picture.size == (5 * CELL_PX, 4 * CELL_PX)


def test_readme_names_the_program_and_the_scenes_in_order() -> None:
    text = README.read_text()
    assert f"({SHEET.relative_to(README.parent)})" in text
    assert "python -m demo_model.sheet" in text
    places = [text.index(f'"{scene}"') for scene in SCENES]
    assert places == sorted(places)


def test_the_command_that_draws_it_takes_what_it_is_given() -> None:
    shown = CliRunner().invoke(app, ["storyboard", "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    options = ("--image", "--scenes", "--size", "--seed", "--output", "--bundle")
    assert [option for option in options if option not in shown.stdout] == []
    asked = {"image": "-", "scenes": list(SCENES), "size": SIZE, "seed": SEED}
    assert [one.prompt for one in StoryboardRequest.parse(asked).requests(SEED)] == list(SCENES)

"""`--output` replaces files alone, keeps links and modes, makes folders, and writes to a pipe."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

from castmate.router import Router
from tests.castmate.command import castmate_
from tests.doubles import FlatClient, picture, routed

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> FlatClient:
    """What draws instead of a model; a reference lies in the folder."""
    (own_folder / "fox.png").write_bytes(picture())
    drawing = FlatClient(warnings=("The prompt was cut.",))
    monkeypatch.setattr(Router, "of", lambda settings: routed(drawing))
    return drawing


def generate(output: str, *arguments: str) -> Result:
    scene = ["--image", "fox.png", "--prompt", "waving", "--size", "512*640", "--seed", "7"]
    return castmate_("generate", *scene, "--output", output, *arguments)


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        return image.size == (512, 640)


def test_a_link_stays_a_link_and_what_it_leads_to_is_replaced(
    client: FlatClient, own_folder: Path
) -> None:
    (own_folder / "elsewhere").mkdir()
    (own_folder / "elsewhere/real.png").write_text("old")
    (own_folder / "scene.png").symlink_to("elsewhere/real.png")
    assert generate("scene.png").exit_code == 0
    assert (own_folder / "scene.png").is_symlink()
    assert is_picture(own_folder / "elsewhere/real.png")
    assert [path.name for path in (own_folder / "elsewhere").iterdir()] == ["real.png"]


def test_a_link_to_nothing_makes_what_it_leads_to(client: FlatClient, own_folder: Path) -> None:
    (own_folder / "scene.png").symlink_to("new/real.png")
    assert generate("scene.png").exit_code == 0
    assert is_picture(own_folder / "new/real.png")


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_file_that_is_replaced_keeps_its_mode(
    client: FlatClient, own_folder: Path, mode: int
) -> None:
    scene = own_folder / "scene.png"
    scene.write_text("old")
    scene.chmod(mode)
    assert generate("scene.png").exit_code == 0
    assert is_picture(scene)
    assert stat.S_IMODE(scene.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_root_replaces_keeps_its_owner(client: FlatClient, own_folder: Path) -> None:
    scene = own_folder / "scene.png"
    scene.write_text("old")
    os.chown(scene, 12345, 12345)
    assert generate("scene.png").exit_code == 0
    assert scene.stat().st_uid == 12345


@pytest.mark.parametrize("through_link", [False, True])
def test_what_is_no_regular_file_is_refused_before_anything_is_drawn(
    client: FlatClient, own_folder: Path, through_link: bool
) -> None:
    os.mkfifo(own_folder / "pipe")
    if through_link:
        (own_folder / "link.png").symlink_to("pipe")
    result = generate("link.png" if through_link else "pipe")
    assert result.exit_code == 2
    assert (
        "cannot be replaced (Not a regular file); allowed: a file, a folder, or -" in result.stderr
    )
    assert stat.S_ISFIFO((own_folder / "pipe").stat().st_mode)
    assert client.requests == []


def test_the_null_device_is_still_one_afterwards(client: FlatClient) -> None:
    assert generate("/dev/null").exit_code == 2
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_dash_writes_the_picture_to_stdout_and_nothing_else(
    client: FlatClient, own_folder: Path
) -> None:
    result = generate("-", "--format", "webp")
    assert result.exit_code == 0
    with Image.open(io.BytesIO(result.stdout_bytes)) as image:
        assert (image.format, image.size) == ("WEBP", (512, 640))
        again = io.BytesIO(result.stdout_bytes)
    assert int.from_bytes(again.getvalue()[4:8], "little") + 8 == len(again.getvalue())
    assert "Warning: The prompt was cut.\nDrawn by flat" in result.stderr
    assert [path.name for path in own_folder.iterdir()] == ["fox.png"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--num-images", "2"], "stdout takes one picture"), (["--json"], "both the picture and")],
)
def test_stdout_takes_one_picture_and_no_json_beside_it(
    client: FlatClient, arguments: list[str], reason: str
) -> None:
    result = generate("-", *arguments)
    assert (result.exit_code, client.requests) == (2, [])
    assert reason in result.output


def test_a_slash_at_the_end_names_a_folder_which_is_made(
    client: FlatClient, own_folder: Path
) -> None:
    assert generate("new/pictures.png/").exit_code == 0
    assert is_picture(own_folder / "new/pictures.png/castmate-7.png")


def test_the_home_folder_may_be_abbreviated(
    client: FlatClient, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(own_folder / "home"))
    assert generate("~/scene.png").exit_code == 0
    assert is_picture(own_folder / "home/scene.png")

"""A reference may be named in four ways, and an agent reads nothing outside its folders."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from urllib.parse import quote

import anyio
import pytest

from castmate.errors import ImageRejected
from castmate.images import MAX_BYTES, Reference
from castmate.references import resolve
from tests.doubles import encoded, noise, picture

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

FOX = picture()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that an agent may read, beside one that it may not."""
    for folder in ("home", "secret"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "fox.png").write_bytes(FOX)
    return tmp_path / "home"


async def read(source: str, roots: list[Path] | None = None) -> Reference:
    async def fetch(url: str) -> bytes:
        return {"https://a.example/fox.png?w=1": FOX}[url]

    with anyio.fail_after(10):
        return await resolve(source, roots=roots, fetch=fetch)


async def refusal(source: str, roots: list[Path] | None = None) -> str:
    with pytest.raises(ImageRejected) as caught:
        await read(source, roots)
    return str(caught.value)


async def test_a_url_is_fetched_whole_query_included() -> None:
    assert (await read("https://a.example/fox.png?w=1", roots=[])).data == FOX


async def test_a_private_url_is_refused_by_the_real_fetch() -> None:
    with pytest.raises(ImageRejected, match="is not on the public internet"):
        await resolve("https://127.0.0.1/fox.png", roots=[])


@pytest.mark.parametrize(
    "uri",
    [
        f"data:image/png;base64,{base64.b64encode(FOX).decode()}",
        f"data:image/png;base64,{base64.b64encode(FOX).decode().rstrip('=')}",
        f"DATA:;base64,{base64.encodebytes(FOX).decode()}",
        f"data:image/png;name=fox.png;base64,{quote(base64.b64encode(FOX).decode())}",
    ],
    ids=["plain", "no padding", "line breaks", "percent signs"],
)
async def test_a_data_uri_is_decoded(uri: str) -> None:
    assert (await read(uri, roots=[])).data == FOX


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("data:image/png,fox", "is not a base64 data URI; allowed: data:image/png;base64,..."),
        ("data:image/png;base64,####", "the data URI's base64 cannot be decoded"),
        ("data:image/png;base64,Zm94", "the data URI is not a picture"),
        ("data:image/png;base64,", "the data URI is not a picture"),
    ],
)
async def test_a_damaged_data_uri_is_refused(uri: str, reason: str) -> None:
    assert reason in await refusal(uri)


async def test_bare_base64_is_told_what_it_lacks() -> None:
    told = await refusal(base64.b64encode(encoded(noise((40, 40)))).decode())
    assert "looks like bare base64; Put data:image/png;base64, in front of it." in told
    assert len(told) < 250


async def test_a_person_may_name_any_path(home: Path) -> None:
    for source in (
        str(home / "fox.png"),
        os.path.relpath(home / "fox.png"),
        f"file://{home}/fox.png",
    ):
        assert (await read(source)).data == FOX


async def test_a_person_may_abbreviate_the_home_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    assert (await read("~/fox.png")).data == FOX
    assert "~nobody-of-that-name/x.png" in await refusal("~nobody-of-that-name/x.png")


async def test_a_file_uri_may_have_escaped_characters_but_no_other_host(home: Path) -> None:
    (home / "a fox.png").write_bytes(FOX)
    assert (await read(f"file://localhost{home}/a%20fox.png")).data == FOX
    assert "is on another machine" in await refusal("file://server/share/fox.png")


async def test_an_agent_may_name_a_path_in_its_folders(home: Path) -> None:
    for source in (str(home / "fox.png"), "fox.png", f"file://{home}/fox.png"):
        assert (await read(source, roots=[home.parent / "work", home])).data == FOX


async def test_an_agent_is_refused_a_path_outside_its_folders_and_told_them(home: Path) -> None:
    secret = home.parent / "secret/fox.png"
    (home / "link.png").symlink_to(secret)
    (home / "folder").symlink_to(secret.parent)
    for source in (
        str(secret),
        "../secret/fox.png",
        f"{home}/../secret/fox.png",
        "link.png",
        str(home / "link.png"),
        str(home / "folder/fox.png"),
        f"file://{home}/%2e%2e/secret/fox.png",
        "/etc/passwd",
        "/etc/no-such-file",
        f"{home}-other/fox.png",
    ):
        told = await refusal(source, roots=[home])
        assert "is outside the folders that may be read" in told
        assert f"allowed: an https URL, a data URI, a path in {home}" in told
        assert "CASTMATE_IMAGE_ROOTS" in told


async def test_a_link_within_the_folders_is_followed(home: Path) -> None:
    (home / "link.png").symlink_to(home / "fox.png")
    assert (await read("link.png", roots=[home])).data == FOX


async def test_folders_that_are_links_themselves_work(home: Path) -> None:
    link = home.parent / "link"
    link.symlink_to(home)
    assert (await read(str(link / "fox.png"), roots=[link])).data == FOX
    assert (await read(str(home / "fox.png"), roots=[link])).data == FOX


async def test_without_folders_no_path_is_allowed(home: Path) -> None:
    told = await refusal(str(home / "fox.png"), roots=[])
    assert "no path (CASTMATE_IMAGE_ROOTS names no folder)" in told


async def test_a_missing_file_is_told_with_the_pictures_that_are_there(home: Path) -> None:
    told = await refusal("fxo.png", roots=[home])
    assert "`image`: fxo.png does not exist; allowed: an https URL, a data URI, a path in" in told
    assert f"Pictures in {home}: fox.png" in told


async def test_a_bare_word_is_told_what_is_allowed() -> None:
    assert await refusal("fox") == (
        "`image`: fox does not exist; allowed: an https URL, a data URI, the path of a picture"
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("C:\\Users\\me\\fox.png", "is a Windows path, and this machine is not Windows"),
        ("c:/Users/me/fox.png", "is a Windows path"),
        ("\\\\server\\share\\fox.png", "is a Windows path"),
        ("ftp://a.example/fox.png", "is a ftp URI; allowed: an https URL"),
        ("javascript:alert(1)", "is a javascript URI"),
        ("fox\0.png", "cannot be read (embedded null byte)"),
        ("f" * 5000, "cannot be read (File name too long)"),
        (".", "is a folder"),
    ],
)
async def test_what_cannot_be_a_picture_here_is_refused(source: str, reason: str) -> None:
    for roots in (None, [Path.cwd()]):
        told = await refusal(source, roots)
        assert reason in told
        assert len(told) < 400


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
async def test_what_may_never_end_is_not_opened(home: Path) -> None:
    os.mkfifo(home / "pipe.png")
    assert "is not a file" in await refusal(str(home / "pipe.png"))
    assert "is not a file" in await refusal("/dev/zero")


async def test_links_in_a_circle_are_refused(home: Path) -> None:
    (home / "a.png").symlink_to(home / "b.png")
    (home / "b.png").symlink_to(home / "a.png")
    assert "a.png" in await refusal("a.png", roots=[home])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
async def test_a_file_without_permission_is_told(home: Path) -> None:
    (home / "fox.png").chmod(0)
    assert "cannot be read (Permission denied)" in await refusal("fox.png", roots=[home])


async def test_a_huge_file_is_read_only_up_to_the_limit(home: Path) -> None:
    with (home / "huge.png").open("wb") as file:
        file.truncate(MAX_BYTES * 50)
    assert "huge.png has more than 20 MiB" in await refusal("huge.png", roots=[home])

"""A reference may be named in four ways, and an agent reads nothing outside its folders."""

from __future__ import annotations

import base64
import os
import unicodedata
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
        ("data:image/png;base64,", "the data URI is empty"),
    ],
)
async def test_a_damaged_data_uri_is_refused(uri: str, reason: str) -> None:
    assert reason in await refusal(uri)


async def test_base64_alone_is_read_where_it_is_unmistakable(tmp_path: Path) -> None:
    for data in (
        FOX,
        encoded(noise((40, 40)), format="JPEG"),
        encoded(noise((40, 40)), format="WEBP"),
    ):
        text = base64.b64encode(data).decode()
        for source in (text, f"\n{text}\n", f"image/png;base64,{text}"):
            assert (await read(source, roots=[])).data == data


async def test_base64_in_the_alphabet_of_urls_is_read() -> None:
    data = encoded(noise((40, 40)))
    text = base64.urlsafe_b64encode(data).decode()
    assert set("-_") & set(text)
    for source in (f"data:image/png;base64,{text}", text, text.rstrip("=")):
        assert (await read(source, roots=[])).data == data


async def test_a_long_path_is_not_taken_for_base64(home: Path) -> None:
    folder = home / "9j" / ("a" * 100)
    folder.mkdir(parents=True)
    (folder / "fox").write_bytes(FOX)
    assert (await read(f"9j/{'a' * 100}/fox", roots=[home])).data == FOX


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
        message = await refusal(source, roots=[home])
        assert "is outside the folders that may be read" in message
        assert f"allowed: an https URL, a data URI, a path in {home}" in message
        assert "CASTMATE_IMAGE_ROOTS" in message


async def test_a_link_within_the_folders_is_followed(home: Path) -> None:
    (home / "link.png").symlink_to(home / "fox.png")
    assert (await read("link.png", roots=[home])).data == FOX


async def test_folders_that_are_links_themselves_work(home: Path) -> None:
    link = home.parent / "link"
    link.symlink_to(home)
    assert (await read(str(link / "fox.png"), roots=[link])).data == FOX
    assert (await read(str(home / "fox.png"), roots=[link])).data == FOX


async def test_without_folders_no_path_is_allowed(home: Path) -> None:
    message = await refusal(str(home / "fox.png"), roots=[])
    assert "no path (CASTMATE_IMAGE_ROOTS names no folder)" in message


async def test_a_missing_file_is_told_with_the_pictures_that_are_there(home: Path) -> None:
    message = await refusal("fxo.png", roots=[home])
    assert "`image`: fxo.png does not exist; allowed: an https URL, a data URI, a" in message
    assert f"Pictures in {home}: fox.png" in message


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
        message = await refusal(source, roots)
        assert reason in message
        assert len(message) < 400


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


@pytest.mark.parametrize(
    ("on_disk", "asked"),
    [
        ("Screenshot 1.02.03\u202fPM.png", "Screenshot 1.02.03 PM.png"),
        ("a\u00a0fox.png", "a fox.png"),
        (unicodedata.normalize("NFD", "Füchse/für.png"), "Füchse/für.png"),
        ("für.png", unicodedata.normalize("NFD", "für.png")),
    ],
    ids=["narrow space", "no-break space", "decomposed on disk", "decomposed in the call"],
)
async def test_a_name_is_found_however_its_spaces_and_accents_are_written(
    home: Path, on_disk: str, asked: str
) -> None:
    (home / on_disk).parent.mkdir(exist_ok=True)
    (home / on_disk).write_bytes(FOX)
    assert (await read(asked, roots=[home])).data == FOX
    assert (await read(str(home / asked))).data == FOX


async def test_a_name_written_otherwise_leads_out_of_no_folder(home: Path) -> None:
    (home / "a\u00a0fox.png").symlink_to(home.parent / "secret/fox.png")
    assert "is outside the folders" in await refusal("a fox.png", roots=[home])


async def test_the_most_similar_names_come_first_in_the_hint(home: Path) -> None:
    for number in range(30):
        (home / f"a{number:02}.png").write_bytes(FOX)
    (home / "zebra-final.png").write_bytes(FOX)
    message = await refusal("Zebra_final.png", roots=[home])
    assert f"Pictures in {home}: zebra-final.png, " in message


async def test_a_pipe_of_the_shell_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.write(writing, FOX)
    os.close(writing)
    try:
        assert (await read(f"/dev/fd/{reading}")).data == FOX
    finally:
        os.close(reading)


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
async def test_stdin_is_read_for_a_person_and_never_for_an_agent(
    home: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    with (home / "fox.png").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert "is outside" in await refusal("/dev/stdin", roots=[home])
        assert "does not exist" in await refusal("-", roots=[home])
        assert (await read(source)).data == FOX


async def test_a_device_as_stdin_is_refused_because_it_may_never_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open("/dev/zero") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert "- cannot be read (it is neither a pipe nor a file)" in await refusal("-")

"""The studio's page as a browser gets it: one document, its policy, its size."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from castmate.service import Castmate
from castmate_mcp import studio
from castmate_mcp.app import build_app
from castmate_mcp.page import SHARED, Page
from castmate_mcp.settings import ServerSettings
from tests.doubles import FlatClient, routed

SOURCES = sorted([*(Path(studio.__file__).parent / "page").glob("*.js"), *SHARED.glob("*.js")])
pytestmark = pytest.mark.anyio


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    settings = ServerSettings.load(data_dir=tmp_path)
    async with Castmate.open(settings, router=routed(FlatClient())) as castmate:
        transport = httpx2.ASGITransport(app=build_app(castmate))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield http


@pytest.mark.parametrize("path", ["/", "/studio"])
async def test_the_page_is_one_document_below_its_budget(
    http: httpx2.AsyncClient, path: str
) -> None:
    answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert len(answer.content) < 120_000
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"'](?!data:)", answer.text)
    assert re.findall(r"https?://[^\s\"'<>)]+", answer.text) == [
        "http://www.w3.org/2000/svg"  # the icon's and the plots' namespace, which nobody fetches
    ] * answer.text.count("http://")


async def test_nothing_but_its_own_script_and_style_may_run(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/")
    policy = answer.headers["content-security-policy"]
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; img-src 'self' data: blob:; connect-src 'self'; ")
    for directive in (
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    ):
        assert directive in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_who_has_the_page_gets_it_once(http: httpx2.AsyncClient) -> None:
    tag = (await http.get("/")).headers["etag"]
    again = await http.get("/", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"]
    assert (await http.get("/", headers={"if-none-match": '"older"'})).status_code == 200


def test_a_module_imports_what_it_uses_and_nothing_else() -> None:
    """In the one scope of the page, a name that is not imported would be found all the same."""
    declares = r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)"
    exports = {
        source: set(re.findall(declares.replace("(?:export )?", "export "), text, re.MULTILINE))
        for source in SOURCES
        if (text := source.read_text())
    }
    wrong = []
    for source in SOURCES:
        text = source.read_text()
        lines = re.findall(r"^import \{([^}]+)\} from", text, re.MULTILINE)
        imported = {name.strip() for line in lines for name in line.split(",") if name.strip()}
        code = re.sub(r"^import [^;]+;$|//.*$|\"[^\"\n]*\"", "", text, flags=re.MULTILINE)
        others = set().union(*(names for other, names in exports.items() if other != source))
        called = {name for name in others if re.search(rf"(?<![\w.#]){name}\(", code)}
        missing = called - imported - set(re.findall(declares, text, re.MULTILINE))
        needless = {name for name in imported if not re.search(rf"\b{name}\b", code)}
        wrong += [f"{source.name} lacks {name}" for name in sorted(missing)]
        wrong += [f"{source.name} does not need {name}" for name in sorted(needless)]
    assert wrong == []


def test_modules_come_after_what_they_import_and_dollars_stay(tmp_path: Path) -> None:
    (tmp_path / "part.js").write_text('export const A = "$a";\n')
    (tmp_path / "app.js").write_text('import { A } from "./part.js";\n\nlog(A);\n')
    page = Page.of(tmp_path / "app.js", [])
    assert page.script == 'const A = "$a";\n\nlog(A);\n'
    (tmp_path / "page.html").write_text("<title>$name</title><script>$script</script>")
    html = page.document(tmp_path / "page.html", {"name": "Page"})
    assert html == f"<title>Page</title><script>{page.script}</script>"

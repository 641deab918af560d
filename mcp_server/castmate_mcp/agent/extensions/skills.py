"""Skills: how to use the tools well, as files that hosts load (SEP-2640)."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.server.extension import Extension, MethodBinding, ResourceBinding
from mcp.server.mcpserver.resources import TextResource
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, RequestParams

_HOUR_MS: Final = 3_600_000


class SkillUri(RequestParams):
    """Names a skill."""

    uri: str


class SkillsExtension(Extension):
    """Every folder of `skills/` that has a SKILL.md."""

    identifier = "io.modelcontextprotocol/skills"

    def __init__(self) -> None:
        folder = files("castmate_mcp.agent.extensions") / "skills"
        self._skills = {one.name: dict(_texts(one)) for one in folder.iterdir() if one.is_dir()}

    def resources(self) -> Sequence[ResourceBinding]:
        """Every file of every skill."""
        return [
            ResourceBinding(
                TextResource(
                    uri=f"skill://{name}/{path}",
                    name=f"{name}/{path}",
                    description=_frontmatter(texts["SKILL.md"])["description"],
                    mime_type=mimetypes.guess_type(path)[0] or "text/markdown",
                    text=text,
                )
            )
            for name, texts in self._skills.items()
            for path, text in texts.items()
        ]

    def methods(self) -> Sequence[MethodBinding]:
        """`skills/list` and `skills/get`."""
        return [
            MethodBinding("skills/list", RequestParams, self._list),
            MethodBinding("skills/get", SkillUri, self._get),
        ]

    async def _list(
        self, ctx: ServerRequestContext[Any, Any], params: RequestParams
    ) -> dict[str, Any]:
        return _cached(skills=[self._entry(name) for name in self._skills])

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: SkillUri) -> dict[str, Any]:
        for name in self._skills:
            if params.uri == f"skill://{name}/SKILL.md":
                return _cached(skill=self._entry(name))
        raise MCPError(INVALID_PARAMS, f"There is no skill {params.uri!r}; skills/list shows them.")

    def _entry(self, name: str) -> dict[str, Any]:
        texts = self._skills[name]
        return {
            "uri": f"skill://{name}/SKILL.md",
            "frontmatter": _frontmatter(texts["SKILL.md"]),
            "resources": [
                {
                    "uri": f"skill://{name}/{path}",
                    "digest": f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
                    "size": len(text.encode()),
                }
                for path, text in texts.items()
            ],
        }


def _cached(**values: Any) -> dict[str, Any]:
    return {"resultType": "complete", "ttlMs": _HOUR_MS, "cacheScope": "public"} | values


def _texts(folder: Traversable, before: str = "") -> Iterator[tuple[str, str]]:
    for one in sorted(folder.iterdir(), key=lambda one: one.name):
        if one.is_dir():
            yield from _texts(one, f"{before}{one.name}/")
        else:
            yield f"{before}{one.name}", one.read_text(encoding="utf-8")


def _frontmatter(text: str) -> dict[str, str]:
    lines = text.split("---\n")[1].splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

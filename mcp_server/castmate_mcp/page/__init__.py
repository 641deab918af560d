"""Pages for people: one HTML document each, made of ES modules and style sheets.

The sources are plain modules that import each other, so that editors and linters follow them and
pages share them. What a browser gets is one document with one script and one style sheet: one
request to the first paint, and a policy that names both by their hashes, so that nothing else runs,
not even a file of the same server.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

SHARED: Final = Path(__file__).parent
"""Where what several pages use is."""

_IMPORT: Final = re.compile(r'^import \{[^}]+\} from "(\.[\w./-]+\.js)";\n', re.MULTILINE)
# Indentation and lines of comments are for those who read the sources: a quarter of the bytes. No
# text of a page goes on in another line.
_LAYOUT: Final = re.compile(r"^[ \t]*//.*\n|^[ \t]+|^/\*[^*]*\*/\n", re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A page's one script and one style sheet, and what the policy says of them.

    Attributes:
        script: All of its modules, in one scope.
        style: All of its style sheets.
    """

    script: str
    style: str

    @classmethod
    def of(cls, entry: Path, styles: Iterable[Path]) -> Page:
        """A page from its sources.

        Args:
            entry: The module that imports the others, by relative paths and in braces.
            styles: In the order in which later rules win.
        """
        script = "\n".join(_modules(entry.resolve()).values())
        return cls(script, "\n".join(_bare(one.read_text(encoding="utf-8")) for one in styles))

    def policy(self, **directives: str) -> str:
        """A Content-Security-Policy under which nothing but the page's own script runs.

        Args:
            directives: What the page needs besides, such as `img_src`; nothing is allowed else.
        """
        allowed = {
            "default-src": "'none'",
            **{name.replace("_", "-"): sources for name, sources in directives.items()},
            "style-src": _hash(self.style),
            "script-src": _hash(self.script),
            "base-uri": "'none'",
            "form-action": "'none'",
            "require-trusted-types-for": "'script'",
        }
        return "; ".join(f"{name} {sources}" for name, sources in allowed.items())

    def document(self, template: Path, values: Mapping[str, str]) -> str:
        """The HTML; `$script` and `$style` of the template are the page's own."""
        text = template.read_text(encoding="utf-8")
        return Template(text).substitute(values, script=self.script, style=self.style)


def _modules(path: Path, known: dict[Path, str] | None = None) -> dict[Path, str]:
    """The texts of a module and of all that it imports, each after what it needs.

    In one scope, a name that two modules declare is a syntax error: it cannot go unnoticed.
    """
    known = {} if known is None else known
    text = path.read_text(encoding="utf-8")
    for name in _IMPORT.findall(text):
        needed = (path.parent / name).resolve()
        if needed not in known:
            _modules(needed, known)
    known[path] = _bare(_EXPORT.sub("", _IMPORT.sub("", text)))
    return known


def _bare(text: str) -> str:
    return _LAYOUT.sub("", text).lstrip("\n")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

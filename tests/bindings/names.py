"""The names of TensorRT's and CUDA's API that a source file uses, read from its syntax tree.

Nothing of TensorRT has types that a checker could follow, so what a variable is called says what it
is: `engine.num_io_tensors` and `self._engine.num_io_tensors` are names of `ICudaEngine`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OWNERS = {
    "trt": (),
    "builder": ("Builder",),
    "network": ("INetworkDefinition",),
    "parser": ("OnnxParser",),
    "config": ("IBuilderConfig", "IRuntimeConfig"),
    "profile": ("IOptimizationProfile",),
    "value": ("ITensor",),
    "runtime": ("Runtime",),
    "engine": ("ICudaEngine",),
    "context": ("IExecutionContext",),
    "cache": ("ITimingCache", "IRuntimeCache"),
    "get_timing_cache": ("ITimingCache",),
    "create_engine_inspector": ("EngineInspector",),
}
"""What variables and methods of these names hold: the module, or an object of a class."""
MAPPING = {"items", "keys", "values"}
"""Of profiles that are still mappings of our own."""
CUDA = re.compile(r"cuda[A-Z]\w+")


class Name(NamedTuple):
    """A name that a line uses.

    Attributes:
        owners: The classes one of which must have it; empty for the module.
        name: With dots where it is a member of a member.
        where: File and line.
    """

    owners: tuple[str, ...]
    name: str
    where: str


def of_tensorrt(path: Path) -> set[Name]:
    """Every name of TensorRT's API in a file; none where it never speaks of `trt` or a context."""
    tree = ast.parse(path.read_text())
    if not {"trt", "context"} & set(_identifiers(tree)):
        return set()
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        chain = _chain(node)
        owned = [at for at, part in enumerate(chain[:-1]) if part in OWNERS]
        if owned:
            owner, *names = chain[owned[-1] :]
            if names[0] in MAPPING:
                continue
            # Of objects only the next name is known; of the module all that follow are.
            name = ".".join(names if owner == "trt" else names[:1])
            found.add(Name(OWNERS[owner], name, f"{path.name}:{node.lineno}"))
    return found


def of_cuda(path: Path) -> set[Name]:
    """Every function, type and constant of CUDA's runtime that a file names, in strings too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute | ast.Constant):
            text = node.attr if isinstance(node, ast.Attribute) else node.value
            if isinstance(text, str) and CUDA.fullmatch(text):
                found.add(Name((), text, f"{path.name}:{node.lineno}"))
    return found


def _chain(node: ast.expr) -> list[str]:
    """`self._library.trt.Runtime` as its parts; of a call, the function is a part."""
    if isinstance(node, ast.Call):
        return _chain(node.func)
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr.lstrip("_") if _is_ours(node) else node.attr]
    return [node.id] if isinstance(node, ast.Name) else [""]


def _is_ours(node: ast.Attribute) -> bool:
    """Whether it is an attribute of one of our objects that is named for what it holds."""
    return node.attr.lstrip("_") in OWNERS


def _identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr.lstrip("_")
        elif isinstance(node, ast.Name):
            yield node.id

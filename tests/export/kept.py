"""Exported bundles that are kept from run to run: tracing and translating them takes minutes.

One is made again when anything changes that it is made from: the exporter, what describes its
graphs, the networks of the tests, or a package. How toon is trained is not among them: its weights
are in its bundle. Workers wait for one another. Nothing writes into a bundle that is kept; a test
that changes one takes a copy.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import grimp
from filelock import FileLock

from castmate.engines.bundle import Bundle

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/castmate-tests"
SOURCES = (
    "castmate/bundles/toon/bundle.json",
    "castmate/engines",
    "castmate/families",
    "export",
    "tests/export/conftest.py",
    "tests/export/test_toon.py",
)
TOON = "demo_model.build"
PACKAGES = ("diffusers", "onnx", "onnx-ir", "onnxscript", "torch", "transformers")
VERSIONS_KEPT = 3


def kept(name: str, make: Callable[[Path], object]) -> Bundle:
    """The bundle of that name, made by `make` in the folder that it gets, unless it is there."""
    folder = CACHE / _version() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{name}.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                make(Path(scratch) / name)
                (Path(scratch) / name).rename(folder)
    return Bundle.open(folder)


@functools.cache
def _version() -> str:
    """Of everything that the bundles are made from; forgets the oldest ones."""
    digest = hashlib.sha256()
    for file in _sources():
        digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    digest.update(repr([version(package) for package in PACKAGES]).encode())
    found = digest.hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    others = [path for path in CACHE.iterdir() if path.is_dir() and path.name != found]
    others.sort(key=lambda path: path.stat().st_mtime)
    for path in others[: 1 - VERSIONS_KEPT]:
        shutil.rmtree(path, ignore_errors=True)
    return found


def _sources() -> Iterator[Path]:
    for source in SOURCES:
        path = ROOT / source
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]
    graph = grimp.build_graph("demo_model", cache_dir=None)
    for module in sorted({TOON} | graph.find_upstream_modules(TOON)):
        yield (ROOT / module.replace(".", "/")).with_suffix(".py")

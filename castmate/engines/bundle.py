"""A model on disk: `bundle.json`, its graphs and tokenizers, all checked before loading."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from castmate.engines.digests import Digests
from castmate.engines.family import family_of
from castmate.engines.manifest import FORMAT, MANIFEST, FileSpec, Manifest
from castmate.errors import BundleCorrupt, BundleMismatch, BundleNotFound
from castmate.paths import expand


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest fits this code; its files are checked as they are opened."""

    path: Path
    manifest: Manifest
    digests: Digests = field(default_factory=Digests, compare=False)

    @classmethod
    def open(cls, name_or_path: str | Path, digests: Digests | None = None) -> Self:
        """Find a bundle and read its manifest.

        Args:
            name_or_path: The name of a shipped bundle, or a folder with a `bundle.json`.
            digests: Known hashes of files; by default each file is read once.

        Raises:
            BundleNotFound: There is none.
            BundleCorrupt: Its manifest cannot be read.
            BundleMismatch: It was made for other code, or its family is unknown here.
        """
        path = locate(name_or_path)
        manifest = path / MANIFEST
        try:
            values = json.loads(manifest.read_bytes())
            found = values.get("format")
        except (OSError, ValueError, AttributeError) as error:
            raise BundleCorrupt(f"{manifest} cannot be read: {error}. Export it again.") from None
        if found != FORMAT:
            raise BundleMismatch(
                f"{manifest} has format {found!r}, this version of castmate reads format {FORMAT}. "
                "Export it again, or install the version of castmate that made it: "
                f"{values.get('created_with', {}).get('castmate', 'unknown')}."
            )
        try:
            bundle = cls(path, Manifest.model_validate(values), digests or Digests())
            family_of(bundle.manifest.family).check(bundle.manifest)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise BundleCorrupt(
                f"{manifest}: `{where}`: {first['msg']}. Export it again."
            ) from None
        bundle._check_graphs()
        return bundle

    def file(self, spec: FileSpec) -> Path:
        """The checked path of one of the bundle's files.

        Raises:
            BundleCorrupt: It is missing, or its bytes are not those that the manifest names.
        """
        return self._checked(spec, self.digests.of)

    def check(self) -> None:
        """Read and check every file, ignoring remembered hashes.

        Raises:
            BundleCorrupt: Names the first bad one.
        """
        for spec in self.manifest.files:
            self._checked(spec, self.digests.read)

    def located(self, spec: FileSpec) -> Path:
        """Where one of its files is, unchecked: in its folder, or in that of its base."""
        own, base = self.path / spec.file, self.manifest.base
        return own if base is None or own.is_file() else self.path.with_name(base) / spec.file

    def _checked(self, spec: FileSpec, digest_of: Callable[[Path], str]) -> Path:
        path = self.located(spec)
        if not path.is_file():
            raise BundleCorrupt(f"{path} is missing. Install or export bundle {self.name!r} again.")
        if (digest := digest_of(path)) != spec.sha256:
            raise BundleCorrupt(
                f"{path} was changed: its sha256 is {digest[:12]}..., {MANIFEST} says "
                f"{spec.sha256[:12]}.... Install or export bundle {self.name!r} again."
            )
        return path

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def sha256(self) -> str:
        """What no other bundle has: the hash of its manifest, which names that of every file."""
        return hashlib.sha256((self.path / MANIFEST).read_bytes()).hexdigest()

    @property
    def has_step_caching(self) -> bool:
        """Whether it can skip steps."""
        return self.manifest.step_caching is not None

    def _check_graphs(self) -> None:
        family, present = family_of(self.manifest.family), self.manifest.graphs
        wanted = family.graph_names(self.manifest)
        again = "Export it again."
        for name in wanted:
            if (graph := present.get(name)) is None:
                raise BundleMismatch(f"Bundle {self.name!r} has no graph {name!r}. {again}")
            if differences := family.table.differences(name, graph.inputs, graph.outputs):
                raise BundleMismatch(
                    f"Graph {name!r} of bundle {self.name!r}: {'; '.join(differences)}. {again}"
                )
        try:
            family.table.sizes({name: present[name].tensors for name in wanted})
        except ValueError as error:
            raise BundleMismatch(
                f"The graphs of bundle {self.name!r} do not fit one another: {error}. {again}"
            ) from None


def shipped() -> list[str]:
    """Names of the bundles in this package."""
    return sorted(path.parent.name for path in _home().glob(f"*/{MANIFEST}"))


def locate(name_or_path: str | Path) -> Path:
    """The folder of a bundle.

    Raises:
        BundleNotFound: Neither a shipped name nor a folder with a manifest.
    """
    for path in (_home() / name_or_path, expand(Path(name_or_path))):
        if os.path.isfile(path / MANIFEST):  # also False for a name that no file can have
            return path.resolve()
    raise BundleNotFound(
        f"There is no bundle {str(name_or_path)!r}: neither a shipped one "
        f"({', '.join(shipped()) or 'none'}) nor a folder with a {MANIFEST}. Name one of these in "
        "CASTMATE_BUNDLE or with --bundle."
    )


def _home() -> Path:
    return Path(str(files("castmate"))) / "bundles"

"""The TensorRT that a bundle's container needs: exactly the one that built its plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from castmate.engines.bundle import Bundle
from castmate.engines.plan import Flavour
from castmate.errors import BundleMismatch

RELEASES: Final = "tensorrt.json"
"""Beside `compose.yaml`: the installable versions, and the source of that list."""


def tensorrt_requirement(bundle: Bundle, deploy: Path) -> str:
    """The package that pip installs into the image for a bundle; empty if it needs no TensorRT.

    Args:
        bundle: Its `created_with` names the version.
        deploy: The checkout's folder `deploy`.

    Raises:
        BundleMismatch: That version cannot be installed, or none is named; says what to do.
    """
    manifest = bundle.manifest
    if manifest.engine not in list(Flavour):
        return ""
    flavour = Flavour(manifest.engine)
    releases = json.loads((deploy / RELEASES).read_text())
    wheel = releases["wheels"][flavour]
    version = manifest.created_with.get(flavour, "an unknown version")
    if version in wheel["versions"]:
        return f"{wheel['package']}=={version}"
    newest = wheel["versions"][-1]
    raise BundleMismatch(
        f"The plans of bundle {bundle.name!r} were built with {flavour} {version}, which cannot be "
        f"installed into a container: as of {releases['as_of']} there are "
        f"{', '.join(wheel['versions'])}. Build them with one of these: pip install "
        f"'{wheel['package']}=={newest}'{_or_in_a_container(releases, flavour)}, then python -m "
        f"export.build. If {version} has been published since, add it to {deploy / RELEASES}."
    )


def _or_in_a_container(releases: Any, flavour: Flavour) -> str:
    known = releases["containers"].get(flavour, {})
    shown = ", ".join(f"{tag} with {version}" for tag, version in known.items())
    return f" (or work in NVIDIA's container tensorrt:TAG-py3: {shown})" if known else ""

"""Calibrates the identity graph of a bundle: `python -m export.identity --bundle B --pictures P`.

A cosine means nothing by itself: how alike two pictures of one character look to a network, and two
of different ones, differs from network to network. So the manifest says what its medians are, on
pictures of characters that are known: a folder with a folder for each character, a few pictures in
each.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from castmate.engines.bundle import Bundle
from castmate.engines.manifest import MANIFEST, IdentitySpec
from castmate.files import write_atomically
from castmate.images import Reference
from castmate.pipeline.identity import GRAPH, Identity, side_of
from castmate.pipeline.matte import Matte
from castmate.pipeline.opening import open_bundle, runtime_of
from castmate.settings import Settings
from export.errors import ExportError
from export.golden import ANY_IDENTITY

FEWEST_CHARACTERS, FEWEST_PICTURES = 10, 2

Features = NDArray[np.float32]


def uncalibrated(bundle: Bundle, settings: Settings) -> Identity:
    """The identity graph of a bundle, whether it is calibrated or not.

    Raises:
        BundleError: It cannot be loaded.
        ExportError: There is none.
    """
    if GRAPH not in bundle.manifest.graphs:
        raise ExportError(f"Bundle {bundle.name!r} has no identity graph; export it with one.")
    runtime = runtime_of(bundle, settings)
    has_matte = "matte" in bundle.manifest.graphs
    matte = Matte(runtime, side_of(bundle, "matte")) if has_matte else None
    return Identity(runtime, side_of(bundle, GRAPH), matte, ANY_IDENTITY)


def cosines(characters: Sequence[Sequence[Features]]) -> tuple[list[float], list[float]]:
    """Cosines of every two pictures of one character, and of every two of different ones.

    Args:
        characters: For each the features of its pictures, each of length 1.
    """
    whose = np.repeat(np.arange(len(characters)), [len(one) for one in characters])
    every = np.stack([features for one in characters for features in one])
    alike = every @ every.T
    first, second = np.triu_indices(len(every), 1)
    is_same = whose[first] == whose[second]
    values = alike[first, second]
    return values[is_same].tolist(), values[~is_same].tolist()


def spec_of(same: Sequence[float], another: Sequence[float], chosen_on: str) -> IdentitySpec:
    """The medians of cosines."""
    return IdentitySpec(
        same=round(median(same), 4), another=round(median(another), 4), chosen_on=chosen_on
    )


def read(folder: Path) -> Mapping[str, list[Reference]]:
    """The pictures of each character: a folder of folders.

    Raises:
        ExportError: There are too few.
        ImageRejected: A file is no picture.
    """
    found = {
        one.name: [
            Reference.from_bytes(path.read_bytes(), str(path)) for path in sorted(one.iterdir())
        ]
        for one in sorted(folder.iterdir())
        if one.is_dir()
    }
    few = [name for name, pictures in found.items() if len(pictures) < FEWEST_PICTURES]
    if few or len(found) < FEWEST_CHARACTERS:
        raise ExportError(
            f"{folder} needs at least {FEWEST_CHARACTERS} folders, one for each character, with "
            f"at least {FEWEST_PICTURES} pictures in each; it has {len(found)}"
            + (f", and too few pictures in {', '.join(few)}." if few else ".")
        )
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m export.identity", description=__doc__)
    parser.add_argument(
        "--bundle", required=True, help="folder of the bundle; its manifest is rewritten"
    )
    parser.add_argument("--pictures", type=Path, required=True, help="a folder for each character")
    given = parser.parse_args()
    settings = Settings.load(bundle=given.bundle)
    bundle, characters = open_bundle(settings), read(given.pictures)
    identity = uncalibrated(bundle, settings)
    features = [[identity.features_of(one) for one in found] for found in characters.values()]
    count = sum(map(len, features))
    spec = spec_of(
        *cosines(features), f"{count} pictures of {len(features)} characters, by export.identity"
    )
    manifest = bundle.manifest.model_copy(update={"identity": spec})
    text = manifest.model_dump_json(indent=1) + "\n"
    write_atomically(bundle.path / MANIFEST, text.encode())
    print(f"same {spec.same:g}, another {spec.another:g}: {spec.chosen_on}")


if __name__ == "__main__":
    main()

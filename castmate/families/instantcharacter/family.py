"""What the engines know of InstantCharacter."""

from __future__ import annotations

from collections.abc import Sequence

from castmate.engines.family import Family
from castmate.engines.graphs import Range
from castmate.engines.manifest import Manifest
from castmate.families.instantcharacter.constants import Constants
from castmate.families.instantcharacter.graphs import MATTE, TABLE, graph_names


def _graph_names(manifest: Manifest) -> Sequence[str]:
    return graph_names(
        step_caching=manifest.step_caching is not None, matte=MATTE in manifest.graphs
    )


def _ranges(manifest: Manifest) -> dict[str, Range]:
    profile, pixels = manifest.profile, Constants.of(manifest).pixels_per_token
    low, tuned, high = (-(-side // pixels) for side in profile.side.values())
    side = Range(min=low, opt=tuned, max=high)
    length = manifest.tokenizers["tokenizer_2"].max_length
    return {
        "B": profile.images,
        "G": profile.guidance_passes,
        "L": Range(min=length, opt=length, max=length),
        "T": profile.steps,
        "h": side,
        "w": side,
    }


FAMILY = Family(TABLE, Constants, _graph_names, _ranges)

"""What the engines know about InstantCharacter."""

from __future__ import annotations

from collections.abc import Sequence

from castmate.engines.family import Family
from castmate.engines.graphs import Range
from castmate.engines.manifest import Manifest
from castmate.engines.residency import Runs, Stage
from castmate.families.instantcharacter.constants import Constants
from castmate.families.instantcharacter.graphs import (
    IDENTITY,
    MATTE,
    PARTS,
    STEPS_AT_ONCE,
    TABLE,
    WHOLE,
    graph_names,
)
from castmate.several import MAX_TOGETHER


def _graph_names(manifest: Manifest) -> Sequence[str]:
    return graph_names(
        step_caching=manifest.step_caching is not None, optional=manifest.graphs.keys()
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
        "U": Range(min=1, opt=STEPS_AT_ONCE, max=STEPS_AT_ONCE),
        "k": Range(min=1, opt=1, max=MAX_TOGETHER),
        "h": side,
        "w": side,
        "p": Range(min=pixels, opt=pixels, max=pixels),
        **({"r": manifest.styles.rank} if manifest.styles else {}),
    }


STAGES = (
    Stage("text", Runs.PROMPT, ("text_encoder", "text_encoder_2")),
    Stage(
        "subject",
        Runs.REFERENCE,
        (MATTE, "image_encoder", "image_encoder_2", "subject_projector", "subject_resampler"),
    ),
    Stage("modulation", Runs.PROMPT, ("modulation",)),
    Stage("denoise", Runs.STEP, (WHOLE, *PARTS)),
    Stage("decode", Runs.PICTURE, ("vae_decoder",)),
    Stage("safety", Runs.PICTURE, ("safety_checker",)),
    Stage("identity", Runs.PICTURE, (MATTE, IDENTITY)),
)

FAMILY = Family(TABLE, Constants, _graph_names, _ranges, STAGES)

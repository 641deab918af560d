"""The ways in which Castmate can draw one request, trading quality for speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.contenders import Class
from castmate.engines.bundle import Bundle
from castmate.engines.manifest import MANIFEST

OTHER_SEED: Final = "another seed (control)"
THRESHOLDS: Final = (0.05, 0.1, 0.2, 0.3)
"""Of the curve, beside those of the bundle."""
FEW_STEPS: Final = (8, 4)
SCALES: Final = (0.6, 1.0, 1.2)
"""Of the subject in few steps: what a base of many steps needs may not be what one of few needs."""


@dataclass(frozen=True)
class Way:
    """One way for Castmate to draw.

    Attributes:
        name: Its name in the tables.
        kind: Its class.
        threshold: Step caching's threshold; 0 computes every step.
        seed_offset: Added to every seed.
        steps: Denoise steps, where they are not those of the others.
        subject_scale: Strength of the subject, where it is not the bundle's default.
        style: Name of a style.
        bundle: The few-step bundle beside the first that draws; by default the first draws.
    """

    name: str
    kind: Class
    threshold: float = 0.0
    seed_offset: int = 0
    steps: int | None = None
    subject_scale: float | None = None
    style: str = ""
    bundle: str = ""


def few_step_bundles(bundle: Bundle) -> dict[str, Bundle]:
    """The bundles beside one that share its files, by name."""
    beside = (Bundle.open(path.parent) for path in sorted(bundle.path.parent.glob(f"*/{MANIFEST}")))
    return {found.name: found for found in beside if found.manifest.base == bundle.path.name}


def ways(
    bundle: Bundle,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    few_steps: Sequence[int] = FEW_STEPS,
    scales: Sequence[float] = SCALES,
) -> list[Way]:
    """How Castmate draws in the benchmark of quality.

    Args:
        bundle: What it draws with.
        thresholds: Of step caching, beside the bundle's.
        few_steps: Numbers of steps.
        scales: Of the subject, at each of these.
    """
    return [
        Way("castmate", Class.EXACT),
        Way(OTHER_SEED, Class.EXACT, seed_offset=5000),
        *_cached(bundle, thresholds),
        *(way for steps in few_steps for way in _in_few_steps(bundle, steps, scales)),
        *(
            Way(f"{name}, {steps} steps", Class.FEW_STEPS, steps=steps, bundle=name)
            for name in few_step_bundles(bundle)
            for steps in few_steps
        ),
        *_in_styles(bundle, few_steps),
    ]


def _cached(bundle: Bundle, thresholds: Sequence[float]) -> Iterator[Way]:
    if (spec := bundle.manifest.step_caching) is not None:
        yield Way("balanced", Class.CACHED, spec.balanced)
        yield Way("fast", Class.CACHED, spec.fast)
        for value in thresholds:
            yield Way(f"threshold {value}", Class.CACHED, value)


def _in_few_steps(bundle: Bundle, steps: int, scales: Sequence[float]) -> Iterator[Way]:
    name = f"{steps} steps"
    yield Way(name, Class.FEW_STEPS, steps=steps)
    if (spec := bundle.manifest.step_caching) is not None:
        yield Way(f"{name}, fast", Class.FEW_STEPS, spec.fast, steps=steps)
    for scale in scales:
        title = f"{name}, subject_scale {scale}"
        yield Way(title, Class.FEW_STEPS, steps=steps, subject_scale=scale)


def _in_styles(bundle: Bundle, few_steps: Sequence[int]) -> Iterator[Way]:
    for style in bundle.manifest.style_names:
        yield Way(style, Class.STYLE, style=style)
        for steps in few_steps:
            yield Way(f"{style}, {steps} steps", Class.STYLE, steps=steps, style=style)

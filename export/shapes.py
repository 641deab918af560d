"""The dynamic dimensions of every graph, derived from the one table of shapes in the bundle."""

from __future__ import annotations

from collections.abc import Mapping

from castmate.engines.bundle import GraphSpec, Manifest, Range
from castmate.engines.plan import ShapeRange


def dimensions(manifest: Manifest) -> dict[str, Range]:
    """Smallest, tuned and largest value of each dimension by its name."""
    profile, cell = manifest.profile, manifest.pixels_per_token
    length = manifest.text_encoder_2.max_length

    def derive(low: int, tuned: int, high: int) -> Range:
        return Range(min=low, opt=tuned, max=high)

    side = derive(*(-(-px // cell) for px in _values(profile.side)))
    tokens = derive(*(value**2 for value in _values(side)))
    return {
        "B": profile.images,
        "G": profile.guidance_passes,
        "P": derive(
            *(
                passes * images
                for passes, images in zip(
                    _values(profile.guidance_passes), _values(profile.images), strict=True
                )
            )
        ),
        "h": side,
        "w": side,
        "N": tokens,
        "S": derive(*(length + value for value in _values(tokens))),
        "L": derive(length, length, length),
        "T": profile.steps,
        "T1": derive(*(value + 1 for value in _values(profile.steps))),
    }


def shape_ranges(graph: GraphSpec, dims: Mapping[str, Range]) -> dict[str, ShapeRange]:
    """The profile of one graph, by input."""
    ranges = {}
    for name, tensor in graph.inputs.items():
        low, tuned, high = (
            tuple(
                size if isinstance(size, int) else getattr(dims[size], which)
                for size in tensor.shape
            )
            for which in ("min", "opt", "max")
        )
        ranges[name] = ShapeRange(min=low, opt=tuned, max=high)
    return ranges


def _values(values: Range) -> tuple[int, int, int]:
    return values.min, values.opt, values.max

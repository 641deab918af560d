"""The `identity` graph of a bundle: how close the character in a picture is to the reference's.

It only judges: its features never condition a picture, so the model cannot learn to please it.
"""

from __future__ import annotations

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.manifest import IdentitySpec
from castmate.framing import Cutout, by_alpha, by_background, by_transparency, with_margins
from castmate.images import Reference
from castmate.pipeline.cache import SizedCache
from castmate.pipeline.matte import Matte

GRAPH: Final = "identity"
STRANGER_BELOW: Final = 0.1
"""The score of two references below which they may show two characters: a back scores far below
`another` against the face of its own character. `python -m benchmarks.strangers`."""
_DETAIL: Final = 4
"""Pixels of a picture for each that the graphs see: a character a quarter as large keeps all that
they see of it. Cutting it out of more pixels would take longer than looking at it."""
_CACHE_BYTES: Final = 2**20  # a reference takes 2 kB at most

Features = NDArray[np.float32]


class Identity:
    """Compares pictures with references; one at a time, not thread-safe."""

    def __init__(
        self, runtime: Runtime, side: int, matte: Matte | None, spec: IdentitySpec
    ) -> None:
        """Load the graph.

        Args:
            runtime: What runs it.
            side: Side of its square input, in pixels.
            matte: Cuts characters out for it; without one it sees whole pictures.
            spec: Calibrates its cosines.
        """
        self._runtime, self._side, self._matte, self._spec = runtime, side, matte, spec
        self._engine = runtime.load(GRAPH)
        self._references = SizedCache[Features](_CACHE_BYTES)

    @classmethod
    def open(cls, bundle: Bundle, runtime: Runtime, matte: Matte | None) -> Self | None:
        """Load the graph of a bundle, if it has a calibrated one.

        Args:
            bundle: The model.
            runtime: What runs its graphs.
            matte: The bundle's, if it has one.
        """
        spec = bundle.manifest.identity
        if GRAPH not in bundle.manifest.graphs or spec is None:
            return None
        return cls(runtime, side_of(bundle, GRAPH), matte, spec)

    def score(self, picture: NDArray[np.uint8], reference: Reference) -> float:
        """How close the character of a picture `[H, W, 3]` is to the reference's, 0 to 1.

        Of several reference pictures, the closest counts: a picture of the character's back must
        not make its face score lower.
        """
        seen = self.features(Image.fromarray(picture))
        return max(self._spec.score(float(seen @ self._known(one))) for one in reference.pictures)

    def strangers(self, reference: Reference) -> tuple[int, ...]:
        """The pictures, numbered from 1, that resemble none of the others."""
        known = [self._known(one) for one in reference.pictures]
        return tuple(
            number
            for number, one in enumerate(known, 1)
            if len(known) > 1
            and all(
                self._spec.score(float(one @ other)) < STRANGER_BELOW
                for other in known
                if other is not one
            )
        )

    def features(self, image: Image.Image) -> Features:
        """The unit feature vector of a picture's character."""
        seen = max(self._side, self._matte.side if self._matte else 0)
        image = image.reduce(max(1, max(image.size) // (_DETAIL * seen)))
        return self._look(image, self._by_matte(image))

    def features_of(self, reference: Reference) -> Features:
        """The unit feature vector of a reference's character, which may be cut out already."""
        found = by_transparency(reference) or by_background(reference.image)
        return self._look(reference.image, found or self._by_matte(reference.image))

    def _known(self, picture: Reference) -> Features:
        def remember() -> tuple[Features, int]:
            features = self.features_of(picture)
            return features, features.nbytes

        return self._references.get_or_make(picture.sha256, remember)

    def _by_matte(self, image: Image.Image) -> Cutout | None:
        return None if self._matte is None else by_alpha(image, self._matte.alpha(image))

    def _look(self, image: Image.Image, found: Cutout | None) -> Features:
        if found is not None:
            image = with_margins(found.image, found.box, (0, 0))
        view = np.asarray(view_of(image, self._side))
        out = self._engine(images=self._runtime.upload(view[None]))
        features: Features = self._runtime.download(out["identity_embeds"])[0]
        return features


def side_of(bundle: Bundle, graph: str) -> int:
    """Side of a graph's square input, in pixels."""
    return int(bundle.manifest.graphs[graph].inputs["images"].shape[1])


def no_identity(bundle: Bundle, *, asked: bool) -> str:
    """Why the pictures of a bundle are not judged.

    Args:
        bundle: Drew the pictures.
        asked: Whether judging was requested.
    """
    if not asked:
        return "CASTMATE_IDENTITY is off."
    if GRAPH not in bundle.manifest.graphs:
        return f"Bundle {bundle.name!r} has no identity graph."
    return (
        f"The identity graph of bundle {bundle.name!r} is not calibrated: "
        "python -m export.identity."
    )


def view_of(image: Image.Image, side: int) -> Image.Image:
    """A cut-out character as the graph sees it: centred on a white square."""
    longer = max(image.size)
    square = Image.new("RGB", (longer, longer), "white")
    square.paste(image, ((longer - image.width) // 2, (longer - image.height) // 2))
    return square.resize((side, side), Image.Resampling.BILINEAR)

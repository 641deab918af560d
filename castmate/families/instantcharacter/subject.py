"""References to subject tokens: framing, both image encoders, projector, resampler, a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from castmate.engines.base import Runtime, Tensor
from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.constants import Constants
from castmate.families.instantcharacter.graphs import STEPS_AT_ONCE
from castmate.images import Reference
from castmate.pipeline.cache import SizedCache
from castmate.pipeline.framing import Framer
from castmate.schema import FramedReference, Matting
from castmate.several import MAX_TOGETHER


@dataclass(frozen=True)
class Subject:
    """An encoded reference.

    Attributes:
        tokens: Its features, or its tokens for a schedule.
        framed: The part of the reference that they represent.
    """

    tokens: Tensor
    framed: FramedReference


class SubjectEncoder:
    """Encodes references; caches recent characters and their tokens for a schedule.

    A new picture runs everything; a known one with a new schedule runs only the resampler, some
    steps at a time; a known one with a known schedule runs nothing. Several pictures of a character
    are cached separately, and the resampler attends to all of them.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, framer: Framer, cache_bytes: int) -> None:
        self._runtime, self._framer = runtime, framer
        self._crop_px = Constants.of(bundle.manifest).crop_px
        self._image_encoder = runtime.load("image_encoder")
        self._image_encoder_2 = runtime.load("image_encoder_2")
        self._projector = runtime.load("subject_projector")
        self._resampler = runtime.load("subject_resampler")
        taken = bundle.manifest.graphs["subject_resampler"].inputs["subject_features"].shape[0]
        self._most_pictures = 1 if taken == 1 else MAX_TOGETHER
        self._cache = SizedCache[Subject](cache_bytes)

    def cache_counts(self) -> tuple[int, int]:
        """Hits and misses; a known character with a new schedule counts as one of each."""
        return self._cache.hits, self._cache.misses

    def remember(self, reference: Reference) -> None:
        """Encode a character as far as possible without a schedule."""
        for picture in self._taken(reference):
            self._features(picture, Matting.AUTO)

    def encode(
        self, reference: Reference, matting: Matting, timesteps: NDArray[np.float32]
    ) -> Subject:
        """Subject tokens of every step, `[T, N, token_dim]`.

        Args:
            reference: The character.
            matting: How to cut it out of each picture.
            timesteps: `[T]`, those of the schedule.
        """
        key = (reference.sha256, matting, timesteps.tobytes())
        return self._cache.get_or_make(key, lambda: self._resample(reference, matting, timesteps))

    def _resample(
        self, reference: Reference, matting: Matting, timesteps: NDArray[np.float32]
    ) -> tuple[Subject, int]:
        first, *others = (self._features(one, matting) for one in self._taken(reference))
        features = first.tokens
        if others:
            features = self._runtime.concatenate([features, *(one.tokens for one in others)])
        slices = [
            self._resampler(
                subject_features=features,
                timesteps=self._runtime.upload(timesteps[step : step + STEPS_AT_ONCE]),
            )["subject_embeds"]
            for step in range(0, len(timesteps), STEPS_AT_ONCE)
        ]
        tokens = slices[0] if len(slices) == 1 else self._runtime.concatenate(slices)
        framed = replace(first.framed, others=tuple(one.framed for one in others))
        return Subject(tokens, framed), self._runtime.num_bytes(tokens)

    def _taken(self, reference: Reference) -> Sequence[Reference]:
        """The pictures that the resampler attends to."""
        return reference.pictures[: self._most_pictures]

    def warnings(self, reference: Reference) -> tuple[str, ...]:
        """Which pictures a bundle of an earlier release leaves out."""
        given = len(reference.pictures)
        if given <= self._most_pictures:
            return ()
        return (
            f"This bundle looks at one picture of a character: the first of {given} was used. "
            "Export it again to use them together.",
        )

    def _features(self, reference: Reference, matting: Matting) -> Subject:
        key = (reference.sha256, matting)
        return self._cache.get_or_make(key, lambda: self._project(reference, matting))

    def _project(self, reference: Reference, matting: Matting) -> tuple[Subject, int]:
        image, framed = self._framer.frame(reference, matting)
        crops = self._runtime.upload(reference_crops(image, self._crop_px))
        features = {**self._image_encoder(crops=crops), **self._image_encoder_2(crops=crops)}
        tokens = self._projector(**features)["subject_features"]
        return Subject(tokens, framed), self._runtime.num_bytes(tokens)


def reference_crops(image: Image.Image, crop_px: int) -> NDArray[np.uint8]:
    """A framed reference as the image encoders see it.

    It is centred on a white square, aspect kept (the published code distorts it), and
    resized once to `crop_px` and once to twice that, which is cut into quarters.

    Args:
        image: RGB.
        crop_px: Side of a crop.

    Returns:
        `[1, 5, crop_px, crop_px, 3]`: whole, top left, top right, bottom left, bottom right.
    """
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    low = square.resize((crop_px, crop_px), Image.Resampling.BICUBIC)
    high = square.resize((2 * crop_px, 2 * crop_px), Image.Resampling.BICUBIC)
    corners = [(x, y) for y in (0, crop_px) for x in (0, crop_px)]
    quarters = [high.crop((x, y, x + crop_px, y + crop_px)) for x, y in corners]
    return np.stack([np.asarray(crop) for crop in (low, *quarters)])[None]

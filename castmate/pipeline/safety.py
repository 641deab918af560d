"""The safety checker on finished pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from castmate.engines.base import Runtime


class SafetyChecker:
    """Flags pictures without replacing them."""

    def __init__(self, runtime: Runtime, side: int) -> None:
        """Load the graph `safety_checker`.

        Args:
            runtime: What runs it.
            side: Side of its square input, in pixels.
        """
        self._runtime, self._side = runtime, side
        self._engine = runtime.load("safety_checker")

    def flag(self, picture: NDArray[np.uint8]) -> bool:
        """Whether a picture `[H, W, 3]` is unsafe."""
        view = Image.fromarray(picture).resize((self._side, self._side), Image.Resampling.BICUBIC)
        out = self._engine(images=self._runtime.upload(np.asarray(view)[None]))
        return bool(self._runtime.download(out["has_nsfw"])[0])

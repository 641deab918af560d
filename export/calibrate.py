"""Ranges of activations over real denoise trajectories: `python -m export.calibrate`.

The file that it writes belongs to one network: a style LoRA changes activations little, so its
weights are quantized anew and these ranges are kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from rich.progress import Progress

from export.models.network import InstantCharacter
from export.quantize import CalibrationError, recording
from export.trajectory import Prompts, Sample, denoise


@dataclass(frozen=True)
class Calibration:
    """What was recorded, and from what.

    Attributes:
        network: Name of the network.
        steps: Denoise steps of each trajectory; every one was recorded.
        samples: What was drawn.
        amax: Largest magnitude by layer; see `export.quantize.recording`.
    """

    network: str
    steps: int
    samples: tuple[str, ...]
    amax: Mapping[str, float]

    def save(self, path: Path) -> None:
        """Write it as JSON; the file appears whole."""
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path, network: str) -> Self:
        """Read it.

        Args:
            path: From `save`.
            network: The network that it must be of.

        Raises:
            CalibrationError: It cannot be read or is of another network.
        """
        try:
            values = json.loads(path.read_bytes())
            made = cls(
                values["network"], values["steps"], tuple(values["samples"]), dict(values["amax"])
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CalibrationError(
                f"{path} is no calibration ({type(error).__name__}: {error}). "
                "Make one: python -m export.calibrate."
            ) from None
        if made.network != network:
            raise CalibrationError(
                f"{path} was recorded on {made.network!r}, this network is {network!r}. "
                "Make one for it: python -m export.calibrate."
            )
        return made


def calibrate(
    network: InstantCharacter,
    prompts: Prompts,
    samples: Sequence[Sample],
    steps: int,
    progress: Progress | None = None,
) -> Calibration:
    """Draw every sample and record every step of it.

    Args:
        network: Not quantized, in evaluation mode.
        prompts: Its tokenizers.
        samples: What to draw.
        steps: Denoise steps of each.
        progress: Where to show how far it is.
    """
    task = progress.add_task("Calibrating", total=len(samples) * steps) if progress else None

    def on_step(_: int) -> None:
        if progress is not None and task is not None:
            progress.advance(task)

    # Every call of `network.denoiser` makes a new view of the same layers: hooks on one see all.
    with recording(network.denoiser) as amax:
        for sample in samples:
            denoise(network, sample, prompts, steps, on_step)
    drawn = tuple(f"{s.prompt} | {s.reference.name} | seed {s.seed}" for s in samples)
    return Calibration(network.config.name, steps, drawn, amax)

"""Ranges of activations over real denoise trajectories: `python -m export.calibrate`.

The file that it writes belongs to one network: a style LoRA changes activations little, so its
weights are quantized anew and these ranges are kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from rich.progress import Progress

from castmate.files import write_atomically
from export.errors import ExportError
from export.family import Network, parser, published, unquantized
from export.precision import Precision
from export.quantization.quantize import CalibrationError, recording
from export.quantization.scheme import Ranges
from export.samples import Prompts, Sample, samples
from export.trajectory import denoise


@dataclass(frozen=True)
class Calibration:
    """What was recorded, and from what.

    Attributes:
        network: Name of the network.
        steps: Denoise steps of each trajectory; every one was recorded.
        samples: What was drawn.
        amax: Largest magnitudes; see `export.quantization.quantize.recording`.
    """

    network: str
    steps: int
    samples: tuple[str, ...]
    amax: Ranges

    def save(self, path: Path) -> None:
        """Write it as JSON; the file appears whole."""
        amax = {name: values.tolist() for name, values in self.amax.items()}
        text = json.dumps({**vars(self), "amax": amax}, indent=1)
        write_atomically(path, f"{text}\n".encode())

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
                values["network"],
                values["steps"],
                tuple(values["samples"]),
                {name: torch.tensor(amax) for name, amax in values["amax"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
    network: Network,
    prompts: Prompts,
    drawn: Sequence[Sample],
    steps: int,
    progress: Progress | None = None,
    *,
    device: str = "cpu",
) -> Calibration:
    """Draw every sample and record every step of it.

    Args:
        network: Not quantized, in evaluation mode.
        prompts: Its tokenizers.
        drawn: What to draw.
        steps: Denoise steps of each.
        progress: Where to show how far it is.
        device: Where the network runs meanwhile; afterwards it is on the CPU.
    """
    network.to(device)
    task = progress.add_task("Calibrating", total=len(drawn) * steps) if progress else None

    def on_step(_: int) -> None:
        if progress is not None and task is not None:
            progress.advance(task)

    # Every call of `network.denoiser` makes a new view of the same layers: hooks on one see all.
    with recording(network.denoiser, unquantized(network)) as amax:
        for sample in drawn:
            denoise(network, sample, prompts, steps, on_step)
    network.to("cpu")
    names = tuple(f"{s.prompt} | {s.reference.name} | seed {s.seed}" for s in drawn)
    ranges = {name: magnitudes.cpu() for name, magnitudes in amax.items()}
    return Calibration(network.config.name, steps, names, ranges)


def best_device() -> str:
    """The GPU where there is one: at full size a CPU takes days."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def main() -> int:
    """Calibrate the published network."""
    line = parser("python -m export.calibrate", __doc__, None)
    line.add_argument("--out", type=Path, required=True, help="JSON file")
    line.add_argument("--precision", type=Precision, choices=Precision, default=Precision.BF16)
    line.add_argument("--samples", type=int, default=8)
    line.add_argument("--steps", type=int, default=28)
    line.add_argument("--side", type=int, default=1024, help="pixels")
    given = line.parse_args()
    family = published(given.family)
    sources, config = family.sources.of(given), family.config
    try:
        prompts = Prompts.of_files(family.load_tokenizers(sources, config, given.out.parent))
        network = family.load_network(sources, given.precision.dtype, config)
    except ExportError as error:
        print(error, file=sys.stderr)
        return 1
    with Progress() as progress:
        drawn = samples(given.samples, given.side)
        made = calibrate(network, prompts, drawn, given.steps, progress, device=best_device())
    made.save(given.out)
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

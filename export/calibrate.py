"""Ranges of activations over real denoise trajectories: `python -m export.calibrate`.

The file that it writes belongs to one network: a style LoRA changes activations little, so its
weights are quantized anew and these ranges are kept. A family may ship the file of its published
weights, and then nobody needs a GPU to export them.
"""

from __future__ import annotations

import hashlib
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
from export.placement import Placement
from export.precision import Precision
from export.quantization.quantize import CalibrationError, recording
from export.quantization.scheme import Ranges
from export.samples import Prompts, Sample, samples
from export.trajectory import denoise

SAMPLED = 64
"""Values at each end of a weight that its fingerprint looks at."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was recorded, and from what.

    Attributes:
        network: Name of the network.
        weights: Its `fingerprint`.
        steps: Denoise steps of each trajectory; every one was recorded.
        samples: What was drawn.
        amax: Largest magnitudes; see `export.quantization.quantize.recording`.
    """

    network: str
    weights: str
    steps: int
    samples: tuple[str, ...]
    amax: Ranges

    def save(self, path: Path) -> None:
        """Write it as JSON; the file appears whole."""
        write_atomically(path, f"{json.dumps(self._values(), indent=1)}\n".encode())

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same, every range to the bit."""
        return isinstance(other, Calibration) and self._values() == other._values()

    __hash__ = None  # type: ignore[assignment]  # ranges cannot be hashed

    def _values(self) -> dict[str, object]:
        """As JSON has them."""
        amax = {name: values.tolist() for name, values in self.amax.items()}
        return {**vars(self), "samples": list(self.samples), "amax": amax}

    @classmethod
    def load(cls, path: Path, network: str, weights: str) -> Self:
        """Read it.

        Args:
            path: From `save`.
            network: Name of the network that it must be of.
            weights: The network's `fingerprint`.

        Raises:
            CalibrationError: It cannot be read or is of another network.
        """
        try:
            values = json.loads(path.read_bytes())
            made = cls(
                values["network"],
                values["weights"],
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
        if made.weights != weights:
            raise CalibrationError(
                f"{path} was recorded on other weights of {network!r} than these. "
                "Make one for them: python -m export.calibrate."
            )
        return made


def fingerprint(network: Network) -> str:
    """A hash of every weight's name and shape and of its first and last values.

    Not of all values: those of FLUX are read from disk once, and not before they are needed. They
    are compared as bf16, so that a network loaded in fp32 is the same.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().flatten()
        ends = torch.cat([values[:SAMPLED], values[-SAMPLED:]]).to(torch.bfloat16)
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(ends.cpu().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def calibrate(
    network: Network,
    prompts: Prompts,
    drawn: Sequence[Sample],
    steps: int,
    progress: Progress | None = None,
    *,
    placement: Placement | None = None,
) -> Calibration:
    """Draw every sample and record every step of it.

    Args:
        network: Not quantized, in evaluation mode.
        prompts: Its tokenizers.
        drawn: What to draw.
        steps: Denoise steps of each.
        progress: Where to show how far it is.
        placement: Where the network computes meanwhile, by default on the CPU.
    """
    placement = Placement("cpu") if placement is None else placement
    task = progress.add_task("Calibrating", total=len(drawn) * steps) if progress else None

    def on_step(_: int) -> None:
        if progress is not None and task is not None:
            progress.advance(task)

    # Views such as `network.denoiser` are made anew and hold the same layers: hooks see all calls.
    kept = unquantized(network, encoders=True)
    with placement.of(network), recording(network, kept) as amax:
        for sample in drawn:
            denoise(network, sample, prompts, steps, on_step)
    names = tuple(f"{s.prompt} | {s.reference.name} | seed {s.seed}" for s in drawn)
    ranges = {name: magnitudes.cpu() for name, magnitudes in amax.items()}
    return Calibration(network.config.name, fingerprint(network), steps, names, ranges)


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
        made = calibrate(network, prompts, drawn, given.steps, progress, placement=Placement.best())
    made.save(given.out)
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

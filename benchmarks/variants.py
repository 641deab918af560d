"""The demo model in torch as each quantization scheme runs it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Final

import torch

from export.calibrate import Calibration
from export.families.instantcharacter.merges import merges
from export.families.instantcharacter.network import InstantCharacter
from export.family import sensitive, unquantized
from export.precision import convert
from export.quantization.fp8 import FP8, FP8_ATTENTION
from export.quantization.none import NONE
from export.quantization.quantize import quantize
from export.quantization.registry import SCHEMES
from export.quantization.scheme import Scheme

ROUNDED: Final = "bf16 (control)"
KEPT_ENCODERS: Final = ", encoders kept"
SPARING_NONE: Final = ", no layer spared"


@dataclass(frozen=True)
class Variant:
    """One way to run the network.

    Attributes:
        name: In the tables.
        scheme: How its layers are quantized.
        encoders: Whether encoders are quantized as well.
        dtype: Of everything else.
        spares: Whether sensitive layers are left to the wider scheme.
    """

    name: str
    scheme: Scheme
    encoders: bool = True
    dtype: torch.dtype = torch.float32
    spares: bool = True

    def of(self, network: InstantCharacter, calibration: Calibration) -> InstantCharacter:
        """A copy of a network as this variant runs it.

        Args:
            network: In fp32; stays as it is.
            calibration: Of this network.
        """
        made = copy.deepcopy(network)
        convert(made, self.dtype)
        kept, groups = unquantized(network, encoders=self.encoders), merges(made.denoiser)
        spared = sensitive(network) if self.spares else ()
        quantize(made, calibration.amax, self.scheme, kept, groups, spared)
        return made


def without_encoders() -> list[Variant]:
    """bf16, whose difference is rounding, and FP8 in the steps alone."""
    rounded = Variant(ROUNDED, NONE, dtype=torch.bfloat16)
    steps = (FP8, FP8_ATTENTION)
    return [rounded, *(Variant(f"{one}{KEPT_ENCODERS}", one, encoders=False) for one in steps)]


def variants() -> list[Variant]:
    """Those, every scheme as it is exported, and four bits without sparing sensitive layers."""
    found = without_encoders()
    for name, scheme in SCHEMES.items():
        if scheme is not NONE:
            found.append(Variant(name, scheme))
        if scheme.wider is not scheme:
            found.append(Variant(f"{name}{SPARING_NONE}", scheme, spares=False))
    return found

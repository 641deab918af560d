"""What every quantization scheme answers; each has a file of its own beside this one.

A scheme knows layers, not networks: which parts of a network are too sensitive to be quantized is
for its family to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from castmate.engines.plan import Flavour
from export.precision import Precision

Ranges = Mapping[str, Tensor]
"""What calibration recorded, by key: one value, or one value a channel."""
Measure = Callable[[tuple[Tensor, ...]], Tensor]
"""Magnitudes of a layer's inputs; calibration keeps the largest of each."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kind of kernel that a scheme asks TensorRT for, and that the layer report looks for.

    Attributes:
        name: What GPUs have or lack, such as "FP8 arithmetic".
        attention: A fused attention; otherwise a matrix product.
        stored: ONNX element type of the quantized operand.
        datatype: TensorRT's name of that type in its layer table.
        targets: Compute capabilities that have it, by flavour.
        instead: What to do for any other GPU.
    """

    name: str
    attention: bool
    stored: int
    datatype: str
    targets: Mapping[Flavour, tuple[str, ...]]
    instead: str


@dataclass(frozen=True)
class Limits:
    """How far a graph may be from the network in fp32 and still count as the same.

    Attributes:
        relative_l2: Of every output's difference, at most; a step is judged by what it changes.
        psnr_db: Of the picture, at least.
    """

    relative_l2: float
    psnr_db: float


class Scheme(ABC):
    """One way to quantize a network; `export.quantization.registry` lists them.

    Attributes:
        name: On the command line and in `bundle.json`.
        kernels: What its graphs ask TensorRT for; an engine without them fell back.
        weight_bytes: Of one weight in a layer that it replaces, scales included.
        limits: What verification accepts, by the precision of everything else.
        translations: Its torch operators in ONNX, for `torch.onnx.export`.
    """

    name: str
    kernels: tuple[Kernel, ...]
    weight_bytes: float
    limits: Mapping[Precision, Limits]
    translations: Mapping[Callable[..., Any], Callable[..., Any]]

    @abstractmethod
    def replaces(self, layer: nn.Module) -> bool:
        """Whether layers of this kind are quantized."""

    @abstractmethod
    def ranges(self, name: str, layer: nn.Module) -> Mapping[str, Measure]:
        """What calibration has to record of a layer.

        Schemes that want the same number give it the same key: it is recorded once.

        Args:
            name: Of the layer in its network.
            layer: One that the scheme replaces.
        """

    @abstractmethod
    def counterpart(self, module: nn.Module, name: str, ranges: Ranges) -> nn.Module:
        """The quantized layer that takes the place of `module.get_submodule(name)`.

        Args:
            module: The network, in the dtype of the export.
            name: Of a layer that the scheme replaces.
            ranges: At least what it asked for of this layer.
        """

    def __str__(self) -> str:
        """Its name."""
        return self.name

"""What every quantization scheme answers; each has a file of its own beside this one.

A scheme knows layers, not networks: which parts of a network must not be quantized, and which lose
too much in four bits, is for its family to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from castmate.engines.manifest import ScaleLayout
from castmate.engines.plan import Flavour
from export.precision import Precision

Ranges = Mapping[str, Tensor]
"""What calibration recorded, by key: one value, or one value a channel."""
Measure = Callable[[tuple[Tensor, ...]], Tensor]
"""Magnitudes of a layer's inputs; calibration keeps the largest of each."""
Translations = Mapping[Callable[..., Any], Callable[..., Any]]
"""Torch operators to functions that write them in ONNX."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kind of kernel that a scheme asks TensorRT for, and that the layer report looks for.

    Attributes:
        name: What GPUs have or lack, such as "FP8 arithmetic".
        attention: A fused attention; otherwise a matrix product.
        stored: ONNX element type of the quantized operand.
        datatype: TensorRT's name of that type in its layer table.
        targets: Compute capabilities that have it, by flavour.
        operands: How many operands of a product have that type: 1 where only weights are stored
            in it and the product is computed in a wider one.
    """

    name: str
    attention: bool
    stored: int
    datatype: str
    targets: Mapping[Flavour, tuple[str, ...]]
    operands: int = 1


class Scheme(ABC):
    """One way to quantize a network; `export.quantization.registry` lists them.

    Attributes:
        name: On the command line and in `bundle.json`.
        kernels: What its graphs ask TensorRT for; an engine without them fell back.
        weight_bytes: Of one weight in a layer that it replaces, scales included.
        psnr_db: What verification accepts of a picture beside that in fp32, at least, by the
            precision of everything else. What a graph may differ is measured when it is exported:
            `export.golden_limits`.
        translations: Its torch operators in ONNX, for `torch.onnx.export`.
        cpu_translations: Those that are other ones for ONNX Runtime on a CPU, which lacks kernels
            for some types.
        layout: How the layers that it replaces are stored; None where it replaces none.
        build_memory: Host memory of a build by bytes of weights, as measured with TensorRT-RTX 1.7
            when it writes the plan as it makes it.
        gains: Compute capabilities of GPUs that are better off with it than with a wider one: they
            draw faster, or have room for what would not fit.
    """

    name: str
    kernels: tuple[Kernel, ...]
    weight_bytes: float
    psnr_db: Mapping[Precision, float]
    translations: Translations
    cpu_translations: Mapping[Callable[..., Any], Callable[..., Any]] = {}
    layout: ScaleLayout | None = None
    build_memory: float = 2.6
    gains: tuple[str, ...] = ()

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

    @property
    def title(self) -> str:
        """For tables."""
        return self.name.upper()

    @property
    def wider(self) -> Scheme:
        """The scheme of layers that lose too much in this one; itself where none does."""
        return self

    def stored_bytes(self, layer: nn.Linear) -> int:
        """Bytes of the layer's weight as this scheme stores it."""
        return int(layer.weight.numel() * self.weight_bytes)

    def runs_on(self, flavour: Flavour, target: str) -> bool:
        """Whether a GPU has every kernel that it asks for."""
        return all(target in kernel.targets[flavour] for kernel in self.kernels)

    def __str__(self) -> str:
        """Its name."""
        return self.name

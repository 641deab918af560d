"""What the build steps need of a model family, found by the name that its networks carry.

A family is a folder of `export/families` whose module `family` offers `FAMILY`, an `ExportFamily`;
what serves it is its folder in `castmate/families`.
"""

from __future__ import annotations

import argparse
import pkgutil
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from castmate.defaults import Defaults
from castmate.engines.graphs import Dims
from castmate.engines.licences import Licence
from castmate.engines.manifest import Profile, StepCachingSpec
from export.errors import ExportError
from export.graphs import Makers
from export.lora.branches import NO_SLOTS, Slots
from export.precision import Precision
from export.quantization.merge import Group
from export.samples import Prompts, Sample, TokenizerFile

PACKAGE = "export.families"
DEFAULT = "instantcharacter"
"""What the commands export where no family is named."""

OnStep = Callable[[int], None]


class LoraRows(NamedTuple):
    """Some rows of a linear layer's weight.

    Attributes:
        layer: Its name in the network.
        start: The first of them.
        num_rows: How many.
    """

    layer: str
    start: int
    num_rows: int


LoraLayers = Mapping[str, tuple[LoraRows, ...]]
"""What each name in a LoRA file stands for; the file's rows belong to these one after the other."""


class Config(Protocol):
    """Every size of a network; `name` is that of the bundle which is made from it."""

    @property
    def name(self) -> str: ...

    @property
    def overflows_in(self) -> Collection[Precision]:
        """Precisions whose range is too small for the network."""
        ...


class Network(nn.Module):
    """A family's network in torch.

    Attributes:
        family: Its family's name.
        config: Its sizes.
        device: Where it computes, see `export.placement`.
        style_slots: The layers that styles change, by the input of its graphs that takes the
            factors; see `export.lora.styles`.
    """

    family: ClassVar[str]
    config: Any
    device: torch.device = torch.device("cpu")
    style_slots: Slots = NO_SLOTS

    @property
    @abstractmethod
    def denoiser(self) -> nn.Module:
        """What runs in every step, a view of the network: its layers have the same names there."""


@dataclass(frozen=True)
class Download:
    """Weights of one source as they are published: how many, and bytes of each."""

    weights: int
    weight_bytes: int


@dataclass(frozen=True)
class Published:
    """How the weights of a family are published.

    Attributes:
        config: Their sizes.
        description: One sentence for people, in the manifest.
        licences: Sources to the licence of each part of the weights, for the manifest.
        sources: A frozen dataclass that says where they are, with `add_arguments` and `of` for the
            command line.
        new_network: A network of given sizes with random weights.
        load_network: Sources, dtype and sizes to a network.
        load_tokenizers: Sources, sizes and a folder to tokenizers in that folder, by name.
        downloads: What is fetched for networks of some sizes, by source.
        step_caching: Thresholds, where steps may be skipped.
        calibration: Where the ranges of the published weights are, once somebody has recorded them.
        shallow: Sizes and a number of blocks to the same sizes with so many blocks, where the
            memory of engines is measured.
        depth: Blocks of the network, counted as `shallow` counts.
    """

    config: Any
    description: str
    licences: Callable[[Any], Mapping[str, Licence]]
    sources: Any
    new_network: Callable[[Any], Network]
    load_network: Callable[[Any, torch.dtype, Any], Network]
    load_tokenizers: Callable[[Any, Any, Path], Mapping[str, TokenizerFile]]
    downloads: Callable[[Any], Mapping[str, Download]]
    step_caching: StepCachingSpec | None = None
    calibration: Path | None = None
    shallow: Callable[[Any, int], Any] | None = None
    depth: int = 0


@dataclass(frozen=True)
class ExportFamily:
    """What the build steps know of a family.

    Attributes:
        bundle_graphs: Every graph of a network's bundle; the second argument is whether steps may
            be skipped.
        constants: The manifest's `constants` of a network.
        dims: Every dimension of the table but the derived ones, for one square picture in one step:
            from a network's sizes and the pixels of a side.
        unquantized: Parts of layer names that stay as they are whatever the scheme.
        sensitive: Parts of the names of layers that lose too much in four bits; such a scheme
            leaves them to a wider one.
        encoders: Parts of the names of layers that are quantized only if that is asked for.
        denoise: Draws the latents of a sample in torch.
        decode: Latents to a picture `[H, W, 3]` uint8 in torch.
        defaults: What a request gets for what it leaves out.
        hoisted: Parts of the names of the denoiser's layers that another graph runs before the
            steps.
        merges: Layers of a denoiser that are merged where a scheme quantizes them.
        profile: Sizes, pictures and steps that engines are built for.
        lora_layers: The layers of a network by their names in LoRA files of every layout.
        style_layers: The layers that a style may change, by the optional input of the table's
            graphs that takes their factors.
        published: Where it can be loaded from what somebody published.
    """

    bundle_graphs: Callable[[Any, bool], Makers]
    constants: Callable[[Any], Mapping[str, Any]]
    dims: Callable[[Any, int], Dims]
    unquantized: tuple[str, ...]
    denoise: Callable[[Any, Sample, Prompts, int, OnStep], Tensor]
    decode: Callable[[Any, Tensor], np.ndarray]
    defaults: Defaults
    sensitive: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    hoisted: tuple[str, ...] = ()
    merges: Callable[[nn.Module], Iterable[Group]] = lambda module: ()
    profile: Profile = field(default_factory=Profile)
    lora_layers: Callable[[Any], LoraLayers] = lambda network: {}
    style_layers: Callable[[Any], Mapping[str, Sequence[str]]] = lambda network: {}
    published: Published | None = None

    def kept(self, *, encoders: bool) -> tuple[str, ...]:
        """Parts of layer names that are not quantized; `encoders` are only where that is asked."""
        return self.unquantized if encoders else (*self.unquantized, *self.encoders)


def family_names() -> list[str]:
    """The families that there are."""
    return sorted(found.name for found in pkgutil.iter_modules(import_module(PACKAGE).__path__))


def family_of(name: str) -> ExportFamily:
    """The family of that name.

    Raises:
        ExportError: There is none; names those that there are.
    """
    if name not in family_names():
        known = ", ".join(family_names())
        raise ExportError(f"There is no family {name!r} to export; the known ones are {known}.")
    family: ExportFamily = import_module(f"{PACKAGE}.{name}.family").FAMILY
    return family


def bundle_graphs(network: Network, *, step_caching: bool) -> Makers:
    """Every graph of a network's bundle by name, with the transformer in parts or whole."""
    return family_of(network.family).bundle_graphs(network, step_caching)


def unquantized(network: Network, *, encoders: bool) -> tuple[str, ...]:
    """Parts of a network that stay as they are, see `export.quantization.quantize`.

    Args:
        network: Of any family.
        encoders: Whether its encoders are quantized as well.
    """
    return family_of(network.family).kept(encoders=encoders)


def sensitive(network: Network) -> tuple[str, ...]:
    """Parts of a network that lose too much in four bits, see `export.quantization.quantize`."""
    return family_of(network.family).sensitive


def merges(network: Network) -> Iterable[Group]:
    """Layers of the denoiser that are merged, see `export.quantization.quantize`."""
    return family_of(network.family).merges(network.denoiser)


def lora_layers(network: Network) -> LoraLayers:
    """What the names in LoRA files mean for this network."""
    return family_of(network.family).lora_layers(network)


def published(name: str = DEFAULT) -> Published:
    """How a family is published.

    Raises:
        ExportError: It is not, or there is no such family.
    """
    if (found := family_of(name).published) is None:
        raise ExportError(f"Nothing is published of family {name!r}, so it cannot be loaded.")
    return found


def parser(prog: str, description: str | None, arguments: Sequence[str] | None) -> Any:
    """A command line with `--family` and flags for the sources of the family that it names.

    Args:
        prog: Name of the command.
        description: What it does.
        arguments: Those of the command line, by default the process's.

    Raises:
        ExportError: The family cannot be loaded from anywhere.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--family", choices=family_names(), default=DEFAULT)
    made = argparse.ArgumentParser(prog=prog, description=description, parents=[first])
    published(first.parse_known_args(arguments)[0].family).sources.add_arguments(made)
    return made

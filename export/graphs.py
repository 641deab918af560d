"""A graph ready for the exporter: its torch module, with the axes and examples of its table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from castmate.engines.graphs import NETWORK, Dims, Table


@dataclass(frozen=True)
class ExportGraph:
    """A graph ready for `torch.onnx.export`.

    Attributes:
        module: What computes it; `forward` takes the inputs in their order.
        inputs: Example inputs by name.
        dynamic: Names of the dynamic axes of each input.
        outputs: Output names.
        optional: Which of the inputs its module can do without.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    dynamic: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        table: Table,
        name: str,
        module: nn.Module,
        sizes: Dims,
        dtype: torch.dtype = torch.float32,
        optional: Collection[str] = (),
    ) -> Self:
        """A graph of a family's table.

        Args:
            table: The family's.
            name: Of the graph.
            module: What computes it.
            sizes: Of the dimensions that are not dynamic.
            dtype: Of the network.
            optional: Names of optional inputs that it takes.
        """
        return cls(
            module.eval(),
            example_inputs(table, name, sizes, dtype, optional),
            table.dynamic_axes(name, optional),
            tuple(table.graphs[name].outputs),
            tuple(optional),
        )

    def without_optional(self) -> Self:
        """The same graph on its other inputs alone."""
        left = {name: x for name, x in self.inputs.items() if name not in self.optional}
        return replace(self, inputs=left, optional=())


Makers = Mapping[str, Callable[[], ExportGraph]]
"""Graphs by name, each made when called: at full size one fills the memory."""


def example_inputs(
    table: Table,
    name: str,
    sizes: Dims,
    dtype: torch.dtype = torch.float32,
    optional: Collection[str] = (),
) -> dict[str, Tensor]:
    """Inputs that a graph can run on, the same ones every time.

    Args:
        table: The family's.
        name: Of the graph.
        sizes: Of the dimensions that are not dynamic, and of others that are to differ from the
            table's examples.
        dtype: Of the network.
        optional: Names of optional inputs that it takes.
    """
    tensors = table.inputs_of(name, optional)
    return {
        key: torch.from_numpy(values).to(dtype)
        if tensors[key].dtype == NETWORK
        else torch.from_numpy(values)
        for key, values in table.example(name, sizes, optional=optional).items()
    }


def empty_inputs(table: Table, name: str, dims: Dims, dtype: torch.dtype) -> dict[str, Tensor]:
    """Zeros of the shapes and dtypes of a graph's inputs, for counting and not for values.

    Args:
        table: The family's.
        name: Of the graph.
        dims: Every dimension but the derived ones.
        dtype: Of the network.
    """
    known = table.dims(dims)
    return {
        key: torch.zeros(
            tensor.sizes(known),
            dtype=dtype if tensor.dtype == NETWORK else getattr(torch, tensor.dtype),
        )
        for key, tensor in table.graphs[name].inputs.items()
    }

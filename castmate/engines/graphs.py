"""The tensors of a family's graphs: a table of names, symbolic shapes and dtypes.

Axes of examples, optimization profiles, inputs of benchmarks and the check of a bundle all derive
from the table, so that a tensor is described once. Knows no family: each has its own table, in
`castmate/families/<name>/graphs.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from castmate.engines.plan import ShapeRange

NETWORK = "network"
"""The dtype of the network's weights and arithmetic, which the export chooses."""
_FACTOR = re.compile(r"(\d*)([A-Za-z_]\w*)?")

Dims = Mapping[str, int]
"""Sizes of dimensions by name."""


class TensorSpec(BaseModel):
    """A tensor of an exported graph; a dimension is a number or the name of a dynamic one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str
    shape: tuple[int | str, ...]


class Range(BaseModel):
    """Smallest, optimal and largest value of a dynamic dimension."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int
    opt: int
    max: int

    def values(self) -> tuple[int, int, int]:
        """All three."""
        return self.min, self.opt, self.max


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph.

    Attributes:
        shape: One expression per axis, separated by spaces: numbers, names of dimensions, products
            and sums, such as "B h w 4C" or "P L+h*w".
        dtype: NumPy's name of a type, or `NETWORK`.
        values: Bounds of the values in examples; by default they are standard normal, and integers
            lie in 0..8.
        changes: For an output that is an input's next value: that input. Such an output is judged
            by the change.
        repeats: How often each value stands in the last axis, side by side.
    """

    shape: str
    dtype: str
    values: tuple[float, float] | None = None
    changes: str | None = None
    repeats: int = 1

    @property
    def axes(self) -> tuple[str, ...]:
        """The expression of each axis."""
        return tuple(self.shape.split())

    def sizes(self, dims: Dims) -> tuple[int, ...]:
        """The shape in numbers.

        Raises:
            KeyError: A dimension has no size.
        """
        return tuple(evaluate(axis, dims) for axis in self.axes)

    def example(self, dims: Dims, random: np.random.Generator) -> NDArray[np.generic]:
        """Values that a graph can run on; those of dtype `NETWORK` are float32."""
        *sizes, last = self.sizes(dims)
        values = self._values((*sizes, last // self.repeats), random)
        return values if self.repeats == 1 else np.repeat(values, self.repeats, axis=-1)

    def _values(self, sizes: tuple[int, ...], random: np.random.Generator) -> NDArray[np.generic]:
        if self.dtype in (NETWORK, "float32"):
            if self.values is not None:
                return random.uniform(*self.values, sizes).astype(np.float32)
            return random.standard_normal(sizes, np.float32)
        low, high = self.values or (0, 256 if self.dtype == "uint8" else 9)
        return random.integers(int(low), int(high), sizes).astype(self.dtype)


@dataclass(frozen=True)
class Graph:
    """The inputs of a graph, in the order in which it takes them, and its outputs.

    Attributes:
        inputs: The inputs of every bundle's graph.
        outputs: Its outputs.
        optional: Further inputs, after these, of some bundles' graphs.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    optional: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def every_input(self) -> dict[str, Tensor]:
        """All inputs, including optional ones."""
        return {**self.inputs, **self.optional}

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, Tensor],
        inputs: str,
        outputs: str,
        optional: str = "",
        **own: Tensor,
    ) -> Graph:
        """Choose a graph's tensors from a table.

        Args:
            tensors: The table.
            inputs: Names, separated by spaces.
            outputs: Likewise.
            optional: Likewise, inputs that only some bundles' graphs take.
            own: Tensors that mean something else in this graph than in the table.
        """
        known = {**tensors, **own}
        return cls(
            *(
                {name: known[name] for name in names.split()}
                for names in (inputs, outputs, optional)
            )
        )


@dataclass(frozen=True)
class Table:
    """Every graph that bundles of a family may hold.

    Attributes:
        graphs: By name.
        dynamic: Dimensions that may differ from call to call, and their sizes in examples.
        derived: Dimensions that follow from others, as expressions; earlier ones may be used.
        once_one: Dynamic dimensions that were always 1 in bundles of earlier releases, which are
            still read.
    """

    graphs: Mapping[str, Graph]
    dynamic: Mapping[str, int]
    derived: Mapping[str, str] = field(default_factory=dict)
    once_one: frozenset[str] = frozenset()

    def dims(self, sizes: Dims) -> dict[str, int]:
        """Sizes, plus those of the derived dimensions whose parts have sizes."""
        dims = dict(sizes)
        for name, expression in self.derived.items():
            if all(symbol in dims for symbol in symbols(expression)):
                dims[name] = evaluate(expression, dims)
        return dims

    def is_dynamic(self, axis: str) -> bool:
        """Whether the size of an axis may differ from call to call."""
        return any(
            self.is_dynamic(self.derived[symbol])
            if symbol in self.derived
            else symbol in self.dynamic
            for symbol in symbols(axis)
        )

    def inputs_of(self, graph: str, optional: Collection[str] = ()) -> dict[str, Tensor]:
        """The inputs of a graph, including the named optional ones that it has."""
        found = self.graphs[graph]
        taken = {name: tensor for name, tensor in found.optional.items() if name in optional}
        return {**found.inputs, **taken}

    def dynamic_axes(self, graph: str, optional: Collection[str] = ()) -> dict[str, dict[int, str]]:
        """The dynamic axes of each input of a graph, and their names."""
        return {
            name: {i: axis for i, axis in enumerate(tensor.axes) if self.is_dynamic(axis)}
            for name, tensor in self.inputs_of(graph, optional).items()
        }

    def example(
        self, graph: str, sizes: Dims, *, seed: int = 0, optional: Collection[str] = ()
    ) -> dict[str, NDArray[np.generic]]:
        """Inputs that a graph can run on, the same every time.

        Args:
            graph: Its name.
            sizes: Sizes of the static dimensions, and of dynamic ones that should differ from the
                table's.
            seed: Seed of the values.
            optional: Names of optional inputs that this graph takes.
        """
        random, dims = np.random.default_rng(seed), self.dims({**self.dynamic, **sizes})
        return {
            name: tensor.example(dims, random)
            for name, tensor in self.inputs_of(graph, optional).items()
        }

    def ranges(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """Ranges, plus those of the derived dimensions whose parts have ranges."""
        low, tuned, high = (
            self.dims({name: values.values()[which] for name, values in ranges.items()})
            for which in range(3)
        )
        return {name: Range(min=low[name], opt=tuned[name], max=high[name]) for name in low}

    def differences(
        self, graph: str, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
    ) -> list[str]:
        """How an exported graph differs from the table; empty if it fits."""
        wanted = self.graphs[graph]
        found_inputs = set(inputs) - set(wanted.optional)
        if found_inputs != set(wanted.inputs) or set(outputs) != set(wanted.outputs):
            return [
                f"it takes {', '.join(inputs)} and gives {', '.join(outputs)}; this version of "
                f"castmate binds {', '.join(wanted.inputs)} and {', '.join(wanted.outputs)}"
            ]
        pairs = [
            (name, tensor, spec[name], spec is inputs)
            for tensors, spec in (
                (self.inputs_of(graph, inputs), inputs),
                (wanted.outputs, outputs),
            )
            for name, tensor in tensors.items()
        ]
        return [
            f"`{name}` is {found.dtype} {list(found.shape)}; this version of castmate binds "
            f"{tensor.dtype} [{', '.join(tensor.axes)}]"
            for name, tensor, found, is_input in pairs
            if not self._fits(tensor, found, is_input=is_input)
        ]

    def sizes(self, found: Mapping[str, Mapping[str, TensorSpec]]) -> dict[str, int]:
        """Sizes of the static dimensions of exported graphs.

        Args:
            found: The tensors of each graph, which fit the table; they may include outputs, since
                some sizes occur only there.

        Raises:
            ValueError: A dimension has two sizes; names it and a tensor.
        """
        sizes: dict[str, int] = {}
        for graph, name, tensor, spec in self._tensors(found):
            for axis, size in zip(tensor.axes, spec.shape, strict=True):
                match = _FACTOR.fullmatch(axis)
                if self.is_dynamic(axis) or match is None or not match[2]:
                    continue
                one, rest = divmod(int(size), int(match[1] or 1))
                if rest or sizes.setdefault(match[2], one) != one:
                    raise ValueError(
                        f"axis {axis} of `{name}` of graph {graph!r} is {size}; elsewhere "
                        f"{match[2]} is {sizes.get(match[2])}"
                    )
        return sizes

    def _tensors(
        self, found: Mapping[str, Mapping[str, TensorSpec]]
    ) -> Iterator[tuple[str, str, Tensor, TensorSpec]]:
        for graph, specs in found.items():
            known = {**self.graphs[graph].outputs, **self.inputs_of(graph, specs)}
            for name, spec in specs.items():
                if name in known:
                    yield graph, name, known[name], spec

    def _fits(self, tensor: Tensor, found: TensorSpec, *, is_input: bool) -> bool:
        floats = ("float32", "float16", "bfloat16")
        dtypes = floats if tensor.dtype == NETWORK else (tensor.dtype,)
        if found.dtype not in dtypes or len(found.shape) != len(tensor.axes):
            return False
        for axis, size in zip(tensor.axes, found.shape, strict=True):
            # The exporter chooses the names of the axes of outputs, and knows the size of some.
            if self.is_dynamic(axis):
                if is_input and size != axis and not (axis in self.once_one and size == 1):
                    return False
            elif isinstance(size, str) or (axis.isdigit() and size != int(axis)):
                return False
        return True


def shape_ranges(
    inputs: Mapping[str, TensorSpec], dims: Mapping[str, Range]
) -> dict[str, ShapeRange]:
    """The optimization profile of an exported graph, by input."""
    ranges = {}
    for name, tensor in inputs.items():
        low, tuned, high = (
            tuple(
                size if isinstance(size, int) else dims[size].values()[which]
                for size in tensor.shape
            )
            for which in range(3)
        )
        ranges[name] = ShapeRange(min=low, opt=tuned, max=high)
    return ranges


def evaluate(expression: str, dims: Dims) -> int:
    """The value of a sum of products, such as "L+h*w", "4C" or "3".

    Raises:
        KeyError: A dimension has no size.
    """
    return sum(
        math.prod(_value(factor, dims) for factor in term.split("*"))
        for term in expression.split("+")
    )


def symbols(expression: str) -> list[str]:
    """The dimensions in an expression."""
    return [
        match[2]
        for factor in re.split(r"[+*]", expression)
        if (match := _FACTOR.fullmatch(factor)) is not None and match[2]
    ]


def _value(factor: str, dims: Dims) -> int:
    match = _FACTOR.fullmatch(factor)
    if match is None or not factor:
        raise ValueError(f"{factor!r} is neither a number nor the name of a dimension")
    return int(match[1] or 1) * (dims[match[2]] if match[2] else 1)

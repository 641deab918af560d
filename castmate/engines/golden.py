"""Golden tensors: recorded inputs of each graph of a bundle, with torch's outputs in fp32.

Export records them while torch draws a picture; each engine is compared with them on the machine
where it runs. Only that finds kernels that silently compute wrong results on some GPU. Inputs are
rounded to bf16, which every engine can hold, before torch sees them; large outputs are sampled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from castmate.engines.base import Array, Engine, Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.cuda import widen
from castmate.engines.graphs import Graph
from castmate.engines.manifest import GraphSpec
from castmate.errors import BundleCorrupt, BundleMismatch

GOLDEN = "golden.npz"
MOST_VALUES = 4096
"""Most values kept of an output, spread over all of it."""
_INDEX = "index"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Stored(_Model):
    """An array of the file, by its name there; floats are stored as the bits of bf16."""

    array: str
    is_float: bool


class _Output(_Model):
    """A sample of an output, or of its difference from the input `changes`."""

    array: str
    shape: tuple[int, ...]
    changes: str | None


class _Record(_Model):
    """One call of a graph."""

    inputs: Mapping[str, _Stored]
    outputs: Mapping[str, _Output]


@dataclass(frozen=True)
class Call:
    """One call of a graph to be recorded; its float inputs are already rounded to bf16."""

    graph: Graph
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class Difference:
    """How far one output of an engine is from its record.

    Attributes:
        output: `graph.output`.
        relative_l2: Norm of the difference divided by that of the record; infinite if a value is
            not finite.
        max_abs: Largest difference.
        allowed: Largest relative L2 that still counts as equal.
    """

    output: str
    relative_l2: float
    max_abs: float
    allowed: float

    @classmethod
    def between(cls, output: str, found: Array, expected: Array, allowed: float) -> Self:
        """Compare two arrays of one shape in fp64."""
        a, b = found.astype(np.float64), expected.astype(np.float64)
        if not np.isfinite(a).all():
            return cls(output, math.inf, math.inf, allowed)
        norm = float(np.linalg.norm(a - b))
        return cls(
            output,
            norm and norm / max(float(np.linalg.norm(b)), 1e-30),
            float(np.abs(a - b).max(initial=0)),
            allowed,
        )

    @property
    def is_allowed(self) -> bool:
        """Whether the engine's output still counts as equal."""
        return self.relative_l2 <= self.allowed

    def __str__(self) -> str:
        if not math.isfinite(self.relative_l2):
            return f"{self.output}: values are not finite"
        return (
            f"{self.output}: relative L2 {self.relative_l2:.2e}, allowed {self.allowed:.0e}; "
            f"largest difference {self.max_abs:.2e}"
        )


class Golden:
    """The golden tensors of a bundle."""

    def __init__(self, path: Path, limits: Mapping[str, float]) -> None:
        """Read the index of a file; tensors are read when a graph is compared.

        Args:
            path: Written by `save`.
            limits: Largest relative L2 by graph.

        Raises:
            BundleCorrupt: It cannot be read.
        """
        self._path, self._limits = path, limits
        try:
            with self._open() as file:
                index = json.loads(bytes(file[_INDEX]))
            self._records = {
                graph: _Record.model_validate(record) for graph, record in index.items()
            }
        except (OSError, ValueError, KeyError, AttributeError, ValidationError) as error:
            raise BundleCorrupt(
                f"{path} holds no golden tensors ({type(error).__name__}: {error}). Export the "
                "bundle again."
            ) from None

    @classmethod
    def of(cls, bundle: Bundle) -> Self | None:
        """Open a bundle's golden tensors, if it has any.

        Raises:
            BundleCorrupt: The file is missing or changed.
        """
        spec = bundle.manifest.golden
        return None if spec is None else cls(bundle.file(spec), spec.limits)

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs that were recorded."""
        return tuple(self._records)

    def compare(
        self, graph: str, spec: GraphSpec, engine: Engine, runtime: Runtime
    ) -> list[Difference]:
        """Run an engine on the recorded inputs of its graph.

        Args:
            graph: Its name; one of `graphs`.
            spec: Its entry in the bundle's manifest.
            engine: Loaded by `runtime`.
            runtime: The engine's.

        Raises:
            BundleMismatch: An output's shape differs from the record's.
        """
        record = self._records[graph]
        with self._open() as file:
            inputs = {name: _read(stored, file) for name, stored in record.inputs.items()}
            expected = {name: file[output.array] for name, output in record.outputs.items()}
        found = engine(
            **{
                name: runtime.upload(*_as(values, spec.inputs[name].dtype))
                for name, values in inputs.items()
            }
        )
        differences = []
        for name, output in record.outputs.items():
            values = runtime.download(found[name])
            if values.shape != output.shape:
                raise BundleMismatch(
                    f"`{name}` of graph {graph!r} has shape {list(values.shape)}, its record "
                    f"{list(output.shape)}. Export the bundle again."
                )
            base = None if output.changes is None else inputs[output.changes]
            differences.append(
                Difference.between(
                    f"{graph}.{name}",
                    _sample(values, base),
                    expected[name],
                    self._limits[graph],
                )
            )
        return differences

    def _open(self) -> Any:
        return np.load(self._path, allow_pickle=False)


def save(path: Path, calls: Mapping[str, Call]) -> None:
    """Write one call of each graph; equal calls give equal files.

    Raises:
        ValueError: A recorded value is not finite; names the output.
    """
    arrays: dict[str, Array] = {}

    def keep(values: Array) -> str:
        """Store an array once, even if it passes from one graph to the next."""
        digest = sha256(values.tobytes() + str((values.dtype, values.shape)).encode())
        arrays.setdefault(name := digest.hexdigest()[:16], values)
        return name

    index = {}
    for graph, call in calls.items():
        inputs = {name: _store(values, keep) for name, values in call.inputs.items()}
        outputs = {}
        for name, values in call.outputs.items():
            changes = call.graph.outputs[name].changes
            kept = _sample(values, None if changes is None else call.inputs[changes])
            if not np.isfinite(kept).all():
                raise ValueError(f"`{name}` of graph {graph!r} is not finite")
            outputs[name] = _Output(array=keep(kept), shape=values.shape, changes=changes)
        index[graph] = _Record(inputs=inputs, outputs=outputs).model_dump()
    text = json.dumps(index).encode()
    members: dict[str, Any] = {_INDEX: np.frombuffer(text, np.uint8), **arrays}
    np.savez_compressed(path, **members)


def narrow(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of fp32 values in bf16, which must hold them exactly."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    if (bits & 0xFFFF).any():
        raise ValueError("bf16 does not hold these values")
    return (bits >> 16).astype(np.uint16)


def say(differences: Iterable[Difference]) -> str:
    """One line each."""
    return "\n  ".join(map(str, differences))


def _store(values: Array, keep: Any) -> _Stored:
    is_float = values.dtype == np.float32
    return _Stored(array=keep(narrow(values) if is_float else values), is_float=is_float)


def _read(stored: _Stored, file: Mapping[str, Array]) -> Array:
    values = file[stored.array]
    return widen(values) if stored.is_float else values


def _as(values: Array, dtype: str) -> tuple[Array, str]:
    """The arguments of `Runtime.upload` for a tensor of a dtype."""
    return (narrow(values) if dtype == "bfloat16" else values.astype(dtype)), dtype


def _sample(values: Array, base: Array | None) -> Array:
    """At most `MOST_VALUES` values in fp32, minus those of `base`, spread over every axis."""
    size = values.size
    # Steps of about the golden ratio spread evenly over axes of any length.
    stride = next(k for k in range(int(size * 0.618) + 1, 2 * size + 2) if math.gcd(k, size) == 1)
    where = (np.arange(min(size, MOST_VALUES), dtype=np.int64) * stride) % size
    found = values.reshape(-1)[where].astype(np.float32)
    return found if base is None else found - base.reshape(-1)[where].astype(np.float32)

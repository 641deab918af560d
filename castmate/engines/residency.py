"""Plans which graphs stay on the device, from counted bytes, before anything is loaded.

Weights that stay cost no time, and weights that leave cost no memory, so the graphs that run most
often stay. Activations are one block that all graphs share, since graphs run one after the other.
Nothing here touches a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from castmate.errors import BundleMismatch

SPARE_BYTES = 2**29
"""Left free for the driver, kernels that are compiled on the way, and fragmentation."""


@dataclass(frozen=True)
class Share:
    """How much of a GPU a runtime may take.

    Attributes:
        device: The GPU's number.
        instances: Runtimes on that GPU, each with an equal part.
        memory: The most bytes that all of them together take; by default all that are free.
        caches: How many of one runtime's bytes encoded prompts and references may take.
    """

    device: int = 0
    instances: int = 1
    memory: int | None = None
    caches: int = 0


WHOLE_GPU = Share()


class Runs(IntEnum):
    """How often a stage runs, most often first."""

    STEP = 0
    PICTURE = 1
    PROMPT = 2
    REFERENCE = 3


@dataclass(frozen=True)
class Stage:
    """Part of a request.

    Attributes:
        name: As in `timings_ms`.
        runs: How often it runs.
        graphs: The graphs that it runs, in order; a bundle may lack some.
    """

    name: str
    runs: Runs
    graphs: tuple[str, ...]


@dataclass(frozen=True)
class Footprint:
    """Device memory that a graph takes, in bytes.

    Attributes:
        weights: For its weights.
        activations: For one execution context, at the largest shapes.
        tensors: For its inputs and outputs, at the largest shapes.
        streams: Whether part of its weights may stay on the host, which is slower.
    """

    weights: int
    activations: int
    tensors: int = 0
    streams: bool = False


@dataclass(frozen=True)
class Residency:
    """Where every graph's weights are while each graph runs.

    Attributes:
        stages: A request's, in order, with the existing graphs.
        footprints: By graph.
        room: Bytes that weights, activations and tensors may take together.
        caches: How many of these encoded prompts and references may take.
        weights: Bytes of each graph's weights on the device while it runs.
        beside: The graphs whose weights may stay while a graph runs.
    """

    stages: tuple[Stage, ...]
    footprints: Mapping[str, Footprint]
    room: int
    caches: int
    weights: Mapping[str, int]
    beside: Mapping[str, frozenset[str]]

    @property
    def resident(self) -> tuple[str, ...]:
        """Graphs that are loaded once and stay."""
        return tuple(
            name
            for name in self.footprints
            if all(name in kept for other, kept in self.beside.items() if other != name)
        )

    @property
    def parked(self) -> tuple[str, ...]:
        """Graphs that leave when another needs their room."""
        resident = self.resident
        return tuple(name for name in self.footprints if name not in resident)

    @property
    def streamed(self) -> tuple[str, ...]:
        """Graphs that read part of their weights from the host whenever they run."""
        return tuple(
            name for name, found in self.footprints.items() if self.weights[name] < found.weights
        )

    def workspace(self, graph: str) -> int:
        """Bytes of the activations' block while a graph runs: one size for its whole stage.

        A graph of several stages uses the largest of their sizes in each.
        """
        together = (stage.graphs for stage in self.stages if graph in stage.graphs)
        return max(self.footprints[name].activations for names in together for name in names)

    def taken(self, graph: str) -> int:
        """Bytes on the device while a graph runs."""
        kept = self.beside[graph] | {graph}
        return (
            sum(self.weights[name] for name in kept)
            + self.workspace(graph)
            + self.footprints[graph].tensors
            + self.caches
        )

    def peak(self, stage: Stage) -> int:
        """The most that a stage takes."""
        return max(map(self.taken, stage.graphs))

    def spare(self, graph: str) -> int:
        """Bytes that stay free while a graph runs."""
        return self.room - self.taken(graph)

    def loads(self, runs: Runs) -> int:
        """Bytes of weights loaded for one more run, such as one more picture.

        After a new prompt or reference comes a picture, which loads everything that was displaced.
        Counted from the state in which the last such request left the graphs.
        """
        rounds = [
            graph
            for stage in self.stages
            if stage.runs <= Runs.PICTURE or stage.runs is runs
            for graph in stage.graphs
        ]
        return sum(self.weights[graph] for graph in _brought(rounds, self.beside))

    def summary(self) -> str:
        """The plan in one line, for the log."""
        peak = max(map(self.peak, self.stages))
        parts = [
            f"{gigabytes(peak)} at the peak of {gigabytes(self.room)}",
            f"resident: {', '.join(self.resident) or 'none'}",
        ]
        if self.parked:
            parts.append(f"parked when not needed: {', '.join(self.parked)}")
        if self.streamed:
            parts.append(f"streamed from the host: {', '.join(self.streamed)}")
        if again := self.loads(Runs.PICTURE):
            parts.append(f"every picture loads {gigabytes(again)} again")
        return "; ".join(parts)


def plan_residency(
    stages: Sequence[Stage], footprints: Mapping[str, Footprint], memory: int, caches: int = 0
) -> Residency:
    """Let as much stay as fits, graphs that run most often first.

    Args:
        stages: A request's, in order.
        footprints: By graph, for every existing graph.
        memory: Bytes of the device that may be taken.
        caches: Bytes of these for encoded prompts and references.

    Raises:
        BundleMismatch: It cannot run in so little memory; says which graph and what would fit.
    """
    present = tuple(
        Stage(stage.name, stage.runs, graphs)
        for stage in stages
        if (graphs := tuple(name for name in stage.graphs if name in footprints))
    )
    room = memory - SPARE_BYTES
    needs: dict[tuple[str, ...], int] = {}
    for stage in present:
        # The graphs of a step must be loaded together; those of other stages one after the other.
        for needed in [stage.graphs] if stage.runs is Runs.STEP else [(g,) for g in stage.graphs]:
            size = (
                sum(footprints[name].weights for name in needed)
                + max(footprints[name].activations for name in stage.graphs)
                + max(footprints[name].tensors for name in needed)
                + caches
            )
            needs[needed] = max(size, needs.get(needed, 0))
    weights = {name: found.weights for name, found in footprints.items()}
    for needed, size in needs.items():
        if size > room:
            name = max(needed, key=lambda name: (footprints[name].streams, weights[name]))
            if not footprints[name].streams or size - room > weights[name]:
                raise BundleMismatch(_too_little(needed, footprints, size, room))
            weights[name] -= size - room
    ranked = [name for stage in sorted(present, key=lambda s: s.runs) for name in stage.graphs]
    beside = {}
    for needed, size in needs.items():
        left, kept = max(0, room - size), set(needed)
        for other in ranked:
            if other not in kept and weights[other] <= left:
                kept.add(other)
                left -= weights[other]
        beside.update({name: frozenset(kept - {name}) for name in needed})
    return Residency(present, footprints, room, caches, weights, beside)


def gigabytes(num_bytes: int) -> str:
    """Bytes for people."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 10**8 else f"{num_bytes / 1e6:.1f} MB"


def _too_little(
    needed: Sequence[str], footprints: Mapping[str, Footprint], size: int, room: int
) -> str:
    weights = sum(footprints[name].weights for name in needed)
    return (
        f"{' and '.join(needed)} cannot run in so little GPU memory: {gigabytes(weights)} of "
        f"weights and {gigabytes(size - weights)} of activations, tensors and caches, but "
        f"{gigabytes(max(0, room))} may be used. What takes less: plans for smaller pictures "
        "(python -m export.build --max-side 1024), FP8 (python -m export.all --quantization fp8), "
        "plans whose weights are streamed from the host (python -m export.build "
        "--weight-streaming), a smaller CASTMATE_SUBJECT_CACHE_MB. Or raise CASTMATE_GPU_MEMORY "
        "where it is set, or use a larger card."
    )


def _brought(graphs: Sequence[str], beside: Mapping[str, frozenset[str]]) -> list[str]:
    """The graphs that are loaded in the second of two equal rounds."""
    loaded: set[str] = set()
    brought: list[str] = []
    for _ in range(2):
        brought = []
        for graph in graphs:
            loaded &= beside[graph] | {graph}
            if graph not in loaded:
                brought.append(graph)
                loaded.add(graph)
    return brought

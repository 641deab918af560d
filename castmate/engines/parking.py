"""Engines come to the device when they run, and leave when another one needs their room.

Which may stay is decided beforehand, in `castmate.engines.residency`; whoever calls an engine
notices nothing but the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from castmate.engines.cuda import Device, DeviceTensor
from castmate.engines.residency import Residency


class Parkable(Protocol):
    """An engine whose weights come and go."""

    @property
    def is_here(self) -> bool:
        """Whether its weights are on the device."""
        ...

    @property
    def activation_bytes(self) -> int:
        """What it needs of the workspace while it is here."""
        ...

    def bring(self) -> None:
        """Load the weights."""
        ...

    def leave(self) -> None:
        """Free the weights; nothing is queued any more."""
        ...

    def work_in(self, block: DeviceTensor) -> None:
        """Use this memory for activations from now on."""
        ...


class Parking:
    """The engines of a runtime, and the one block of memory for the activations of all."""

    def __init__(self, device: Device, residency: Residency) -> None:
        self._device, self._residency = device, residency
        self._engines: dict[str, Parkable] = {}
        self._block: DeviceTensor | None = None
        self._running: str | None = None

    @property
    def engines(self) -> Mapping[str, Parkable]:
        """Those that were added, by graph."""
        return self._engines

    def add(self, graph: str, engine: Parkable) -> None:
        """Take an engine in."""
        self._engines[graph] = engine
        self._running = None

    def enter(self, graph: str) -> None:
        """Make an engine ready to run: its weights, and room to work in.

        Raises:
            CastmateError: It cannot be loaded.
        """
        if graph == self._running:
            return
        self._running = None  # until it is ready
        engine, stays = self._engines[graph], self._residency.beside[graph] | {graph}
        leaving = [
            other
            for name, other in self._engines.items()
            if other.is_here and other is not engine and name not in stays
        ]
        if leaving or not engine.is_here:
            self._block = None
            self._device.trim()
            for other in leaving:
                other.leave()
            if not engine.is_here:
                engine.bring()
        engine.work_in(self._workspace(graph, engine.activation_bytes))
        self._running = graph

    def _workspace(self, graph: str, needed: int) -> DeviceTensor:
        """The block; a larger one stays while there is room, so that pictures allocate nothing."""
        needed = max(needed, self._residency.workspace(graph), 1)
        most = needed + max(0, self._residency.spare(graph))
        if self._block is None or not needed <= self._block.num_bytes <= most:
            if self._block is not None:
                self._block = None
                self._device.trim()
            self._block = self._device.allocate((needed,), "uint8")
        return self._block

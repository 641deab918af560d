"""Loads engines onto the device when they run, and unloads them when another needs the room.

`castmate.engines.residency` decides beforehand which may stay; callers of an engine notice only
the time.
"""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet

from castmate.engines.cuda import Device, DeviceTensor
from castmate.engines.residency import Residency


class Parkable(Protocol):
    """An engine whose weights come and go."""

    @property
    def graph(self) -> str:
        """The graph that it runs."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether its weights are on the device."""
        ...

    @property
    def activation_bytes(self) -> int:
        """Bytes of the workspace that it needs while it is on the device."""
        ...

    def bring(self) -> None:
        """Load the weights."""
        ...

    def leave(self) -> None:
        """Free the weights; no work may be queued."""
        ...

    def work_in(self, block: DeviceTensor) -> None:
        """Use this memory for activations from now on."""
        ...


class Parking:
    """The engines of a runtime, and the one memory block for all their activations."""

    def __init__(self, device: Device, residency: Residency) -> None:
        self._device, self._residency = device, residency
        self._engines = WeakSet[Parkable]()  # engines vanish with their pipeline
        self._block: DeviceTensor | None = None
        self._ready: Parkable | None = None

    def add(self, engine: Parkable) -> None:
        """Register an engine."""
        self._engines.add(engine)

    def enter(self, engine: Parkable) -> None:
        """Make an engine ready to run: its weights, and room to work in.

        Raises:
            CastmateError: It cannot be loaded.
        """
        if engine is self._ready:
            return
        self._ready = None
        stays = self._residency.beside[engine.graph]
        leaving = [
            other
            for other in self._engines
            if other.is_here and other is not engine and other.graph not in stays
        ]
        if leaving or not engine.is_here:
            self._block = None
            self._device.trim()
            for other in leaving:
                other.leave()
            if not engine.is_here:
                engine.bring()
        engine.work_in(self._workspace(engine))
        self._ready = engine

    def _workspace(self, engine: Parkable) -> DeviceTensor:
        """The block; a larger one stays while there is room, so that pictures allocate nothing."""
        needed = max(engine.activation_bytes, self._residency.workspace(engine.graph), 1)
        most = needed + max(0, self._residency.spare(engine.graph))
        if self._block is None or not needed <= self._block.num_bytes <= most:
            if self._block is not None:
                self._block = None
                self._device.trim()
            self._block = self._device.allocate((needed,), "uint8")
        return self._block

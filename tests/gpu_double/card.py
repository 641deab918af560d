"""The hardware: cards with memory and streams, and what is wrong with how they are used."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

GIB = 2**30


@dataclass
class Block:
    """Memory that was given out.

    Attributes:
        address: Of its first byte.
        size: Bytes.
        what: Who took it.
        pooled: Whether it came from the stream-ordered pool.
        freed: Whether it was given back.
        data: Its bytes, where any were written.
    """

    address: int
    size: int
    what: str
    pooled: bool
    freed: bool = False
    data: np.ndarray | None = None

    def bytes(self) -> np.ndarray:
        if self.data is None:
            self.data = np.zeros(self.size, np.uint8)
        return self.data


class OutOfMemory(Exception):
    """The card is full."""


@dataclass
class Card:
    """One GPU.

    Attributes:
        size: Bytes of memory.
        compute_capability: Such as (8, 9).
        poison: CUDA error that every call answers with from now on.
        faults: What was done wrong; a test that leaves any fails.
        most_taken: The most bytes that were ever taken.
        threshold: What the pool keeps when a stream is waited for.
    """

    size: int = 24 * GIB
    compute_capability: tuple[int, int] = (8, 9)
    index: int = 0
    poison: int = 0
    faults: list[str] = field(default_factory=list)
    most_taken: int = 0
    threshold: int = 0
    reserved: int = 0

    def __post_init__(self) -> None:
        self._blocks: list[Block] = []
        self._next = (self.index + 1) << 48
        self._settled_frees = 0
        self.streams: set[int] = set()
        self.running: list[object] = []

    @property
    def live(self) -> list[Block]:
        return [block for block in self._blocks if not block.freed]

    @property
    def used(self) -> int:
        """Bytes of the pool that are given out."""
        return sum(block.size for block in self.live if block.pooled)

    @property
    def taken(self) -> int:
        """Bytes that nobody else can have."""
        return self.reserved + sum(block.size for block in self.live if not block.pooled)

    def allocate(self, size: int, what: str, *, pooled: bool) -> Block:
        plain = sum(block.size for block in self.live if not block.pooled)
        reserved = max(self.reserved, self.used + size) if pooled else self.reserved
        # What the pool keeps for later, nobody else gets: not even after `cudaMalloc` has failed.
        if plain + reserved + (0 if pooled else size) > self.size:
            raise OutOfMemory(f"{what}: {size} bytes, {self.size - self.taken} are free")
        self.reserved = reserved
        block = Block(self._next, size, what, pooled)
        self._next += -(-max(size, 1) // 512) * 512
        self._blocks.append(block)
        self.most_taken = max(self.most_taken, self.taken)
        return block

    def free(self, address: int) -> None:
        block = self.at(address, 1, "freed")
        if block.address != address:
            self.fault(f"{address:#x} was freed, which is inside {block.what}")
        block.freed = True
        block.data = None

    def wait(self) -> None:
        """A stream is waited for: nothing runs any more, and the pool shrinks to its threshold."""
        self.running.clear()
        self._shrink(self.threshold)

    def trim(self, keep: int) -> None:
        if self.running:
            return  # what was freed while something runs cannot go yet
        self._shrink(keep)

    def at(self, address: int, size: int, verb: str) -> Block:
        """The live block that holds a range."""
        starts = [block.address for block in self._blocks]
        number = bisect.bisect_right(starts, address) - 1
        block = self._blocks[number] if number >= 0 else None
        if block is None or address + size > block.address + max(block.size, 1):
            self.fault(f"{address:#x} was {verb}, {size} bytes that nobody was given")
        if block.freed:
            self.fault(f"{block.what} was {verb} after it was given back")
        return block

    def read(self, address: int, size: int) -> np.ndarray:
        block = self.at(address, size, "read")
        offset = address - block.address
        return block.bytes()[offset : offset + size]

    def write(self, address: int, data: np.ndarray) -> None:
        block = self.at(address, data.size, "written")
        offset = address - block.address
        block.bytes()[offset : offset + data.size] = data

    def fault(self, text: str) -> NoReturn:
        self.faults.append(text)
        raise AssertionError(text)

    def _shrink(self, keep: int) -> None:
        self.reserved = max(self.used, min(self.reserved, keep))


class Machine:
    """Cards, and which one each thread has chosen."""

    def __init__(self, cards: Sequence[Card]) -> None:
        self.cards = list(cards)
        for index, card in enumerate(self.cards):
            card.index = index
            card.__post_init__()
        self._chosen = threading.local()
        self.calls: list[str] = []

    def choose(self, index: int) -> None:
        self._chosen.index = index

    def here(self, what: str) -> Card:
        """The card of this thread."""
        index = getattr(self._chosen, "index", None)
        if index is None:
            self.cards[0].fault(
                f"{what} in thread {threading.current_thread().name!r}, which has chosen no GPU"
            )
        return self.cards[index]

    def on_stream(self, stream: int, what: str) -> Card:
        """The card of this thread, whose stream it must be."""
        card = self.here(what)
        if stream not in card.streams:
            card.fault(f"{what} on a stream that is not one of GPU {card.index}")
        return card

    def check(self) -> None:
        """Fail for whatever was done wrong, and for memory that was not given back."""
        faults = [fault for card in self.cards for fault in card.faults]
        left = [
            f"{block.what} ({block.size} bytes) was never given back"
            for card in self.cards
            if not card.poison
            for block in card.live
        ]
        assert not faults + left, "\n".join(faults + left)

"""A cache bounded by the bytes of its contents."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cachetools import LRUCache

T = TypeVar("T")


@dataclass(frozen=True)
class _Entry(Generic[T]):
    value: T
    num_bytes: int


class SizedCache(Generic[T]):
    """Drops the least recently used entries beyond a bound in bytes; not thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRUCache[Hashable, _Entry[T]] = LRUCache(
            max_bytes, getsizeof=lambda entry: entry.num_bytes
        )
        self.hits = self.misses = 0

    def get_or_make(self, key: Hashable, make: Callable[[], tuple[T, int]]) -> T:
        """The value of `key`; if absent, `make` returns it and its size in bytes.

        A value larger than the whole cache is returned but not kept.
        """
        if (entry := self._entries.get(key)) is not None:
            self.hits += 1
            return entry.value
        self.misses += 1
        value, num_bytes = make()
        if num_bytes <= self._entries.maxsize:
            self._entries[key] = _Entry(value, num_bytes)
        return value

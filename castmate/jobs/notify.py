"""Wakes whoever waits in this process; the databases carry the same words between processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

from castmate.clients.base import Progress, ProgressCallback

WORK: Final = "work"  # something can be claimed
DONE: Final = "done:"
_PROGRESS: Final = "progress:"


def done(prediction_id: str) -> str:
    """The topic that announces the end of a prediction."""
    return f"{DONE}{prediction_id}"


def progress(prediction_id: str) -> str:
    """The topic that announces progress of a prediction, once it is written."""
    return f"{_PROGRESS}{prediction_id}"


def cancel(prediction_id: str) -> str:
    """The topic that announces the wish to cancel a prediction."""
    return f"cancel:{prediction_id}"


class Hub:
    """Topics and who listens to them; belongs to one event loop.

    A signal may come without a cause, never late: whoever wakes looks at the ledger again.
    """

    def __init__(self) -> None:
        self._signals: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._watchers: defaultdict[str, list[ProgressCallback]] = defaultdict(list)
        self._latest: dict[str, Progress | None] = {}  # of what is being made in this process
        self._ears: list[Callable[[str], object]] = []

    @contextlib.contextmanager
    def listening(self, *topics: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of the topics is notified; clear it to wait again."""
        signal = asyncio.Event()
        for topic in topics:
            self._signals[topic].add(signal)
        try:
            yield signal
        finally:
            for topic in topics:
                self._signals[topic].discard(signal)
                if not self._signals[topic]:
                    del self._signals[topic]

    def overhear(self, hear: Callable[[str], object]) -> None:
        """Call `hear` with every topic that is notified, for as long as the hub is there."""
        self._ears.append(hear)

    def notify(self, topic: str) -> None:
        """Wake everyone who listens to the topic."""
        if topic.startswith(_PROGRESS) and self.makes(topic.removeprefix(_PROGRESS)):
            return  # its watchers here know more than what was written
        for signal in self._signals.get(topic, ()):
            signal.set()
        for hear in self._ears:
            hear(topic)

    def notify_all(self) -> None:
        """Wake everyone: something changed elsewhere, and nobody knows what."""
        for signals in self._signals.values():
            for signal in signals:
                signal.set()

    @contextlib.contextmanager
    def watching(self, prediction_id: str, on_progress: ProgressCallback | None) -> Iterator[None]:
        """Pass the progress of a prediction that is made in this process to `on_progress`.

        It begins with where the prediction is by now.
        """
        if on_progress is None:
            yield
            return
        self._watchers[prediction_id].append(on_progress)
        if (latest := self._latest.get(prediction_id)) is not None:
            on_progress(latest)
        try:
            yield
        finally:
            self._watchers[prediction_id].remove(on_progress)
            if not self._watchers[prediction_id]:
                del self._watchers[prediction_id]

    def makes(self, prediction_id: str) -> bool:
        """Whether a prediction is being made in this process."""
        return prediction_id in self._latest

    @contextlib.contextmanager
    def making(self, prediction_id: str) -> Iterator[None]:
        """Keep how far a prediction is within the block, for watchers who come in the middle."""
        self._latest[prediction_id] = None
        try:
            yield
        finally:
            self._latest.pop(prediction_id, None)

    def progress(self, prediction_id: str, progress: Progress) -> None:
        """Tell the watchers of a prediction where it is."""
        if prediction_id in self._latest:  # what was stopped may report once more
            self._latest[prediction_id] = progress
        for on_progress in tuple(self._watchers.get(prediction_id, ())):
            on_progress(progress)

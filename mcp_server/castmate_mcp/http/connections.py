"""Connections: no more than there are file handles for, and none that only takes up room.

uvicorn waits for ever for a request that does not come, and asyncio accepts until no file handle is
left. Here a request has so long to arrive and its answer so long to be taken; where every place is
taken, the connection that has been idle for the longest makes room for a new one.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from typing import Any, Final, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S: Final = 10.0  # from the first byte of a request, or its connection, to its whole head
STALLED_S: Final = 60.0  # for a caller to take a part of an answer that is larger than the buffers
MAX_CONNECTIONS: Final = 4096
MAX_OPEN_FILES: Final = 65_536
_OTHER_FILES: Final = 48  # the ledger, libraries, models
_FEWEST: Final = 16
_KEEPALIVE_S: Final = 60  # then the kernel asks a silent peer whether it is still there


def raise_open_files() -> int:
    """Allow as many open files as the system lets us; gives how many connections that is for."""
    if sys.platform == "win32":  # no such limit
        return MAX_CONNECTIONS
    import resource

    soft, hard = (
        MAX_OPEN_FILES if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    if soft < (wanted := min(hard, MAX_OPEN_FILES)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    # A request may need a file handle besides its connection.
    return max(_FEWEST, min(MAX_CONNECTIONS, (soft - _OTHER_FILES) // 2))


class Places:
    """The connections of a server: how many there are, and which of them wait for a request."""

    def __init__(self, limit: int) -> None:
        """No connection yet.

        Args:
            limit: How many there may be at a time.
        """
        self._limit = limit
        self._taken = self._begun = 0
        # The longest idle first; those that never had a request make room before all others.
        self._silent: dict[GuardedProtocol, None] = {}
        self._kept_alive: dict[GuardedProtocol, None] = {}

    @property
    def free(self) -> bool:
        """Whether there is room for one more."""
        return self._taken < self._limit

    def take(self) -> None:
        """Count a connection that was accepted."""
        self._taken += 1

    def begin(self) -> None:
        """It is looked after from now on."""
        self._begun += 1

    def leave(self, connection: GuardedProtocol) -> None:
        """Forget a connection that has ended."""
        self._taken -= 1
        self._begun -= 1
        self.busy(connection)

    def idle(self, connection: GuardedProtocol) -> None:
        """It waits for a request from now on, or still."""
        of_its_kind = self._silent if not connection.had_request else self._kept_alive
        of_its_kind.setdefault(connection)

    def busy(self, connection: GuardedProtocol) -> None:
        """It has a request in hand."""
        self._silent.pop(connection, None)
        self._kept_alive.pop(connection, None)

    def make_room(self) -> bool:
        """End the connection that has been idle for the longest; False where none is."""
        for connection in (*self._silent, *self._kept_alive):
            if not connection.has_unread:
                self.busy(connection)
                connection.transport.abort()
                return True
        # Others are looked at for the first time, or their requests read, at the next turn.
        return self._begun < self._taken or bool(self._silent or self._kept_alive)


class Listener(socket.socket):
    """A listening socket that accepts no more than there are places for."""

    places: Places

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; asyncio takes a BlockingIOError for "try again when I can"."""
        while not self.places.free:
            if self.places.make_room():
                raise BlockingIOError  # its place is free at the next turn of the event loop
            connection, _ = super().accept()
            connection.close()  # every place is in use: nobody else would be answered in time
        connection, address = super().accept()
        self.places.take()
        return connection, address

    @classmethod
    def open(
        cls, places: Places, family: int, kind: int = socket.SOCK_STREAM, proto: int = 0
    ) -> Listener:
        """A socket that is yet to be bound.

        Args:
            places: Of its connections.
            family: As `socket.socket` takes it, like the others.
            kind: The same.
            proto: The same.
        """
        listener = cls(family, kind, proto)
        listener.places = places
        # Connections inherit it: a peer that has vanished is noticed, also during a stream.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S // 4)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        return listener


class GuardedProtocol(H11Protocol):
    """uvicorn's, with a deadline on everything that it waits for from the other side."""

    places: Places

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request_due: asyncio.TimerHandle | None = None
        self._reading_due: asyncio.TimerHandle | None = None

    @property
    def had_request(self) -> bool:
        """Whether a whole request has ever come."""
        return cast(object, self.cycle) is not None

    @property
    def has_unread(self) -> bool:
        """Whether something has come that was not looked at yet."""
        waiting = select.poll()
        waiting.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(waiting.poll(0))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller is there."""
        super().connection_made(transport)
        self.places.begin()
        self._look()

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """An answer is out; uvicorn's own deadline holds until the first byte after it."""
        super().on_response_complete()
        self._look(waiting=False)

    def pause_writing(self) -> None:
        """The caller takes nothing of the answer for the moment."""
        super().pause_writing()
        self._reading_due = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken some."""
        super().resume_writing()
        _cancel(self._reading_due)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        _cancel(self._request_due)
        self.places.leave(self)
        super().connection_lost(exc)
        _cancel(self._reading_due)

    def _look(self, waiting: bool = True) -> None:
        if self.had_request and not self.cycle.response_complete:
            self.places.busy(self)
            _cancel(self._request_due)
            self._request_due = None
        elif not self.transport.is_closing():
            self.places.idle(self)
            if waiting and self._request_due is None:
                self._request_due = self.loop.call_later(REQUEST_S, self.transport.abort)


def guarded(places: Places) -> type[GuardedProtocol]:
    """The protocol of a server, for `uvicorn.Config(http=...)`.

    Args:
        places: Of its connections.
    """
    return type("Guarded", (GuardedProtocol,), {"places": places})


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()

"""`castmate serve`: one process that answers HTTP until it is told to stop, and then in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog
import uvicorn
from starlette.applications import Starlette

from castmate import __version__, tracing
from castmate.addresses import is_here
from castmate.errors import SettingsError
from castmate.jobs.opening import database_url
from castmate.service import Castmate
from castmate_mcp.agent.streamable import build_mcp_app
from castmate_mcp.app import build_app
from castmate_mcp.http.connections import Listener, Places, guarded, raise_open_files
from castmate_mcp.http.gateway import Gateway
from castmate_mcp.settings import ServerSettings

_log = structlog.stdlib.get_logger("castmate.serve")
_CLOSE_S: Final = 10  # for answers that are on their way when the server stops
KEPT_DAYS: Final = 30.0  # pictures of callers elsewhere, where CASTMATE_RETENTION_DAYS is not set
Say = Callable[[str], object]


async def serve(
    settings: ServerSettings, say: Say, show: Callable[[str], object] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM; call it from the main thread.

    What is being made then gets `settings.drain_s` to end, the rest waits for the next start. A
    second signal ends it at once; nothing acknowledged is lost.

    Args:
        settings: Where to listen, and how.
        say: Gets a line for a person about what is served.
        show: Gets the address once it can be asked.

    Raises:
        SettingsError: The address cannot be used, or only with keys; or traces are asked for, and
            nothing that sends them is installed.
        Unavailable: The database cannot be reached.
    """
    places = Places(raise_open_files())
    opening = Castmate.open(settings, drain_s=settings.drain_s, keep_days=KEPT_DAYS)
    with tracing.exporting("castmate", __version__):
        await _serve(settings, say, show, places, opening)


async def _serve(
    settings: ServerSettings,
    say: Say,
    show: Callable[[str], object] | None,
    places: Places,
    opening: AbstractAsyncContextManager[Castmate[ServerSettings]],
) -> None:
    async with opening as castmate:
        configured = await castmate.keys.configured()
        if not (configured or is_here(settings.host)):
            raise SettingsError(
                f"CASTMATE_HOST: {settings.host} can be reached from other machines, and no key "
                "exists: anyone could draw on this one. Run `castmate keys create NAME` first, or "
                "listen on 127.0.0.1."
            )
        if not database_url(settings).startswith("sqlite") and settings.files_secret is None:
            _log.warning(
                "links of this server work at no other one",
                fix="give all that share the database one CASTMATE_FILES_SECRET",
            )
        with _listening(settings.host, settings.port, places) as listener:
            castmate.work()
            app = build_app(castmate, mcp=build_mcp_app(castmate))

            def started(url: str) -> None:
                _announce(say, url, configured)
                if show is not None:
                    show(url)

            await _Server(_config(app, places)).run(listener, started)


class _Server(uvicorn.Server):
    """uvicorn, whose signals are ours: after it ends, what is being made still gets its time."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handled by `run`."""
        yield

    async def run(self, listener: socket.socket, started: Callable[[str], None]) -> None:  # type: ignore[override]
        loop = asyncio.get_running_loop()
        app = self.config.app
        assert isinstance(app, Starlette)
        gateway: Gateway = app.state.gateway

        def stop(number: signal.Signals) -> None:
            self.should_exit = True
            gateway.draining.set()
            gateway.castmate.finish()
            loop.remove_signal_handler(number)  # a second one ends the process

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        host, port = listener.getsockname()[:2]
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await self.serve([listener])
        _log.info("draining", seconds=gateway.castmate.settings.drain_s)


def _config(app: Starlette, places: Places) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=guarded(places),
        ws="none",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `Gateway.base_url` reads them, and nobody is trusted by address
        timeout_graceful_shutdown=_CLOSE_S,
        timeout_keep_alive=30,
    )


@contextlib.contextmanager
def _listening(host: str, port: int, places: Places) -> Iterator[socket.socket]:
    """A socket that is bound before the start is announced.

    Raises:
        SettingsError: The address is taken or is none of this machine.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = Listener.open(places, family, kind, proto)
    except OSError as error:
        raise SettingsError(f"CASTMATE_HOST: {host} is no address ({error.strerror})") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            raise SettingsError(
                f"CASTMATE_PORT: {host}:{port} cannot be used ({error.strerror}); name another one "
                "with --port."
            ) from None
        yield listener


def _announce(say: Say, url: str, configured: bool) -> None:
    if configured:
        who = "Callers need a key of `castmate keys create NAME`."
    else:
        who = (
            "No keys: it answers this machine alone. For others: `castmate keys create NAME`, then "
            "--host 0.0.0.0 behind a proxy that speaks https."
        )
    say(f"Serving at {url}. {who} Ctrl-C stops it.")

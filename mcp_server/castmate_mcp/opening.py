"""`castmate studio`: the studio in the user's browser, over a server that runs or is started."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import webbrowser
from ipaddress import ip_address
from typing import Final

import typer

from castmate.options import BundleName, DataDir, Port
from castmate.reporting import reporting

_PATIENCE_S: Final = 2.0


def command(port: Port = None, bundle: BundleName = None, data_dir: DataDir = None) -> None:
    """Open the studio in the browser: characters, pictures, storyboards.

    If no server runs, this starts one, until Ctrl-C.
    """
    from castmate_mcp.http import logs
    from castmate_mcp.serving import serve
    from castmate_mcp.settings import ServerSettings

    with reporting():
        settings = ServerSettings.load(port=port, bundle=bundle, data_dir=data_dir)
        say = functools.partial(typer.echo, err=True)
        url = address(settings.host, settings.port)
        if settings.port and answers(url):
            say(f"A server is running: {url}/studio")
            show(url)
            return
        logs.set_up()
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(settings, say, _show_beside))


def address(host: str, port: int) -> str:
    """Where a server that listens on a host and port is found from this machine."""
    with contextlib.suppress(ValueError):  # a name
        if ip_address(host).is_unspecified:
            host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def answers(url: str) -> bool:
    """Whether a server of ours is there already."""
    import httpx2

    try:
        said = httpx2.get(f"{url}/healthz", timeout=_PATIENCE_S, trust_env=False).json()
    except (httpx2.HTTPError, ValueError):
        return False
    return isinstance(said, dict) and said.get("status") == "ok" and "version" in said


def show(url: str) -> None:
    """Open the studio of a server."""
    webbrowser.open(f"{url}/studio")


def _show_beside(url: str) -> None:
    """A browser in the terminal takes as long as it likes, and the server must answer it."""
    threading.Thread(target=show, args=(url,), daemon=True).start()

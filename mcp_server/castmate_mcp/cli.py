"""The `castmate mcp` command: this machine's server over stdio, for one agent."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from castmate.errors import SettingsError

# `castmate --help` imports this module, and must not wait a second for the SDK.
if TYPE_CHECKING:
    from castmate.settings import Settings


def command(
    bundle: Annotated[
        str | None,
        typer.Option(help="A shipped model's name or a bundle's folder. [CASTMATE_BUNDLE]"),
    ] = None,
    image_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder whose pictures the agent may name by path; may be given again. "
            "[CASTMATE_IMAGE_ROOTS]"
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where finished pictures are kept. [CASTMATE_DATA_DIR]")
    ] = None,
) -> None:
    """Serve an LLM agent over stdio (MCP).

    It reads stdin, answers on stdout and logs to stderr: an agent's host starts it.
    """
    from castmate.settings import Settings

    try:
        settings = Settings.load(
            bundle=bundle, image_roots=tuple(image_root) if image_root else None, data_dir=data_dir
        )
    except SettingsError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    from castmate_mcp.server import build_server
    from castmate_mcp.service import Service

    async with Service.open(settings) as service:
        await build_server(service).run_stdio_async()

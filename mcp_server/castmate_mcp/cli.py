"""The commands `castmate mcp`, `serve`, `keys`, `characters` and `pictures`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from castmate.errors import ImageRejected, InvalidRequest, Problem
from castmate.options import AsJson, BundleName, DataDir, Port
from castmate.paths import expand
from castmate.reporting import reporting
from castmate.times import day_of

# `castmate --help` imports this module, and must not wait a second for the SDK.
if TYPE_CHECKING:
    from castmate.jobs.characters import Character, Characters
    from castmate.jobs.keys import Key
    from castmate.jobs.outputs import Outputs
    from castmate.service import Castmate
    from castmate_mcp.settings import ServerSettings

T = TypeVar("T")

keys = typer.Typer(help="API keys of `castmate serve`.", no_args_is_help=True)
characters = typer.Typer(help="Saved characters.", no_args_is_help=True)
pictures = typer.Typer(help="Finished pictures.", no_args_is_help=True)
CharacterId = Annotated[str, typer.Argument(help="Its id, as `castmate characters list` shows.")]
CharacterRef = Annotated[
    str, typer.Argument(help="Its id or name, as `castmate characters list` shows.")
]
ImageId = Annotated[str, typer.Argument(help="Its image_id (img_...), as results name it.")]


def command(
    bundle: BundleName = None,
    image_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder whose pictures the agent may name by path; may be given again. "
            "[CASTMATE_IMAGE_ROOTS]"
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Serve an LLM agent over stdio (MCP).

    It reads stdin, answers on stdout and logs to stderr: an agent's host starts it.
    """
    from castmate_mcp.settings import ServerSettings

    roots = tuple(image_root) if image_root else None
    with reporting(), contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            _serve(ServerSettings.load(bundle=bundle, image_roots=roots, data_dir=data_dir))
        )


async def _serve(settings: ServerSettings) -> None:
    with _imports():
        from castmate.service import Castmate
        from castmate_mcp.agent import stdio
        from castmate_mcp.agent.server import build_server

    async with Castmate.open(settings) as castmate:
        castmate.work()
        await stdio.serve(build_server(castmate))


@contextlib.contextmanager
def _imports() -> Iterator[None]:
    """What is imported stays: to look for garbage in it would take a tenth of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def serve(
    ctx: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [CASTMATE_HOST, 127.0.0.1]")
    ] = None,
    port: Port = None,
    bundle: BundleName = None,
    data_dir: DataDir = None,
    public_url: Annotated[
        str | None,
        typer.Option(help="This server's address as callers see it. [CASTMATE_PUBLIC_URL]"),
    ] = None,
) -> None:
    """Serve pictures to other programs: over HTTP, until Ctrl-C.

    The API is WaveSpeed's: clients of wavespeed-ai/instant-character change their base URL.
    """
    if ctx.invoked_subcommand is not None:  # castmate serve triton
        return
    with _imports():
        from castmate_mcp.http import logs
        from castmate_mcp.serving import serve as run
        from castmate_mcp.settings import ServerSettings

    with reporting():
        settings = ServerSettings.load(
            host=host, port=port, bundle=bundle, data_dir=data_dir, public_url=public_url
        )
        logs.set_up()
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(run(settings, functools.partial(typer.echo, err=True)))


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key; the ledger and the log show it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="generate, read, metrics or admin; may be given again. By default the first two."
        ),
    ] = None,
    per_minute: Annotated[
        int, typer.Option(help="Requests a minute, looking at predictions apart; 0 is no limit.")
    ] = 600,
    concurrency: Annotated[
        int, typer.Option(help="Predictions that may wait or run at a time; 0 is no limit.")
    ] = 0,
    max_usd: Annotated[
        float | None, typer.Option(help="What hosted pictures may cost in all, dollars.")
    ] = None,
    weight: Annotated[float, typer.Option(help="Its share of the GPU among other keys.")] = 1.0,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            help="Take the secret from this file: wsk_ and 32 or more random letters and digits. "
            "If the key exists with that secret, nothing changes."
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, once: only its hash is kept."""
    from castmate.errors import Problem
    from castmate.jobs.keys import Scope

    async def create(castmate: Castmate) -> tuple[Key, str]:
        names = scope or [Scope.GENERATE, Scope.READ]
        if unknown := [one for one in names if one not in list(Scope)]:
            allowed = ", ".join(Scope)
            raise InvalidRequest([Problem("scope", f"there is no {unknown[0]!r}", allowed)])
        return await castmate.keys.create(
            name,
            scopes=list(map(Scope, names)),
            per_minute=per_minute or None,
            concurrency=concurrency or None,
            max_usd=max_usd,
            weight=weight,
            secret=None if secret_file is None else _secret_in(secret_file),
        )

    with reporting():
        key, secret = _with(create, data_dir)
        if secret_file is not None:
            typer.echo(f"The key {name!r} has the secret in {secret_file}.", err=True)
        elif as_json:
            typer.echo(json.dumps(key.as_dict() | {"key": secret}, indent=2))
        else:
            typer.echo(secret)
            typer.echo(f"This is the key {name!r}; it is not shown again.", err=True)


def _secret_in(path: Path) -> str:
    from castmate.errors import Problem

    try:
        return expand(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        problem = Problem("secret_file", f"{path} cannot be read: {reason}", "a file with a secret")
        raise InvalidRequest([problem]) from None


@keys.command("list")
def list_keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List every key, without its secret."""
    with reporting():
        found = _with(lambda castmate: castmate.keys.list(), data_dir)
        if as_json:
            typer.echo(json.dumps([key.as_dict() for key in found], indent=2))
            return
        for key in found:
            limits = (
                f"{key.per_minute or 'any'} requests a minute",
                f"{key.concurrency or 'any'} predictions at a time",
                "no own budget" if key.max_usd is None else f"${key.max_usd:g}",
                f"weight {key.weight:g}",
            )
            state = "revoked" if key.revoked else " ".join(sorted(key.scopes))
            typer.echo(f"{key.name}  {state}  {', '.join(limits)}")


@keys.command("revoke")
def revoke_key(
    name: Annotated[str, typer.Argument(help="Whose key.")], data_dir: DataDir = None
) -> None:
    """End a key; the next request with it is refused."""
    with reporting():
        _with(lambda castmate: castmate.keys.revoke(name), data_dir)
        typer.echo(f"{name} is revoked. What it submitted is still made.")


@characters.command("create")
def create_character(
    name: Annotated[str, typer.Argument(help="What it is called from now on.")],
    images: Annotated[
        list[str], typer.Argument(help="Its pictures, each as --image of generate, the best first.")
    ],
    data_dir: DataDir = None,
) -> None:
    """Save a character; the same name and pictures again are the same one."""
    from castmate.saved import save

    with reporting():
        saved = _with(lambda castmate: save(castmate, name, images), data_dir)
        typer.echo(f"{saved.id} is {saved.name}: castmate generate --image {saved.id}")


@characters.command("list")
def list_characters(
    key: Annotated[str | None, typer.Option(help="Only those of one API key, by name.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List every saved character, the newest first."""
    with reporting():
        found = _with(lambda castmate: castmate.characters.list(key), data_dir)
        if as_json:
            typer.echo(json.dumps([character.as_dict() for character in found], indent=2))
            return
        for one in found:
            day = day_of(one.created)
            count = "1 picture" if len(one.pictures) == 1 else f"{len(one.pictures)} pictures"
            typer.echo(f"{one.id}  {day}  {one.key_name}  {count}  {one.name}")


@characters.command("rename")
def rename_character(
    character: CharacterRef,
    name: Annotated[str, typer.Argument(help="What it is called from now on.")],
    data_dir: DataDir = None,
) -> None:
    """Call a character something else; its id stays."""
    from castmate.jobs.characters import one_line

    with reporting():
        new = one_line(name)
        renamed = _with_character(character, data_dir, lambda saved, name: saved.rename(name, new))
        typer.echo(f"{renamed.id} is called {new}.")


@characters.command("delete")
def delete_character(
    character: CharacterRef,
    forever: Annotated[
        bool, typer.Option("--forever", help="Remove it at once, with its pictures.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Delete a character; for a day `restore` brings it back. What was drawn from it stays."""
    with reporting():
        if forever:
            gone = _with_character(character, data_dir, lambda saved, name: saved.delete(name))
            typer.echo(f"{gone.name} ({gone.id}) of {gone.key_name} is removed.")
        else:
            gone = _with_character(character, data_dir, lambda saved, name: saved.discard(name))
            typer.echo(f"{gone.name} ({gone.id}) of {gone.key_name} is deleted.")
            typer.echo(f"For a day: castmate characters restore {gone.id}")


@characters.command("restore")
def restore_character(character_id: CharacterId, data_dir: DataDir = None) -> None:
    """Bring back a character that was deleted less than a day ago."""
    with reporting():
        back = _with(lambda castmate: castmate.characters.restore(character_id), data_dir)
        typer.echo(f"{back.name} ({back.id}) of {back.key_name} is back.")


@pictures.command("rename")
def rename_picture(
    image_id: ImageId,
    name: Annotated[str, typer.Argument(help="What it is called from now on.")],
    data_dir: DataDir = None,
) -> None:
    """Give a finished picture a name by which agents find it."""
    from castmate.jobs.outputs import one_line

    with reporting():
        title = one_line(name)
        _with_picture(image_id, data_dir, lambda one, *which: one.rename(*which, title))
        typer.echo(f"{image_id} is called {title}.")


@pictures.command("delete")
def delete_picture(image_id: ImageId, data_dir: DataDir = None) -> None:
    """Delete a finished picture; for a day `restore` brings it back."""
    with reporting():
        _with_picture(image_id, data_dir, lambda one, *which: one.discard(*which))
        typer.echo(f"{image_id} is deleted. For a day: castmate pictures restore {image_id}")


@pictures.command("restore")
def restore_picture(image_id: ImageId, data_dir: DataDir = None) -> None:
    """Bring back a finished picture that was deleted less than a day ago."""
    with reporting():
        _with_picture(image_id, data_dir, lambda one, *which: one.restore(*which))
        typer.echo(f"{image_id} is back.")


def _with_character(
    text: str,
    data_dir: Path | None,
    change: Callable[[Characters, str], Awaitable[Character]],
) -> Character:
    """Change the character of an id or a name.

    Raises:
        InvalidRequest: Nobody is called so, or several are.
    """
    from castmate.jobs.characters import PREFIX
    from castmate.jobs.names import named, no_such_name

    async def work(castmate: Castmate) -> Character:
        if text.startswith(PREFIX):
            return await change(castmate.characters, text)
        found = await castmate.characters.list()
        if (meant := named(found, text)) is None:
            raise no_such_name(found, text, "an id or name of `castmate characters list`")
        return await change(castmate.characters, meant[0].id)

    try:
        return _with(work, data_dir)
    except ImageRejected as error:
        problems = [replace(one, parameter="character") for one in error.problems]
        raise InvalidRequest(problems) from None


def _with_picture(
    image_id: str, data_dir: Path | None, change: Callable[[Outputs, str, int], Awaitable[object]]
) -> None:
    """Change the picture of an id.

    Raises:
        InvalidRequest: There is none.
    """
    from castmate_mcp.http.ids import ImageName

    try:
        if (name := ImageName.parse(image_id)) is None:
            raise FileNotFoundError(image_id)
        which = (name.prediction_id, name.number)
        _with(lambda castmate: change(castmate.outputs, *which), data_dir)
    except FileNotFoundError:
        allowed = "an image_id (img_...) that a result named"
        raise InvalidRequest(
            [Problem("image_id", f"there is no picture {image_id!r}", allowed)]
        ) from None


def _with(use: Callable[[Castmate], Awaitable[T]], data_dir: Path | None) -> T:
    """Use what this machine's ledger holds; nothing is drawn."""
    from castmate.service import Castmate
    from castmate.settings import Settings

    async def run() -> T:
        async with Castmate.open(Settings.load(data_dir=data_dir)) as castmate:
            return await use(castmate)

    return asyncio.run(run())

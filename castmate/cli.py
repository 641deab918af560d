"""The `castmate` command: draw pictures, examine the installation, look at bundles."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from castmate import __version__
from castmate.errors import CastmateError, InvalidRequest, Problem, SettingsError
from castmate.schema import GenerateRequest, GenerateResult, OutputFormat, describe_range

# Whatever loads numpy, Pillow or an engine is imported where it is used: `--help` stays quick.
if TYPE_CHECKING:
    from castmate.clients.base import Client, ProgressCallback
    from castmate.settings import Settings

OK, FAILED, BAD_REQUEST, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    help="One picture of a character and a prompt in, new pictures of that character out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
bundles = typer.Typer(help="Look at the models on this machine.", no_args_is_help=True)
app.add_typer(bundles, name="bundle")

_FIELDS = GenerateRequest.model_fields
_SUFFIXES = {
    ".png": OutputFormat.PNG,
    ".jpg": OutputFormat.JPEG,
    ".jpeg": OutputFormat.JPEG,
    ".webp": OutputFormat.WEBP,
}

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
BundleName = Annotated[
    str | None,
    typer.Option("--bundle", help="A shipped model's name or a bundle's folder. [CASTMATE_BUNDLE]"),
]


def _option(name: str, *flags: str, show_default: bool = True) -> Any:
    """An option that takes its help from the field of the request that it sets."""
    allowed = "" if name in ("prompt", "image", "size") else describe_range(GenerateRequest, name)
    text = f"{_FIELDS[name].description} {allowed.capitalize()}."
    is_number = _FIELDS[name].annotation in (int, float)
    return typer.Option(
        *flags,
        help=text if is_number else _FIELDS[name].description,
        show_default=show_default,
    )


@app.command()
def generate(
    ctx: typer.Context,
    image: Annotated[str, _option("image", "--image", "-i")],
    prompt: Annotated[str, _option("prompt", "--prompt", "-p")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file, replaced if it is there (several pictures get -1, -2, ... before the "
            "suffix), or a folder. By default castmate-SEED.png here, and nothing is replaced.",
        ),
    ] = None,
    size: Annotated[str, _option("size")] = _FIELDS["size"].default,
    seed: Annotated[int, _option("seed")] = _FIELDS["seed"].default,
    negative_prompt: Annotated[str, _option("negative_prompt")] = _FIELDS[
        "negative_prompt"
    ].default,
    num_inference_steps: Annotated[
        int, _option("num_inference_steps", "--num-inference-steps", "--steps")
    ] = _FIELDS["num_inference_steps"].default,
    guidance_scale: Annotated[float, _option("guidance_scale")] = _FIELDS["guidance_scale"].default,
    num_images: Annotated[int, _option("num_images")] = _FIELDS["num_images"].default,
    subject_scale: Annotated[float, _option("subject_scale")] = _FIELDS["subject_scale"].default,
    true_cfg_scale: Annotated[float, _option("true_cfg_scale")] = _FIELDS["true_cfg_scale"].default,
    enable_safety_checker: Annotated[
        bool, _option("enable_safety_checker", "--safety-checker/--no-safety-checker")
    ] = _FIELDS["enable_safety_checker"].default,
    output_format: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="By default what the suffix of --output says, else png."),
    ] = None,
    bundle: BundleName = None,
    as_json: AsJson = False,
) -> None:
    """Draw the character of a picture in a new scene.

    Quote sizes: --size '512*512'.
    """
    with _reporting(as_json):
        values = {name: ctx.params[name] for name in _FIELDS}
        values["output_format"] = _format_of(output, output_format)
        asyncio.run(_generate(GenerateRequest.parse(values), output, bundle, as_json))


@app.command()
def doctor(bundle: BundleName = None, as_json: AsJson = False) -> None:
    """Examine the installation, model included, and say how to repair what is broken."""
    from castmate.doctor import examine

    with _reporting(as_json):
        checks = []
        for check in examine(_settings(bundle)):
            checks.append(check)
            if not as_json:
                typer.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<12} {check.found}")
                if not check.ok:
                    typer.echo(f"      {'':<12} -> {check.fix}")
        healthy = all(check.ok for check in checks)
        if as_json:
            _print_json({"ok": healthy, "checks": [vars(check) for check in checks]})
        raise typer.Exit(OK if healthy else FAILED)


@bundles.command("list")
def list_bundles(as_json: AsJson = False) -> None:
    """List the models that came with this installation."""
    from castmate.engines.bundle import Bundle, shipped

    with _reporting(as_json):
        found = [_describe(Bundle.open(name)) for name in shipped()]
        if as_json:
            _print_json(found)
        for values in () if as_json else found:
            typer.echo("{name}  {num_bytes:,} bytes  {description}".format(**values))


@bundles.command("check")
def check_bundle(
    name: Annotated[str, typer.Argument(help="A shipped model's name, or a bundle's folder.")],
    as_json: AsJson = False,
) -> None:
    """Compare every file of a bundle with its manifest."""
    from castmate.engines.bundle import Bundle

    with _reporting(as_json):
        bundle = Bundle.open(name)
        bundle.check()
        values = _describe(bundle)
        if as_json:
            _print_json(values)
        else:
            typer.echo(
                "{name} in {path}: {num_bytes:,} bytes, every file is whole".format(**values)
            )


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command, with the subcommands that other packages bring.

    They name a function of the entry-point group `castmate.commands`; its annotated parameters
    become the options. So this package imports none of those that are built on it.
    """
    for entry in entry_points(group="castmate.commands"):
        app.command(entry.name)(entry.load())
    app()


def open_client(settings: Settings) -> Client:
    """The client that draws.

    Raises:
        BundleError: Its bundle cannot be used.
    """
    from castmate.clients.local import LocalClient

    return LocalClient.open(settings)


async def _generate(
    request: GenerateRequest, output: Path | None, bundle: str | None, as_json: bool
) -> None:
    from castmate.images import write_atomically
    from castmate.references import resolve

    settings = _settings(bundle)
    reference = await resolve(request.image)
    _prepare_folder(output)
    client = open_client(settings)
    try:
        with _progress_bar() as on_progress:
            result = await client.generate(request, reference, on_progress)
    finally:
        await client.aclose()
    paths = _paths(output, result)
    for path, image in zip(paths, result.images, strict=True):
        write_atomically(path, image.data)
    _report(result, paths, as_json)


def _report(result: GenerateResult, paths: list[Path], as_json: bool) -> None:
    if as_json:
        values = result.as_dict()
        for path, image in zip(paths, values["images"], strict=True):
            image["path"] = str(path.resolve())
        return _print_json(values)
    for path, image in zip(paths, result.images, strict=True):
        typer.echo(f"{path}  {image.width}*{image.height}  seed {image.seed}")
    for warning in result.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    cost = f" for ${result.cost_usd:.3f}" if result.cost_usd else ""
    seconds = result.timings_ms["total"] / 1000
    typer.echo(f"Drawn by {result.client} ({result.model}) in {seconds:.1f} s{cost}")


@contextlib.contextmanager
def _reporting(as_json: bool) -> Iterator[None]:
    """Turn our errors into one clear message and an exit code; any other exception is a bug."""
    try:
        yield
    except CastmateError as error:
        if as_json:
            _print_json({"error": error.as_dict()})
        else:
            typer.echo(f"Error: {error}", err=True)
        wrong_call = isinstance(error, InvalidRequest | SettingsError)
        raise typer.Exit(BAD_REQUEST if wrong_call else FAILED) from None
    except OSError as error:  # the disk is full, or the folder went away meanwhile
        typer.echo(f"Error: the picture cannot be written: {error}", err=True)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        typer.echo("Cancelled: nothing was written.", err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def _progress_bar() -> Iterator[ProgressCallback]:
    """A bar on stderr, where a person looks; silent in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("Drawing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda progress: bar.update(task, completed=progress.step, total=progress.total)


def _settings(bundle: str | None) -> Settings:
    from castmate.settings import Settings

    return Settings.load(bundle=bundle)


def _describe(bundle: Any) -> dict[str, Any]:
    manifest = bundle.manifest
    files = [file for graph in manifest.graphs.values() for file in graph.files]
    return {
        "name": bundle.name,
        "path": str(bundle.path),
        "num_bytes": sum(file.num_bytes for file in files),
        "description": manifest.description,
    }


def _format_of(output: Path | None, chosen: OutputFormat | None) -> OutputFormat:
    """The encoding: what --format says, else the suffix, and never one against the other."""
    suffix = output.suffix.lower() if output and not output.is_dir() else ""
    named = _SUFFIXES.get(suffix)
    if suffix and named is None:
        raise _bad_output(f"{str(output)!r} ends in {suffix}", ", ".join(_SUFFIXES))
    if named and chosen and named != chosen:
        raise _bad_output(
            f"{str(output)!r} does not fit --format {chosen}", f"the suffix .{chosen}"
        )
    return chosen or named or _FIELDS["output_format"].default


def _prepare_folder(output: Path | None) -> None:
    """Find out before drawing whether there is a place for the pictures."""
    folder = Path() if output is None else output if output.is_dir() else output.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".castmate-{sys.implementation.cache_tag}.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _bad_output(
            f"{folder} cannot be written ({error.strerror})", "a file in a folder you may write to"
        ) from None


def _bad_output(message: str, allowed: str) -> InvalidRequest:
    return InvalidRequest([Problem("output", message, allowed)])


def _paths(output: Path | None, result: GenerateResult) -> list[Path]:
    """Where each picture goes; only a file that was named is replaced."""
    if output is None or output.is_dir():
        folder = output or Path()
        return [_unused(folder / f"castmate-{i.seed}.{i.output_format}") for i in result.images]
    if len(result.images) == 1:
        return [output]
    numbers = range(1, len(result.images) + 1)
    return [output.with_stem(f"{output.stem}-{number}") for number in numbers]


def _unused(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


if __name__ == "__main__":
    main()

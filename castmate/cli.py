"""The `castmate` command: draw pictures, examine the installation, look at bundles."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import io
import os
import sys
from functools import partial
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from castmate import __version__
from castmate.comfyui import comfyui
from castmate.errors import CastmateError
from castmate.options import AsJson, BundleName, option, progress_bar
from castmate.reporting import FAILED, OK, print_json, reporting
from castmate.schema import (
    Background,
    Cache,
    GenerateRequest,
    GenerateResult,
    Matting,
    OutputFormat,
)
from castmate.series import sheet, storyboard
from castmate.show import show
from castmate.spend import spend

# Anything that loads numpy, Pillow or an engine is imported where used, to keep `--help` quick.
if TYPE_CHECKING:
    from castmate.output import Output
    from castmate.settings import Settings

app = typer.Typer(
    help="One picture of a character and a prompt in, new pictures of that character out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
bundles = typer.Typer(help="Look at the models on this machine.", no_args_is_help=True)
app.add_typer(bundles, name="bundle")
serve = typer.Typer(help="Serve pictures to other programs.")
app.add_typer(serve, name="serve")
app.command("storyboard")(storyboard)
app.command("sheet")(sheet)
app.command("show")(show)
app.add_typer(spend, name="spend")
app.add_typer(comfyui, name="comfyui")

_FIELDS = GenerateRequest.model_fields
_option = partial(option, GenerateRequest)
_DEFAULTS = SimpleNamespace(**{name: field.default for name, field in _FIELDS.items()})


class _Generate(TyperCommand):
    """`generate`, whose help looks up what the model would decide."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from castmate.clients.registry import defaults, styles

        options: dict[str, Any] = {str(one.name): one for one in self.params}
        with contextlib.suppress(CastmateError):  # drawing will report the problem
            settings = _settings(None)
            for name, value in defaults(settings) or ():
                options[name].default, options[name].show_default = value, True
            if there_are := styles(settings):
                options["style"].help += f" Now: {', '.join(there_are)}."
        super().format_options(ctx, formatter)


@app.command(cls=_Generate)
def generate(
    ctx: typer.Context,
    image: Annotated[
        str,
        typer.Option(
            "--image",
            "-i",
            help="The picture of the character: a path, an https URL, a data URI, - for stdin, or "
            "the name or id of a saved character. One character, whole, on a plain background "
            "works best.",
        ),
    ],
    prompt: Annotated[str, _option("prompt", "--prompt", "-p")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="The file, replaced if it is there (several pictures get -1, -2, ... before the "
            "suffix), or a folder, made if its name ends in a slash, or - for stdout. By default "
            "castmate-SEED.png here, and nothing is replaced.",
        ),
    ] = None,
    size: Annotated[str, _option("size")] = _DEFAULTS.size,
    seed: Annotated[int, _option("seed")] = _DEFAULTS.seed,
    negative_prompt: Annotated[str, _option("negative_prompt")] = _FIELDS[
        "negative_prompt"
    ].default,
    num_inference_steps: Annotated[
        int | None,
        _option("num_inference_steps", "--num-inference-steps", "--steps"),
    ] = _DEFAULTS.num_inference_steps,
    guidance_scale: Annotated[float | None, _option("guidance_scale")] = _DEFAULTS.guidance_scale,
    num_images: Annotated[int, _option("num_images")] = _DEFAULTS.num_images,
    subject_scale: Annotated[float | None, _option("subject_scale")] = _DEFAULTS.subject_scale,
    true_cfg_scale: Annotated[float | None, _option("true_cfg_scale")] = _DEFAULTS.true_cfg_scale,
    enable_safety_checker: Annotated[
        bool,
        _option("enable_safety_checker", "--safety-checker/--no-safety-checker"),
    ] = _DEFAULTS.enable_safety_checker,
    output_format: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="By default what the suffix of --output says, else png."),
    ] = None,
    cache: Annotated[Cache, _option("cache")] = _DEFAULTS.cache,
    enable_matting: Annotated[Matting, _option("enable_matting")] = _DEFAULTS.enable_matting,
    background: Annotated[Background, _option("background")] = _DEFAULTS.background,
    num_candidates: Annotated[int | None, _option("num_candidates")] = _DEFAULTS.num_candidates,
    min_identity: Annotated[float | None, _option("min_identity")] = _DEFAULTS.min_identity,
    style: Annotated[str, _option("style")] = _DEFAULTS.style,
    bundle: BundleName = None,
    as_json: AsJson = False,
) -> None:
    """Draw the character of a picture in a new scene."""
    from castmate.output import Output

    with reporting(as_json=as_json):
        values = {name: ctx.params[name] for name in _FIELDS}
        where = Output.parse(output)
        values["output_format"] = where.choose_format(output_format)
        asyncio.run(_generate(GenerateRequest.parse(values), where, bundle, as_json))


@app.command()
def doctor(
    bundle: BundleName = None,
    gpu_memory: Annotated[
        str | None,
        typer.Option(
            help="Plan for a GPU with so much memory, such as 16GB, instead of the one that is "
            "here; nothing else is examined. [CASTMATE_GPU_MEMORY]"
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Also compare what every graph of the model computes here with what was recorded "
            "when it was exported.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine the installation and say how to repair it."""
    from castmate.doctor import examine, gains, memory_plans, verified
    from castmate.engines.memory_table import as_text, as_values

    with reporting(as_json=as_json):
        settings = _settings(bundle, gpu_memory)
        plans = memory_plans(settings)  # before a check draws and takes GPU memory
        memory = [{"title": title, **as_values(plan)} for title, plan in plans]
        if gpu_memory is not None:
            shown = "\n".join([as_text(plans), *gains(settings)])
            print_json(memory) if as_json else typer.echo(shown)
            raise typer.Exit(OK if any(plan["fits"] for plan in memory) else FAILED)
        checks = []
        for check in chain(examine(settings), verified(settings) if verify else ()):
            checks.append(check)
            if not as_json:
                typer.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<12} {check.found}")
                if not check.ok:
                    typer.echo(f"      {'':<12} -> {check.fix}")
        healthy = all(check.ok for check in checks)
        if as_json:
            found = [vars(check) for check in checks]
            print_json({"ok": healthy, "checks": found, "memory": memory})
        else:
            typer.echo(as_text(plans), nl=bool(plans))
        raise typer.Exit(OK if healthy else FAILED)


@bundles.command("list")
def list_bundles(as_json: AsJson = False) -> None:
    """List the models that came with this installation."""
    from castmate.engines.bundle import Bundle, shipped

    with reporting(as_json=as_json):
        found = [_describe(Bundle.open(name)) for name in shipped()]
        if as_json:
            print_json(found)
        for values in () if as_json else found:
            typer.echo(
                "{name}  {num_bytes:,} bytes  {description}  Licence: {licence}".format(**values)
            )


@bundles.command("check")
def check_bundle(
    name: Annotated[str, typer.Argument(help="A shipped model's name, or a bundle's folder.")],
    as_json: AsJson = False,
) -> None:
    """Compare every file of a bundle with its manifest."""
    from castmate.engines.bundle import Bundle

    with reporting(as_json=as_json):
        bundle = Bundle.open(name)
        bundle.check()
        values = _describe(bundle)
        if as_json:
            print_json(values)
        else:
            line = "{name} in {path}: {num_bytes:,} bytes, every file is whole. Licence: {licence}"
            typer.echo(line.format(**values))


@serve.command("triton")
def serve_triton(
    bundle: BundleName = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="Where clients connect.")] = 8001,
    http_port: Annotated[int, typer.Option(help="Health checks.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="Prometheus metrics.")] = 8002,
    models: Annotated[
        Path | None, typer.Option(help="Model repository; by default the checkout's triton_models.")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(help="Folder for the server and its Python; by default in CASTMATE_DATA_DIR."),
    ] = None,
    trace_url: Annotated[
        str | None,
        typer.Option(help="OpenTelemetry collector, such as http://127.0.0.1:4318/v1/traces."),
    ] = None,
    container: Annotated[
        bool,
        typer.Option("--container", help="Print the command for a GPU machine, and run it there."),
    ] = False,
) -> None:
    """Serve with NVIDIA's Triton Inference Server until Ctrl-C.

    On a machine without GPU the server comes from a wheel, which the first start installs. Inside
    NVIDIA's container the container's own server runs.
    """
    from castmate.serve import run_container, serve_triton
    from castmate.triton.server import Ports

    with reporting():
        settings = _settings(bundle)
        if container:
            run_container(settings, typer.echo)
        else:
            ports = Ports(grpc_port, http_port, metrics_port, host)
            serve_triton(
                settings, ports, say=typer.echo, models=models, home=home, trace_url=trace_url
            )


@serve.command("probe")
def probe_triton(
    url: Annotated[str, typer.Argument(help="gRPC address, host:port.")] = "127.0.0.1:8001",
) -> None:
    """Ask the model of a Triton server whether it can draw; health checks run this."""
    from castmate.serve import probe

    with reporting():
        print_json(asyncio.run(probe(url)))


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    env_file: Annotated[
        Path | None,
        typer.Option(
            help="A file of CASTMATE_NAME=value lines, read instead of castmate/castmate.env in "
            "XDG_CONFIG_HOME or ~/.config. [CASTMATE_ENV_FILE]",
        ),
    ] = None,
) -> None:
    if env_file is not None:
        from castmate.paths import expand
        from castmate.settings import ENV_FILE

        # For anything that reads settings later, including child processes.
        with contextlib.suppress(OSError):  # the working folder has been deleted
            env_file = expand(env_file).absolute()
        os.environ[ENV_FILE] = str(env_file)
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command, including subcommands from other packages.

    Each is an entry point in the group `castmate.commands`: a function, whose annotated parameters
    become the options, or a group of commands. A function with the name of a group here runs when
    that group gets no subcommand. So this package imports none of the packages built on it.
    """
    groups = {"bundle": bundles, "serve": serve}
    for entry in entry_points(group="castmate.commands"):
        found = entry.load()
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=entry.name)
        elif entry.name in groups:
            groups[entry.name].callback(invoke_without_command=True)(found)
        else:
            app.command(entry.name)(found)
    # If a terminal or pipe lacks a character, stdout shows an escape for it, as stderr does.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    atexit.register(gc.freeze)  # skips garbage collection at exit: a tenth of a second
    app()


async def _generate(
    request: GenerateRequest, output: Output, bundle: str | None, as_json: bool
) -> None:
    from castmate.output import summary
    from castmate.saved import reference_of
    from castmate.service import Castmate

    async with Castmate.open(_settings(bundle)) as castmate:
        reference = await reference_of(castmate, request.image)
        output.prepare(request.num_images, as_json=as_json)
        with progress_bar() as on_progress:
            result = await castmate.generate(request, reference, on_progress)
    _report(result, output.save(result), as_json, summary(request, result))


def _report(result: GenerateResult, paths: list[Path], as_json: bool, summary: str) -> None:
    from castmate.output import line

    if as_json:
        values = result.as_dict()
        for path, image in zip(paths, values["images"], strict=True):
            image["path"] = str(path.resolve())
        return print_json(values)
    for path, image in zip(paths, result.images, strict=bool(paths)):
        typer.echo(line(path, image))
    for warning in result.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    typer.echo(summary, err=not paths)  # without paths, stdout holds the picture


def _settings(bundle: str | None, gpu_memory: str | None = None) -> Settings:
    from castmate.settings import Settings

    return Settings.load(bundle=bundle, gpu_memory=gpu_memory)


def _describe(bundle: Any) -> dict[str, Any]:
    from castmate.engines.licences import in_short

    manifest = bundle.manifest
    files = [file for graph in manifest.graphs.values() for file in graph.files]
    return {
        "name": bundle.name,
        "path": str(bundle.path),
        "num_bytes": sum(file.num_bytes for file in files),
        "description": manifest.description,
        "licences": manifest.model_dump()["licences"],
        "licence": in_short(manifest.licences),
    }


if __name__ == "__main__":
    main()

"""`castmate storyboard` and `castmate sheet`: many pictures of one character in one command."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from castmate.errors import CastmateError, InvalidRequest, Problem
from castmate.options import AsJson, BundleName, option, progress_bar
from castmate.recipes import RECIPES, RecipeName
from castmate.reporting import FAILED, print_json, reporting
from castmate.schema import Background
from castmate.storyboard import Layout, StoryboardRequest

# `castmate --help` imports this module, so anything that loads the ledger is imported where used.
if TYPE_CHECKING:
    from castmate.jobs.scenes import Storyboard
    from castmate.service import Castmate
    from castmate.storyboard import Series

_FIELDS: Final = StoryboardRequest.model_fields
_MOST_BYTES: Final = 2**20  # of a file with scenes
_STDIN: Final = "-"

ImageOption = Annotated[
    str,
    typer.Option(
        "--image",
        "-i",
        help="The picture of the character: a path, an https URL, a data URI, or the name or id of "
        "a saved character. One character, whole, on a plain background works best.",
    ),
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The folder for the pictures and the sheet, made if it is missing; nothing in it is "
        "replaced. By default castmate-ID here.",
    ),
]
StyleWords = Annotated[str | None, option(StoryboardRequest, "style_words")]
Size = Annotated[str | None, option(StoryboardRequest, "size")]
Seed = Annotated[int, option(StoryboardRequest, "seed")]
Steps = Annotated[
    int | None, option(StoryboardRequest, "num_inference_steps", "--num-inference-steps", "--steps")
]
SubjectScale = Annotated[float | None, option(StoryboardRequest, "subject_scale")]
BackgroundOption = Annotated[Background | None, option(StoryboardRequest, "background")]


def storyboard(
    image: ImageOption,
    scenes: Annotated[
        Path,
        typer.Option(
            "--scenes",
            "-s",
            help="A text file with a scene on each line, up to 12, or - for stdin. Empty lines and "
            "lines that begin with # are skipped.",
        ),
    ],
    output: FolderOption = None,
    style_words: StyleWords = None,
    layout: Annotated[Layout, option(StoryboardRequest, "layout")] = Layout.STORYBOARD,
    size: Size = None,
    seed: Seed = -1,
    num_inference_steps: Steps = None,
    subject_scale: SubjectScale = None,
    background: BackgroundOption = None,
    bundle: BundleName = None,
    as_json: AsJson = False,
) -> None:
    """Draw a character in every scene of a file, and a contact sheet of all.

    Run it again after anything went wrong: the same command draws what is missing.
    """
    with reporting(as_json=as_json):
        values = {
            "image": image,
            "scenes": _scenes_of(scenes),
            "style_words": style_words,
            "layout": layout,
            "size": size,
            "seed": seed,
            "num_inference_steps": num_inference_steps,
            "subject_scale": subject_scale,
            "background": background,
        }
        _draw(values, output, bundle, as_json)


def sheet(
    image: ImageOption,
    recipe: Annotated[
        RecipeName,
        typer.Option(
            help="; ".join(f"{name}: {recipe.about}" for name, recipe in RECIPES.items()) + "."
        ),
    ] = RecipeName.TURNAROUND,
    output: FolderOption = None,
    style_words: StyleWords = None,
    size: Size = None,
    seed: Seed = -1,
    num_inference_steps: Steps = None,
    subject_scale: SubjectScale = None,
    background: BackgroundOption = None,
    bundle: BundleName = None,
    as_json: AsJson = False,
) -> None:
    """Draw a sheet of one character: expressions, poses, sides, stickers, sprites or an avatar."""
    with reporting(as_json=as_json):
        values = RECIPES[recipe].values()
        words = filter(None, (style_words, values["style_words"]))
        values |= {
            "image": image,
            "style_words": ", ".join(words),
            "seed": seed,
            "num_inference_steps": num_inference_steps,
            "subject_scale": subject_scale,
        }
        chosen = {"size": size, "background": background}
        values |= {name: value for name, value in chosen.items() if value is not None}
        _draw(values, output, bundle, as_json)


def _draw(values: dict[str, Any], output: Path | None, bundle: str | None, as_json: bool) -> None:
    given = {name: value for name, value in values.items() if value is not None}
    asyncio.run(_run(StoryboardRequest.parse(given), output, bundle, as_json))


async def _run(request: Series, output: Path | None, bundle: str | None, as_json: bool) -> None:
    from castmate.paths import expand
    from castmate.saved import reference_of
    from castmate.service import Castmate
    from castmate.settings import Settings

    async with Castmate.open(Settings.load(bundle=bundle)) as castmate:
        reference = await reference_of(castmate, request.image)
        folder = None if output is None else expand(output)
        if folder is not None:
            _make(folder)
        with progress_bar() as on_progress:
            done = await castmate.draw_storyboard(request, reference, on_progress)
        where = folder or _make(Path(f"castmate-{done.id[-8:]}"))
        paths = await _save(castmate, done, where)
    _report(done, paths, as_json)
    if done.undrawn:
        raise typer.Exit(FAILED)


async def _save(castmate: Castmate, done: Storyboard, folder: Path) -> dict[str, Path]:
    """Write the pictures and the sheet; returns their paths by kind."""
    paths = {}
    for scene in done.scenes:
        if scene.image is not None:
            name = f"scene-{scene.number:02}.{scene.image.output_format}"
            data = await castmate.storage.get(scene.image.name)
            paths[str(scene.number)] = _write(folder / name, data)
    if (made := await castmate.storyboards.sheet(done)) is not None:
        paths["sheet"] = _write(folder / "sheet.png", await castmate.storage.get(made.name))
    return paths


def _write(path: Path, data: bytes) -> Path:
    """Write a file under its name, or under the next that is free or has the same content."""
    from castmate.files import write_atomically

    number, candidate = 1, path
    try:
        while os.path.lexists(candidate):
            if candidate.is_file() and candidate.read_bytes() == data:
                return candidate
            number += 1
            candidate = path.with_stem(f"{path.stem}-{number}")
        write_atomically(candidate, data)
    except OSError as error:
        raise CastmateError(f"{candidate} cannot be written: {error.strerror}.") from None
    return candidate


def _report(done: Storyboard, paths: dict[str, Path], as_json: bool) -> None:
    undrawn = {
        scene.number: str((scene.prediction.error or {}).get("message", ""))
        for scene in done.undrawn
    }
    if as_json:
        return print_json(
            {
                "id": done.id,
                "state": done.state,
                "scenes": [
                    {
                        "number": scene.number,
                        "text": scene.text,
                        "path": _shown(paths.get(str(scene.number))),
                        "seed": scene.prediction.request.seed,
                        "error": undrawn.get(scene.number),
                    }
                    for scene in done.scenes
                ],
                "sheet": _shown(paths.get("sheet")),
                "cost_usd": done.cost_usd,
            }
        )
    for scene in done.scenes:
        if (path := paths.get(str(scene.number))) is not None:
            typer.echo(f"{path}  {scene.text}")
    if (path := paths.get("sheet")) is not None:
        typer.echo(f"{path}  all of them")
    for number, why in undrawn.items():
        typer.echo(f"Scene {number} was not drawn: {why}", err=True)
    if undrawn:
        typer.echo("The same command again draws only what is missing.", err=True)


def _shown(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _make(folder: Path) -> Path:
    """The folder, created if it is missing.

    Raises:
        InvalidRequest: It cannot be created, or is not a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{folder} cannot be made ({error.strerror})"
        raise InvalidRequest(
            [Problem("output", problem, "a folder, or the name of a new one")]
        ) from None
    return folder


def _scenes_of(path: Path) -> list[str]:
    """The scenes of a text file.

    Raises:
        InvalidRequest: It cannot be read.
    """
    try:
        if str(path) == _STDIN:
            data = typer.get_binary_stream("stdin").read(_MOST_BYTES)
        else:
            with path.expanduser().open("rb") as stream:
                data = stream.read(_MOST_BYTES)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise _unreadable(f"{path} is no text in UTF-8") from None
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _unreadable(message: str) -> InvalidRequest:
    return InvalidRequest([Problem("scenes", message, "a text file with a scene on each line")])

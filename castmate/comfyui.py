"""`castmate comfyui install`: copies Castmate's nodes into a ComfyUI without importing them."""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated, Final

import typer

from castmate.errors import InvalidRequest, Problem
from castmate.reporting import reporting

comfyui = typer.Typer(help="Nodes for ComfyUI.", no_args_is_help=True)

FOLDER: Final = "castmate"
_PACKAGED: Final = Path(__file__).parent / "comfyui_nodes"  # in the wheel
_CHECKOUT: Final = Path(__file__).parents[1] / "comfyui"
_IGNORED: Final = shutil.ignore_patterns("__pycache__", "*.pyc")


@comfyui.callback()
def group() -> None:
    """Nodes for ComfyUI."""


@comfyui.command()
def install(
    path: Annotated[Path, typer.Argument(help="ComfyUI's folder, which has custom_nodes in it.")],
    link: Annotated[
        bool, typer.Option("--link", help="Link instead of copy: the nodes follow this Castmate.")
    ] = False,
) -> None:
    """Install Castmate's nodes into a ComfyUI, or replace those of another version."""
    with reporting():
        placed = place(nodes(), path, link=link)
        typer.echo(f"{placed} is installed. Start ComfyUI again, and `castmate serve` beside it.")


def nodes() -> Path:
    """The nodes' folder, in the wheel or in the checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def place(source: Path, comfyui_path: Path, *, link: bool = False) -> Path:
    """Copy or link the nodes into a ComfyUI; returns their new folder.

    Raises:
        InvalidRequest: There is no ComfyUI, or something else has the nodes' name.
    """
    custom_nodes = comfyui_path.expanduser() / "custom_nodes"
    if not custom_nodes.is_dir():
        message = f"{comfyui_path} has no folder custom_nodes"
        allowed = "the folder of a ComfyUI, with its main.py"
        raise InvalidRequest([Problem("path", message, allowed)])
    target = custom_nodes / FOLDER
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        if not _is_ours(target):
            message = f"{target} exists and is not Castmate's"
            raise InvalidRequest([Problem("path", message, "rename that folder first")])
        shutil.rmtree(target)
    if link:
        target.symlink_to(source.resolve(), target_is_directory=True)
        return target
    with tempfile.TemporaryDirectory(prefix=".castmate-", dir=custom_nodes) as fresh:
        whole = shutil.copytree(source, Path(fresh) / FOLDER, ignore=_IGNORED)
        whole.rename(target)
    return target


def _is_ours(folder: Path) -> bool:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return False
    return bool(project.get("name") == "castmate")

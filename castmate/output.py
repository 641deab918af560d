"""Where the pictures of `castmate generate` go, and in which format."""

from __future__ import annotations

import tempfile
from pathlib import Path

from castmate.errors import CastmateError, InvalidRequest, Problem
from castmate.files import write_atomically
from castmate.schema import GenerateRequest, GenerateResult, OutputFormat

_SUFFIXES = {
    ".png": OutputFormat.PNG,
    ".jpg": OutputFormat.JPEG,
    ".jpeg": OutputFormat.JPEG,
    ".webp": OutputFormat.WEBP,
}


def choose_format(output: Path | None, chosen: OutputFormat | None) -> OutputFormat:
    """The encoding: what was chosen, else what the suffix says, and never one against the other.

    Raises:
        InvalidRequest: They disagree, or nothing is known of the suffix.
    """
    suffix = "" if output is None or output.is_dir() else output.suffix.lower()
    named = _SUFFIXES.get(suffix)
    if suffix and named is None:
        raise _refused(f"{str(output)!r} ends in {suffix}", ", ".join(_SUFFIXES))
    if named and chosen and named != chosen:
        raise _refused(f"{str(output)!r} does not fit --format {chosen}", f"the suffix .{chosen}")
    default: OutputFormat = GenerateRequest.model_fields["output_format"].default
    return chosen or named or default


def prepare(output: Path | None) -> None:
    """Make the folder, and find out before anything is drawn whether it can be written.

    Raises:
        InvalidRequest: It cannot.
    """
    folder = Path() if output is None else output if output.is_dir() else output.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _refused(
            f"{folder} cannot be written ({error.strerror})", "a file in a folder you may write to"
        ) from None


def save(output: Path | None, result: GenerateResult) -> list[Path]:
    """Write the pictures.

    Args:
        output: A file, which is replaced (several pictures get -1, -2, ... before its suffix), or a
            folder, or None for the current one; in a folder nothing is replaced.
        result: What was drawn.

    Raises:
        CastmateError: The disk is full, or the folder went away.
    """
    paths = []
    for number, image in enumerate(result.images, 1):
        if output is None or output.is_dir():
            folder = output or Path()
            path = _unused(folder / f"castmate-{image.seed}.{image.output_format}")
        else:
            several = len(result.images) > 1
            path = output.with_stem(f"{output.stem}-{number}") if several else output
        try:
            write_atomically(path, image.data)
        except OSError as error:
            raise CastmateError(f"{path} cannot be written: {error.strerror}.") from None
        paths.append(path)
    return paths


def summary(request: GenerateRequest, result: GenerateResult) -> str:
    """Who drew, how long it took, and what is out of the ordinary: its cost, steps left out."""
    seconds = result.timings_ms["total"] / 1000
    text = f"Drawn by {result.client} ({result.model}) in {seconds:.1f} s"
    if result.cost_usd:
        text += f" for ${result.cost_usd:.3f}"
    total, computed = request.num_inference_steps * request.num_images, result.computed_steps
    if computed not in (None, total):
        text += f", {computed} of {total} steps computed"
    return text


def _unused(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


def _refused(message: str, allowed: str) -> InvalidRequest:
    return InvalidRequest([Problem("output", message, allowed)])

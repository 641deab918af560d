"""Where the pictures of `castmate generate` go, and in which format."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from castmate.errors import CastmateError, InvalidRequest, Problem
from castmate.files import check_replaceable, write_atomically
from castmate.identity import Candidate, Verdict
from castmate.paths import expand
from castmate.schema import Framing, GeneratedImage, GenerateRequest, GenerateResult, OutputFormat

_SUFFIXES = {
    ".png": OutputFormat.PNG,
    ".jpg": OutputFormat.JPEG,
    ".jpeg": OutputFormat.JPEG,
    ".webp": OutputFormat.WEBP,
}


@dataclass(frozen=True)
class Output:
    """Where pictures go.

    Attributes:
        path: A file, which is replaced (several pictures get -1, -2, ... before its suffix), or a
            folder, in which no file is replaced.
        is_folder: Which of the two it is; a missing folder is created.
        is_stdout: The only picture goes to stdout instead, with nothing else.
    """

    path: Path = Path()
    is_folder: bool = True
    is_stdout: bool = False

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Parse `--output`; None is the current folder.

        A trailing slash names a folder, `-` is stdout, and `~` the home folder.
        """
        if text is None:
            return cls()
        if text == "-":
            return cls(is_folder=False, is_stdout=True)
        path = expand(Path(text))
        return cls(path, is_folder=text.endswith(("/", os.sep)) or os.path.isdir(path))

    def choose_format(self, chosen: OutputFormat | None) -> OutputFormat:
        """The format: the chosen one, else the suffix's; they must not disagree.

        Raises:
            InvalidRequest: They disagree, or the suffix is unknown.
        """
        suffix = "" if self.is_folder else self.path.suffix.lower()
        named = _SUFFIXES.get(suffix)
        if suffix and named is None:
            raise _refused(f"{str(self.path)!r} ends in {suffix}", ", ".join(_SUFFIXES))
        if named and chosen and named != chosen:
            raise _refused(
                f"{str(self.path)!r} does not fit --format {chosen}", f"the suffix .{chosen}"
            )
        default: OutputFormat = GenerateRequest.model_fields["output_format"].default
        return chosen or named or default

    def prepare(self, num_images: int, *, as_json: bool = False) -> None:
        """Create the folder and check that it is writable, before anything is drawn.

        Args:
            num_images: The number of pictures to come.
            as_json: Whether a JSON document goes to stdout.

        Raises:
            InvalidRequest: It is not writable.
        """
        if self.is_stdout:
            return self._prepare_stdout(num_images, as_json)
        if not self.is_folder:
            self._check_files(num_images)
        folder = self.path if self.is_folder else self.path.parent
        try:
            real = Path(os.path.realpath(self.path))
            (real if self.is_folder else real.parent).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=real if self.is_folder else real.parent).close()
        except OSError as error:
            raise _refused(
                f"{folder} cannot be written ({error.strerror})",
                "a file in a folder you may write to",
            ) from None

    def save(self, result: GenerateResult) -> list[Path]:
        """Write the pictures; returns their paths, none for stdout.

        Raises:
            CastmateError: The disk is full, the folder is gone, or stdout was closed.
        """
        if self.is_stdout:
            _write_stdout(result.images[0].data)
            return []
        paths = [] if self.is_folder else self._paths(len(result.images))
        for number, image in enumerate(result.images):
            if self.is_folder:
                name = f"castmate-{image.seed}.{image.output_format}"
                paths.append(_unused(self.path / name))
            try:
                write_atomically(paths[number], image.data)
            except OSError as error:
                raise CastmateError(
                    f"{paths[number]} cannot be written: {error.strerror}."
                ) from None
        return paths

    def _paths(self, num_images: int) -> list[Path]:
        if num_images == 1:
            return [self.path]
        return [
            self.path.with_stem(f"{self.path.stem}-{number}") for number in range(1, num_images + 1)
        ]

    def _check_files(self, num_images: int) -> None:
        for path in self._paths(num_images):
            try:
                check_replaceable(path)
            except OSError as error:
                raise _refused(
                    f"{path} cannot be replaced ({error.strerror})",
                    "a file, a folder, or - for stdout",
                ) from None

    def _prepare_stdout(self, num_images: int, as_json: bool) -> None:
        if num_images > 1:
            raise _refused("stdout takes one picture", "a file or a folder")
        if as_json:
            raise _refused("stdout cannot take both the picture and --json", "a file or a folder")
        if sys.stdout.isatty():
            raise _refused("stdout is a terminal, and a picture is no text", "a file or a pipe")


def line(path: Path, image: GeneratedImage) -> str:
    """One line on a written picture: its path, size, seed and identity."""
    text = f"{path}  {image.width}*{image.height}  seed {image.seed}"
    if image.identity is not None:
        text += f"  identity {image.identity:.2f} ({Verdict.of(image.identity)})"
    return text


def summary(request: GenerateRequest, result: GenerateResult) -> str:
    """The client and the time, and any cost, skipped steps and cut of the reference."""
    seconds = result.timings_ms["total"] / 1000
    text = f"Drawn by {result.client} ({result.model}) in {seconds:.1f} s"
    if result.cost_usd:
        text += f" for ${result.cost_usd:.3f}"
    computed, steps = result.computed_steps, result.drawn_with.get("num_inference_steps", 0)
    drawn = len(result.selection.candidates) if result.selection else request.num_images
    total = steps * drawn
    if steps and computed not in (None, total):
        text += f", {computed} of {total} steps computed"
    if result.reference and result.reference.framing is not Framing.NONE:
        text += f", character cut out by {result.reference.framing}"
    if result.reference and result.reference.others:
        text += f", from {1 + len(result.reference.others)} of its pictures"
    if selection := result.selection:
        shown = ", ".join(_candidate(one) for one in selection.candidates)
        text += f". Candidates, the chosen ones with *: {shown}"
    return text


def _candidate(one: Candidate) -> str:
    found = "unsafe" if one.identity is None else f"{one.identity:.2f}"
    return f"{one.seed} {found}{'*' if one.chosen else ''}"


def _write_stdout(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise CastmateError(f"The picture cannot be written to stdout: {error.strerror}.") from None


def _unused(path: Path) -> Path:
    number, candidate = 1, path
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


def _refused(message: str, allowed: str) -> InvalidRequest:
    return InvalidRequest([Problem("output", message, allowed)])

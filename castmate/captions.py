"""Text under pictures: a font that has its letters, and lines that fit.

Pillow's own font covers ASCII only. For a caption with other letters, the system's fonts are tried
by their names on the usual systems. A font would show a box for a letter that it lacks, so letters
that no font has are replaced: accents are dropped, and each run of letters that are still missing
becomes "?".
"""

from __future__ import annotations

import bisect
import functools
import itertools
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from PIL import ImageFont

Font = ImageFont.FreeTypeFont
_SYSTEM_FONTS: Final = (
    # Linux, then macOS, then Windows; Latin, Greek and Cyrillic first, then other scripts.
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "segoeui.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
)
_NO_LETTER: Final = "\U0010ffff"
_SAME: Final = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--")
_ELLIPSIS: Final = "..."


@dataclass(frozen=True)
class Typeface:
    """A font, and how it lays out a text."""

    font: Font

    @property
    def line_px(self) -> int:
        """Pixels from one line to the next."""
        ascent, descent = self.font.getmetrics()
        return ascent + descent

    def wrapped(self, text: str, width: float, most: int) -> list[str]:
        """Split the text into lines of at most `width` pixels.

        Args:
            text: One line or several.
            width: In pixels; a wider word is broken.
            most: The most lines; a longer text ends in "...".
        """
        filled = filter(None, self._lines(self._readable(text), width))
        lines = list(itertools.islice(filled, most + 1))  # of a long text few are needed
        if len(lines) <= most:
            return lines
        last = lines[most - 1]
        while last and not self._fits(last + _ELLIPSIS, width):
            last = last[:-1].rstrip()
        return [*lines[: most - 1], last + _ELLIPSIS]

    def lacks(self, text: str) -> set[str]:
        """The letters of a text that the font would show as boxes."""
        missing = _drawn(self.font, _NO_LETTER)
        return {
            letter
            for letter in set(text)
            if not letter.isspace() and _drawn(self.font, letter) == missing
        }

    def _lines(self, text: str, width: float) -> Iterator[str]:
        line = ""
        for word in _words(text, lambda part: self._fits(part, width)):
            longer = f"{line} {word.lstrip()}" if line and word[:1] == " " else line + word
            if self._fits(longer.strip(), width):
                line = longer
            else:
                yield line.strip()
                line = word
        yield line.strip()

    def _fits(self, text: str, width: float) -> bool:
        return self.font.getlength(text) <= width

    def _readable(self, text: str) -> str:
        """The text without letters that the font lacks."""
        text = " ".join(text.split())
        if not (missing := self.lacks(text)):
            return text
        bare = unicodedata.normalize("NFKD", text.translate(_SAME))
        text = "".join(one for one in bare if not unicodedata.combining(one))
        missing = self.lacks(text)
        shown = "".join("?" if one in missing else one for one in text)
        while "??" in shown:
            shown = shown.replace("??", "?")
        return shown


def typeface_for(text: str, pixels: int) -> Typeface:
    """The font that has the most letters of a text; Pillow's own if it has all of them.

    Args:
        text: The caption.
        pixels: Size of the font.
    """
    own = Typeface(_own_font(pixels))
    best, fewest = own, len(own.lacks(text))
    for font in _system_fonts(pixels) if fewest else ():
        face = Typeface(font)
        if (lacking := len(face.lacks(text))) < fewest:
            best, fewest = face, lacking
        if not fewest:
            break
    return best


def unreadable(text: str) -> bool:
    """Whether captions lack some letters or accents of a text."""
    return bool(typeface_for(text, 16).lacks(text))


@functools.cache
def _own_font(pixels: int) -> Font:
    font = ImageFont.load_default(pixels)
    assert isinstance(font, Font)  # Pillow's wheels are built with FreeType
    return font


@functools.cache
def _system_fonts(pixels: int) -> tuple[Font, ...]:
    return tuple(_found(pixels))


def _found(pixels: int) -> Iterator[Font]:
    for name in _SYSTEM_FONTS:
        try:
            yield ImageFont.truetype(name, pixels)
        except OSError:
            continue


@functools.lru_cache(4096)
def _drawn(font: Font, letter: str) -> tuple[object, bytes]:
    mask = font.getmask(letter)
    return mask.getbbox(), bytes(mask)


def _words(text: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """The words of a text, each with its leading space; a word that does not fit is split."""
    for number, word in enumerate(text.split(" ")):
        space = " " if number else ""
        while word and not fits(word):
            cut = _longest(word, fits)
            yield space + word[:cut]
            word, space = word[cut:], ""
        yield space + word


def _longest(word: str, fits: Callable[[str], bool]) -> int:
    """How many of its letters fit; at least one."""
    lengths = range(1, len(word))
    return max(1, bisect.bisect(lengths, False, key=lambda length: not fits(word[:length])))

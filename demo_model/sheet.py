"""README's picture, drawn by the command that users have: `python -m demo_model.sheet`.

Each shipped character is drawn by `castmate storyboard`; a row is its reference and its scenes. The
settings are kept in the picture, where a test compares them with those here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from castmate.engines.bundle import locate
from demo_model.references import REFERENCES

SHEET: Final = Path(__file__).parents[1] / "docs/toon.png"
SCENES: Final = (
    "waving on a beach",
    "casting a spell in front of a castle",
    "flying above the clouds",
    "jumping in space",
)
SIZE: Final = "512*512"
SEED: Final = 7
CELL_PX: Final = 256
SETTINGS: Final = {
    "command": "castmate storyboard",
    "characters": list(REFERENCES),
    "scenes": list(SCENES),
    "size": SIZE,
    "seed": SEED,
}
KEY: Final = "settings"
"""Key of the text in the picture."""


def draw_sheet(path: Path, bundle: str = "toon") -> None:
    """Draw four references, each in four scenes.

    Args:
        path: The PNG.
        bundle: A shipped name or a folder.

    Raises:
        CalledProcessError: The command failed; it says why on stderr.
    """
    sheet = Image.new("RGB", (CELL_PX * (1 + len(SCENES)), CELL_PX * len(REFERENCES)), "white")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "scenes.txt").write_text("\n".join(SCENES))
        for y, name in enumerate(REFERENCES):
            reference = locate("toon") / "references" / f"{name}.png"
            drawn = _storyboard(reference, folder, bundle)
            for x, picture in enumerate([reference, *drawn]):
                with Image.open(picture) as image:
                    small = image.convert("RGB").resize(
                        (CELL_PX, CELL_PX), Image.Resampling.LANCZOS
                    )
                sheet.paste(small, (x * CELL_PX, y * CELL_PX))
    kept = PngInfo()
    kept.add_text(KEY, json.dumps(SETTINGS))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True, pnginfo=kept)


def _storyboard(reference: Path, folder: Path, bundle: str) -> list[Path]:
    """The scenes of one character."""
    out = folder / reference.stem
    options = {
        "--image": reference,
        "--scenes": folder / "scenes.txt",
        "--size": SIZE,
        "--seed": SEED,
        "--output": out,
        "--bundle": bundle,
    }
    command = [sys.executable, "-m", "castmate.cli", "storyboard"]
    subprocess.run(
        [*command, *(str(word) for option in options.items() for word in option)],
        env={**os.environ, "CASTMATE_DATA_DIR": str(folder / "data")},  # not in one's own library
        check=True,
    )
    return [out / f"scene-{number:02}.png" for number in range(1, len(SCENES) + 1)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.sheet", description=__doc__)
    parser.add_argument("--bundle", default="toon", help="a shipped name or a folder")
    parser.add_argument("--out", type=Path, default=SHEET, help="PNG; by default README's")
    given = parser.parse_args()
    draw_sheet(given.out, given.bundle)


if __name__ == "__main__":
    main()

"""Calibrates cosines of the demo model's identity graph: `python -m demo_model.calibration`.

Its printout goes into `demo_model.build`. It uses only held-out characters, as users meet them: a
reference, and a picture in which the character does something somewhere.
"""

from __future__ import annotations

import argparse

import numpy as np

from castmate.engines.bundle import Bundle
from castmate.images import Reference, encode
from castmate.pipeline.identity import Identity
from castmate.schema import OutputFormat
from castmate.settings import Settings
from demo_model.draw import draw_picture, draw_reference
from demo_model.evaluate import judged_pictures
from export.identity import spec_of, uncalibrated

COUNT = 200
PX = 512


def rendered(identity: Identity, count: int) -> np.ndarray:
    """Cosines `[count, count]` of the references of characters with renders of every character."""
    pictures = judged_pictures(count)
    references = [
        identity.features_of(
            Reference.from_bytes(
                encode(np.asarray(draw_reference(one.character, PX)), OutputFormat.PNG), "it"
            )
        )
        for one in pictures
    ]
    renders = [identity.features(draw_picture(one, PX, PX)) for one in pictures]
    return np.stack(references) @ np.stack(renders).T


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.calibration", description=__doc__)
    parser.add_argument("--bundle", default="toon", help="name or folder (default toon)")
    given = parser.parse_args()
    settings = Settings.load(bundle=given.bundle)
    alike = rendered(uncalibrated(Bundle.open(given.bundle), settings), COUNT)
    own = np.eye(COUNT, dtype=np.bool_)
    print(repr(spec_of(alike[own].tolist(), alike[~own].tolist(), "")))


if __name__ == "__main__":
    main()

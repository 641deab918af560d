"""Which ways of drawing the benchmark of quality compares."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.contenders import Class
from benchmarks.ways import few_step_bundles, ways
from castmate.engines.bundle import Bundle, locate
from castmate.engines.manifest import MANIFEST


def _bundle(folder: Path, **changes: str) -> Bundle:
    """The shipped manifest, changed."""
    folder.mkdir()
    values = json.loads((locate("toon") / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps(values))
    return Bundle.open(folder)


def test_bundles_that_share_the_files_of_one_draw_beside_it(tmp_path: Path) -> None:
    toon = _bundle(tmp_path / "toon")
    _bundle(tmp_path / "toon-8", name="toon-8", base="toon")
    _bundle(tmp_path / "stranger", name="stranger")
    assert list(few_step_bundles(toon)) == ["toon-8"]
    drawn = {way.name: way for way in ways(toon, few_steps=(8, 4)) if way.bundle}
    assert list(drawn) == ["toon-8, 8 steps", "toon-8, 4 steps"]
    assert {way.bundle for way in drawn.values()} == {"toon-8"}
    assert {way.kind for way in drawn.values()} == {Class.FEW_STEPS}
    assert [way.steps for way in drawn.values()] == [8, 4]

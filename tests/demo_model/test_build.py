"""The command that rewrites the shipped bundle, without the export itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.constants import Constants
from demo_model import build
from demo_model.checkpoint import TOKENIZER, load_shipped
from demo_model.config import NEXT, TOON
from export.families.instantcharacter.family import constants
from export.families.instantcharacter.network import InstantCharacter

Written = dict[str, Any]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """What was to be written into a bundle."""
    found: Written = {}

    def write_bundle(network: Any, folder: Path, **parts: Any) -> None:
        words = parts["tokenizers"]["tokenizer"].path.read_bytes()
        found.update(parts, weights=network.state_dict(), config=network.config, words=words)

    monkeypatch.setattr(build, "write_bundle", write_bundle)
    monkeypatch.setattr(build, "record", lambda *_args, **_named: None)
    return found


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["build", *arguments])
    build.main()


def test_a_bundle_is_rewritten_with_its_own_weights_and_words(
    written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _run(monkeypatch, "--out", str(tmp_path))
    shipped = Bundle.open("toon")
    words = shipped.file(shipped.manifest.tokenizers["tokenizer"])
    assert written["words"] == words.read_bytes()
    weights = load_shipped(shipped).state_dict()
    drawn = [name for name in weights if not name.startswith("vae.encoder.")]
    assert all(torch.equal(written["weights"][name], weights[name]) for name in drawn)


def test_saved_weights_are_a_checkpoint_with_their_words(
    written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _run(monkeypatch, "--save", str(tmp_path))
    assert not written
    _run(monkeypatch, "--checkpoint", str(tmp_path / "toon.pt"), "--out", str(tmp_path / "out"))
    assert written["words"] == (tmp_path / TOKENIZER).read_bytes()
    assert written["config"].transformer == TOON.transformer


def test_a_bundle_tells_where_its_network_measures_positions() -> None:
    shipped, following = InstantCharacter(TOON), InstantCharacter(NEXT)
    assert "rope_square" not in constants(shipped)
    assert Constants.model_validate(constants(following)).rope_square == NEXT.rope_square

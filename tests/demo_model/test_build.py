"""The command that rewrites the shipped bundle, without the export itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.constants import Constants
from demo_model import build
from demo_model.checkpoint import TOKENIZER, load_shipped
from demo_model.config import TOON
from export.families.instantcharacter.family import constants
from export.families.instantcharacter.network import InstantCharacter

Written = dict[str, dict[str, Any]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """What was to be written into each bundle, by the name of its folder."""
    found: Written = {}

    def write_bundle(network: Any, folder: Path, **parts: Any) -> None:
        words = parts["tokenizers"]["tokenizer"].path.read_bytes()
        weights = {name: weight.clone() for name, weight in network.state_dict().items()}
        found[folder.name] = parts | {"weights": weights, "config": network.config, "words": words}

    monkeypatch.setattr(build, "write_bundle", write_bundle)
    monkeypatch.setattr(build, "record", lambda *_args, **_named: None)
    monkeypatch.setattr(build, "share_files", lambda *_args: None)
    return found


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["build", *arguments])
    build.main()


def test_a_bundle_is_rewritten_with_its_own_weights_and_words(
    written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _run(monkeypatch, "--out", str(tmp_path / "toon"))
    shipped = Bundle.open("toon")
    words = shipped.file(shipped.manifest.tokenizers["tokenizer"])
    made = written["toon"]
    assert made["words"] == words.read_bytes()
    weights = load_shipped(shipped).state_dict()
    drawn = [name for name in weights if not name.startswith("vae.encoder.")]
    assert all(torch.equal(made["weights"][name], weights[name]) for name in drawn)


def test_beside_it_stands_a_bundle_of_eight_steps_with_the_same_styles(
    written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _run(monkeypatch, "--out", str(tmp_path / "toon"))
    usual, few = written["toon"], written["toon-8"]
    changed = {
        name
        for name, weight in usual["weights"].items()
        if not torch.equal(weight, few["weights"][name])
    }
    assert changed
    assert all(name.startswith("transformer.") for name in changed)
    assert few["config"].name == "toon-8"
    assert (usual["defaults"].num_inference_steps, few["defaults"].num_inference_steps) == (28, 8)
    assert [lora.file for lora in few["loras"]] == ["8.safetensors"]
    assert list(few["styles"].loras) == list(usual["styles"].loras) == ["night-ink"]


def test_saved_weights_are_a_checkpoint_with_their_words(
    written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _run(monkeypatch, "--save", str(tmp_path))
    assert not written
    _run(monkeypatch, "--checkpoint", str(tmp_path / "toon.pt"), "--out", str(tmp_path / "out"))
    made = written["out"]
    assert made["words"] == (tmp_path / TOKENIZER).read_bytes()
    assert made["config"].transformer == TOON.transformer


def test_a_bundle_tells_where_its_network_measures_positions() -> None:
    square, corner = InstantCharacter(TOON), InstantCharacter(replace(TOON, rope_square=None))
    assert Constants.model_validate(constants(square)).rope_square == TOON.rope_square
    assert "rope_square" not in constants(corner)

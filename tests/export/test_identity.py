"""The identity graph's networks, and what calibrates them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.errors import ExportError
from export.families.instantcharacter.dino import DinoIdentity, load_dino
from export.families.instantcharacter.identity import IdentityGraph, IdentityNet
from export.families.instantcharacter.licences import licences
from export.families.instantcharacter.load import Sources
from export.identity import cosines, read, spec_of

TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


def test_features_have_length_one_whatever_the_brightness() -> None:
    torch.manual_seed(0)
    graph = IdentityGraph(IdentityNet((8, 16, 16), 12)).eval()
    pictures = torch.randint(0, 256, (3, 48, 48, 3), dtype=torch.uint8)
    with torch.no_grad():
        found = graph(pictures)
    assert found.shape == (3, 12)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))


def test_dino_is_read_from_its_published_folder_and_gives_its_class_token(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = DinoIdentity(TINY)
    saved.vit.save_pretrained(tmp_path)
    loaded = load_dino(TINY, tmp_path)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = saved.eval().vit(pixels).last_hidden_state[:, 0]
        torch.testing.assert_close(loaded(pixels), expected)


def test_a_folder_of_another_size_is_refused_with_its_keys(tmp_path: Path) -> None:
    DinoIdentity({**TINY, "num_hidden_layers": 1}).vit.save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="does not fit"):
        load_dino(TINY, tmp_path)


def test_its_licence_is_told_where_it_is_asked_for() -> None:
    assert "identity" not in licences(Sources())
    assert licences(Sources(identity="facebook/dino-vits16"))["identity"].name == "Apache-2.0"


def test_medians_of_both_kinds_of_pairs_become_the_scale() -> None:
    east, north = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    same, another = cosines([[east, east], [north, north, north]])
    assert (len(same), len(another)) == (4, 6)
    spec = spec_of(same, another, "two directions")
    assert (spec.same, spec.another) == (1.0, 0.0)
    assert [spec.score(cosine) for cosine in (-1, 0.25, 2)] == [0.0, 0.25, 1.0]


def test_too_few_characters_are_refused_with_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "mira").mkdir()
    with pytest.raises(ExportError, match="at least 10 folders"):
        read(tmp_path)

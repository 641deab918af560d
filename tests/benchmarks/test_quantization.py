"""The benchmark of what quantization costs, at the smallest size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.quantization import VARIANTS, measure
from demo_model.config import MAX_SEQUENCE_LENGTH, PAD, TOON
from demo_model.tokens import save_tokenizer
from export.families.instantcharacter.network import InstantCharacter
from export.samples import Prompts, TokenizerFile


@pytest.mark.slow
def test_every_variant_is_compared_with_fp32_and_every_layer_is_reported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = InstantCharacter(TOON).eval()
    save_tokenizer(tmp_path / "tokenizer.json")
    file = TokenizerFile(tmp_path / "tokenizer.json", MAX_SEQUENCE_LENGTH, PAD)
    prompts = Prompts.of_files({"tokenizer": file, "tokenizer_2": file})
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    result = json.loads(json.dumps(measure(network, prompts, count=1, side=512, steps=2)))
    assert set(result["variants"]) == {variant.name for variant in VARIANTS}
    for row in result["variants"].values():
        assert 0 < row["latents_relative_l2"] < 0.2
    # 2 double blocks of 12 linear layers, 4 single ones of 5; in each block two of the subject
    # branch and two attentions.
    layers = result["layer_relative_l2"]["fp8-attention"]
    steps = {name for name in layers if name.startswith(("transformer.", "subject_attention."))}
    assert len(steps) == 2 * 12 + 4 * 5 + 6 * (2 + 2)
    # T5: 2 layers of 6 without `wo`; SigLIP and DINOv2: 3 layers of 6; the projector: 2 blocks of
    # 10 and 3 times 2.
    assert len(layers) - len(steps) == 2 * 6 + 2 * 3 * 6 + 2 * 10 + 3 * 2
    assert all(torch.equal(before[k], w) for k, w in network.state_dict().items())

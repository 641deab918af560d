"""The benchmark of what quantization costs, in few steps of one picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.schemes import EXACT, OTHER_SEED, measure
from benchmarks.variants import ROUNDED, Variant, variants
from castmate.engines.bundle import Bundle
from export.quantization.fp8 import FP8_ATTENTION
from export.quantization.none import NONE
from export.quantization.registry import SCHEMES


def test_every_scheme_is_compared() -> None:
    assert {variant.scheme for variant in variants()} == {*SCHEMES.values()}


@pytest.mark.slow
def test_variants_are_compared_with_fp32_and_every_layer_is_reported(tmp_path: Path) -> None:
    some = [Variant(ROUNDED, NONE, dtype=torch.bfloat16), Variant("fp8-attention", FP8_ATTENTION)]
    found = measure(Bundle.open("toon"), some, tmp_path, count=1, calibrated=1, side=512, steps=2)
    result = json.loads(json.dumps(found))
    latents = {
        name: row["latents_relative_l2"]["value"] for name, row in result["variants"].items()
    }
    assert [*latents] == [EXACT, OTHER_SEED, ROUNDED, "fp8-attention"]
    exact, another, rounded, quantized = latents.values()
    assert 0 == exact < rounded < quantized < another
    # 2 double blocks of 12 linear layers, 4 single ones of 5; in each block two of the subject
    # branch and one attention: that over the 16 tokens of the subject stays in bf16.
    layers = result["layer_relative_l2"]["fp8-attention"]
    steps = {name for name in layers if name.startswith(("transformer.", "subject_attention."))}
    assert len(steps) == 2 * 12 + 4 * 5 + 6 * (2 + 1)
    # T5: 2 layers of 6 without `wo`; SigLIP and DINOv2: 3 layers of 6; the projector: 2 blocks of
    # 10 and 3 times 2.
    assert len(layers) - len(steps) == 2 * 6 + 2 * 3 * 6 + 2 * 10 + 3 * 2

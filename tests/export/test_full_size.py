"""FLUX.1-dev with InstantCharacter at full size, without its weights: `make test-full-size`."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from export.full_size import (
    WEIGHTS,
    export_structure,
    fake_network,
    step_flops,
    weights_of,
)
from export.models.config import FLUX
from tests.export.conftest import MICRO

TERA = 1e12
BLOCKS = 57


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "teraflops"),
    # The published sizes: transformer, keys and values of the subject, subject attention.
    [(512, 21.5 + 2.94 + 0.73), (1024, 74.38 + 2.94 + 2.94), (1536, 191.9 + 2.94 + 6.61)],
)
def test_a_step_takes_the_operations_that_its_sizes_say(side: int, teraflops: float) -> None:
    assert step_flops(FLUX, side) / TERA == pytest.approx(teraflops, rel=5e-3)


@pytest.mark.slow
def test_a_small_fake_network_is_exported_like_a_real_one(tmp_path: Path) -> None:
    network = fake_network(MICRO, tmp_path, torch.float32)
    path = export_structure(network, "transformer", tmp_path)
    model = onnx.load(path)
    outside = [
        w
        for w in onnx.load(path, load_external_data=False).graph.initializer
        if w.data_location == TensorProto.EXTERNAL
    ]
    assert outside
    assert all(
        np.count_nonzero(w.raw_data) == 0
        for w in model.graph.initializer
        if w.name in {o.name for o in outside} and w.raw_data
    )
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert (tmp_path / WEIGHTS).stat().st_blocks * 512 < 2**20, "the file is sparse"


@pytest.mark.full_size
@pytest.mark.timeout(3600)
def test_the_full_size_transformer_is_exported_within_four_gibibytes(tmp_path: Path) -> None:
    network = fake_network(FLUX, tmp_path, torch.bfloat16)
    path = export_structure(network, "transformer", tmp_path)
    weights = weights_of(path)
    for name, shape in {
        "denoiser.transformer.x_embedder.weight": (3072, 64),
        "denoiser.transformer.context_embedder.weight": (3072, 4096),
        "denoiser.transformer.transformer_blocks.18.norm1.linear.weight": (18432, 3072),
        "denoiser.transformer.transformer_blocks.18.ff.net.0.proj.weight": (12288, 3072),
        "denoiser.transformer.single_transformer_blocks.37.proj_out.weight": (3072, 15360),
        "denoiser.transformer.proj_out.weight": (64, 3072),
        "denoiser.subject_attention.56.to_k_ip.weight": (3072, 4096),
    }.items():
        assert weights[name] == shape
    named = dict(network.denoiser.named_parameters())
    missing = {f"denoiser.{name}" for name in named} - set(weights)
    assert missing == set(), "every weight keeps its name"
    count = sum(int(np.prod(weights[f"denoiser.{name}"])) for name in named)
    assert count / 1e9 == pytest.approx(11.901 + 1.435, abs=2e-3)
    model = onnx.load(path, load_external_data=False)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Attention") == 2 * BLOCKS
    inputs = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    assert inputs["latents"] == ["B", "h", "w", 64]
    assert inputs["prompt_embeds"] == ["G", "L", 4096]
    assert inputs["subject_embeds"] == ["T", 1024, 4096]
    assert inputs["rotary_emb_cos"] == ["S", 128]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak < 4 * 2**30, f"{peak / 2**30:.1f} GiB"

"""FLUX.1-dev with InstantCharacter at full size, without its weights: `make test-full-size`."""

from __future__ import annotations

import functools
import math
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn

from export.families.instantcharacter.config import FLUX
from export.families.instantcharacter.family import FAMILY
from export.family import bundle_graphs
from export.full_size import (
    WEIGHTS,
    export_structure,
    fake_network,
    step_flops,
    weights_of,
)
from export.quantization.quantize import is_within
from tests.export.conftest import MICRO

TERA = 1e12
BLOCKS = 57
LARGEST_ANONYMOUS = 100_000
UNUSED = (
    "vae.encoder.",
    "checker.concept_embeds_w",
    "checker.special_care_embeds_w",
    "encoder.encoder.embeddings.mask_token",
    "text_encoder_2.shared.",  # the embeddings by another name
)
Exported = Callable[[str], tuple[nn.Module, Path]]


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


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A graph's module at full size and its file; each is exported once."""

    @functools.cache
    def call(name: str) -> tuple[nn.Module, Path]:
        folder = tmp_path_factory.mktemp("full")
        network = fake_network(FLUX, folder, torch.bfloat16)
        return bundle_graphs(network, step_caching=False)[name]().module, export_structure(
            network, name, folder
        )

    return call


@pytest.mark.full_size
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("transformer", 11.901 - 3.280 + 1.435),
        ("modulation", 3.280),
        ("text_encoder_2", 4.762),
        ("subject_projector", 1.243),
        ("image_encoder_2", 1.136),
        ("image_encoder", 0.413),
        ("safety_checker", 0.304),
        ("text_encoder", 0.123),
        ("subject_resampler", 0.117),
        ("vae_decoder", 0.084),
    ],
)
def test_every_graph_is_exported_at_full_size_with_its_weights_named_within_four_gibibytes(
    name: str, billions: float, exported: Exported
) -> None:
    module, path = exported(name)  # the ONNX checker has passed it
    weights = weights_of(path)
    elsewhere = FAMILY.hoisted if name == "transformer" else ()
    parameters = dict(module.named_parameters(remove_duplicate=False))
    named = {k: tuple(w.shape) for k, w in parameters.items() if not is_within(k, elsewhere)}
    count = sum(w.numel() for k, w in module.named_parameters() if k in named)
    assert count / 1e9 == pytest.approx(billions, abs=2e-3)
    expected = {k: shape for k, shape in named.items() if not k.startswith(UNUSED)}
    assert {key: weights.get(key) for key in expected} == expected
    anonymous = [shape for key, shape in weights.items() if key not in named]
    assert max(map(math.prod, anonymous)) < LARGEST_ANONYMOUS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak < 4 * 2**30, f"{peak / 2**30:.1f} GiB"


@pytest.mark.full_size
@pytest.mark.timeout(3600)
def test_the_full_size_transformer_has_the_published_shapes_and_fused_attentions(
    exported: Exported,
) -> None:
    _, path = exported("transformer")
    weights = weights_of(path)
    for name, shape in {
        "denoiser.transformer.x_embedder.weight": (3072, 64),
        "denoiser.transformer.context_embedder.weight": (3072, 4096),
        "denoiser.transformer.transformer_blocks.18.ff.net.0.proj.weight": (12288, 3072),
        "denoiser.transformer.single_transformer_blocks.37.proj_out.weight": (3072, 15360),
        "denoiser.transformer.proj_out.weight": (64, 3072),
        "denoiser.subject_attention.56.to_k_ip.weight": (3072, 4096),
    }.items():
        assert weights[name] == shape
    model = onnx.load(path, load_external_data=False)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Attention") == 2 * BLOCKS
    inputs = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    assert inputs["latents"] == ["B", "h", "w", 64]
    assert inputs["prompt_embeds"] == ["G", "L", 4096]
    assert inputs["modulation"] == ["T", "G", 1_056_768]
    assert inputs["subject_embeds"] == ["T", 1024, 4096]
    assert inputs["rotary_emb_cos"] == ["S", 128]

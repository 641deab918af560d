"""What only the full size has, at small size: the VAE's wide head, DINOv2's resized positions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import Dinov2Config, Dinov2Model, SiglipVisionConfig, SiglipVisionModel

from castmate.engines.plan import Flavour, LayerCounts, ShapeRange
from castmate.families.instantcharacter.graphs import TABLE
from export.build import run
from export.builder import Job
from export.families.instantcharacter.graphs import ImageEncoderGraph, VaeDecoderGraph
from export.families.instantcharacter.image_encoder import CropEncoder
from export.graphs import ExportGraph
from export.layers import Expected, check, parse
from export.precision import Precision, convert
from export.quantization.fp8 import FP8
from export.quantization.none import NONE
from export.quantization.quantize import quantize, ranges_needed
from export.quantization.scheme import Scheme
from export.to_onnx import QUERY_CHUNKS, to_onnx

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def decoder(dtype: torch.dtype) -> ExportGraph:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 512),
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    convert(vae, dtype)
    module = VaeDecoderGraph(vae)
    return ExportGraph.of(TABLE, "vae_decoder", module, {"C": 16}, dtype)


def encoder(kind: str, dtype: torch.dtype) -> ExportGraph:
    torch.manual_seed(0)
    if kind == "dinov2":  # more positions than patches, as published
        config = Dinov2Config(
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=70,
            patch_size=14,
            use_swiglu_ffn=True,
        )
        model, name = Dinov2Model(config), "image_encoder_2"
    else:
        config = SiglipVisionConfig(
            hidden_size=144,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
            vision_use_head=False,
        )
        model, name = SiglipVisionModel(config), "image_encoder"
    convert(model, dtype)
    module = ImageEncoderGraph(CropEncoder(model, (1, 2)))
    return ExportGraph.of(TABLE, name, module, {"s": 56}, dtype)


def engine(graph: ExportGraph, shape: ShapeRange, folder: Path) -> LayerCounts:
    path = folder / "graph.onnx"
    to_onnx(graph, path, precision=Precision.BF16)
    (name,) = graph.inputs
    job = Job(
        graph="graph",
        onnx=path,
        plan=folder / "graph.plan",
        log=folder / "log.jsonl",
        flavour=Flavour.TENSORRT_RTX,
        target="8.9",
        profiles=({name: shape},),
    )
    run(job, folder / "job.json")
    layers = parse(map(json.loads, job.log.read_text().splitlines()))
    return check(layers, Expected.of(onnx.load(path)), "graph")


def test_the_vae_s_wide_head_is_written_out_computes_the_same_and_builds(tmp_path: Path) -> None:
    graph, path = decoder(torch.float32), tmp_path / "vae.onnx"
    to_onnx(graph, path)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert "Attention" not in operators
    assert operators.count("Softmax") == QUERY_CHUNKS
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"latents": graph.inputs["latents"].numpy()})
    with torch.no_grad():
        expected = graph.module(*graph.inputs.values()).numpy()
    assert expected.std() > 5
    assert np.abs(found.astype(int) - expected).max() <= 1
    shape = ShapeRange(min=(1, 32, 32, 64), opt=(1, 64, 64, 64), max=(1, 96, 96, 64))
    assert engine(decoder(torch.bfloat16), shape, tmp_path).gemms_reading.get("Float", 0) == 0


@pytest.mark.parametrize("scheme", [NONE, FP8], ids=str)
@pytest.mark.parametrize("kind", ["siglip", "dinov2"])
def test_an_encoder_with_published_head_widths_and_positions_builds(
    kind: str, scheme: Scheme, tmp_path: Path
) -> None:
    one = (1, 5, 56, 56, 3)
    shape = ShapeRange(min=one, opt=one, max=one)
    graph = encoder(kind, torch.bfloat16)
    ranges = {key: torch.tensor(4.0) for key in ranges_needed(graph.module, scheme, ())}
    quantized = quantize(graph.module, ranges, scheme, ())
    found = engine(graph, shape, tmp_path)  # refuses one that falls back
    assert found.fused_attentions == 2
    assert bool(quantized) == (found.gemms_reading.get("FP8", 0) > 0) == (scheme is FP8)

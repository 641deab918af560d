"""A network of the real classes at the smallest sizes, and its bundle."""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from castmate.engines.bundle import Bundle
from castmate.engines.golden import Call
from castmate.engines.manifest import MANIFEST, StepCachingSpec
from castmate.families.instantcharacter.graphs import WHOLE
from demo_model.config import TOON
from export.bundle import graph_spec, write_bundle
from export.calibrate import Calibration, calibrate
from export.families.instantcharacter.adapter import adapter_state_dict
from export.families.instantcharacter.config import ModelConfig
from export.families.instantcharacter.load import ADAPTER_FILE, Sources
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.step_caching import FLUX_STEP_CACHING, step_caching_graphs
from export.families.instantcharacter.unquantized import UNQUANTIZED
from export.family import merges
from export.golden import record
from export.golden_limits import LEAST
from export.graphs import Makers
from export.precision import Precision, QuantizedLayer, convert
from export.quantization.fp8 import FP8_ATTENTION
from export.quantization.none import NONE
from export.quantization.quantize import quantize
from export.quantization.scheme import Scheme
from export.samples import Prompts, TokenizerFile, samples
from export.to_onnx import to_onnx
from tests.export.kept import kept
from tests.export.torchlib import read_once

read_once()

# Not square in any count, so that a swapped axis or a wrong index shows.
MICRO: ModelConfig = replace(
    TOON,
    name="micro",
    text_encoder={**TOON.text_encoder, "vocab_size": 512},
    text_encoder_2={**TOON.text_encoder_2, "vocab_size": 512},
    rope_square=None,  # positions as FLUX has them
    transformer={**TOON.transformer, "num_layers": 1, "num_single_layers": 2},
    vae={
        **TOON.vae,
        "down_block_types": ("DownEncoderBlock2D",) * 5,
        "up_block_types": ("UpDecoderBlock2D",) * 5,
        "block_out_channels": (8, 8, 8, 8, 16),
        "scaling_factor": 0.7,
        "shift_factor": 0.1,
    },
)


@pytest.fixture(scope="module", autouse=True)
def rare_collections() -> Iterator[None]:
    """torch.export makes millions of objects that live as long as its graph."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    yield
    gc.set_threshold(*before)


@pytest.fixture(scope="session")
def network() -> InstantCharacter:
    """Random weights with real gains: zero-initialised or tiny branches would hide their errors."""
    torch.manual_seed(0)
    made = InstantCharacter(MICRO).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name.startswith("subject") and weight.ndim > 1:
                weight.mul_(2)
    return made.half().float()


def record_golden(network: InstantCharacter, *, step_caching: bool) -> dict[str, Call]:
    """The golden tensors of a network that `write` is to export, before it is quantized."""
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = letters(Path(scratch))
        tokenizers = {"tokenizer": tokenizer, "tokenizer_2": tokenizer}
        return record(network, tokenizers, step_caching=step_caching)


def write(network: InstantCharacter, folder: Path, **options: Any) -> None:
    """Export a network as a bundle; options are those of `write_bundle`."""
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = letters(Path(scratch))
        tokenizers = {"tokenizer": tokenizer, "tokenizer_2": tokenizer}
        write_bundle(
            network,
            folder,
            description="Random weights.",
            licences={},
            tokenizers=tokenizers,
            **options,
        )


@pytest.fixture(scope="session")
def bundle_folder(network: InstantCharacter) -> Path:
    """The network, exported as a bundle with fp16 weights."""

    def make(folder: Path) -> None:
        golden = record_golden(network, step_caching=False)
        write(network, folder, precision=Precision.FP16_WEIGHTS, golden=golden)

    return kept("micro", make).path


@pytest.fixture(scope="session")
def cached_bundle(network: InstantCharacter, bundle_folder: Path) -> Bundle:
    """The same network with the transformer in the three parts of step caching."""

    def make(folder: Path) -> None:
        shutil.copytree(bundle_folder, folder)
        replace_graphs(
            Bundle.open(folder),
            step_caching_graphs(network),
            Precision.FP16_WEIGHTS,
            StepCachingSpec(balanced=0.6, fast=2.0, chosen_on="nothing"),
        )

    return kept("micro-step-caching", make)


QUANTIZED_LIMIT = 1e-1
"""Of the parts of a step in FP8: what the blocks of `toon` add has 8.1e-2."""


def replace_graphs(
    bundle: Bundle,
    graphs: Makers,
    precision: Precision,
    step_caching: StepCachingSpec,
    quantization: Scheme = NONE,
) -> None:
    """Export some graphs into a bundle, the transformer in its three parts among them."""
    manifest = json.loads((bundle.path / MANIFEST).read_text())
    manifest["graphs"].pop(WHOLE, None)
    for name, make in graphs.items():
        graph = make()
        files = to_onnx(graph, bundle.path / f"{name}.onnx", precision=precision)
        manifest["graphs"][name] = graph_spec(files).model_dump()
        if name in manifest["golden"]["limits"]:
            layers = graph.module.modules()
            quantized = any(isinstance(layer, QuantizedLayer) for layer in layers)
            limit = QUANTIZED_LIMIT if quantized else LEAST[precision]
            manifest["golden"]["limits"][name] = limit
    manifest["step_caching"] = step_caching.model_dump()
    (bundle.path / MANIFEST).write_text(json.dumps(manifest))


def letters(folder: Path) -> TokenizerFile:
    """A tokenizer of letters, written to a folder."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(_letters()))
    return TokenizerFile(path, max_length=MICRO.max_sequence_length, pad_id=0)


def _letters() -> dict[str, object]:
    from tokenizers import models, pre_tokenizers, processors

    ids = {"[PAD]": 0, "[BOS]": 1, "[UNK]": 2, "[EOS]": 3}
    ids |= {chr(code): code for code in range(32, 127)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 1), ("[EOS]", 3)]
    )
    spec: dict[str, object] = json.loads(tokenizer.to_str())
    return spec


# Heads as wide as FLUX's and enough subject tokens for TensorRT's fused attention; else small.
WIDE: ModelConfig = replace(
    MICRO,
    name="wide",
    transformer={
        **TOON.transformer,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 128,
        "num_attention_heads": 2,
        "axes_dims_rope": (16, 56, 56),
    },
    resampler=replace(TOON.resampler, num_queries=64),
)


def make_wide(dtype: torch.dtype = torch.float32) -> InstantCharacter:
    """The same random weights every time."""
    torch.manual_seed(0)
    made = InstantCharacter(WIDE).eval()
    convert(made, dtype)
    return made


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Prompts:
    tokenizer = letters(tmp_path_factory.mktemp("prompts"))
    return Prompts.of_files({"tokenizer": tokenizer, "tokenizer_2": tokenizer})


@pytest.fixture(scope="session")
def calibration(prompts: Prompts) -> Calibration:
    """Of the wide network, over one short trajectory."""
    return calibrate(make_wide(), prompts, samples(1, 512), steps=2)


@pytest.fixture(scope="session")
def fp8_bundle(prompts: Prompts) -> Bundle:
    """The wide network in bf16 with FP8 linear layers, encoders and attention, every graph."""

    def make(folder: Path) -> None:
        network = make_wide(torch.bfloat16)
        recorded = calibrate(network, prompts, samples(1, 512), steps=2)
        golden = record_golden(network, step_caching=True)
        quantize(network, recorded.amax, FP8_ATTENTION, UNQUANTIZED, merges(network))
        write(
            network,
            folder,
            precision=Precision.BF16,
            quantization=FP8_ATTENTION,
            encoders=True,
            step_caching=FLUX_STEP_CACHING,
            golden=golden,
        )

    return kept("wide-fp8", make)


@pytest.fixture(scope="session")
def published(network: InstantCharacter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in the layouts of its publishers."""
    folder = tmp_path_factory.mktemp("published")
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        getattr(network, name).save_pretrained(folder / "flux" / name)
    for name in ("image_encoder", "image_encoder_2", "safety_checker"):
        getattr(network, name).save_pretrained(folder / name)
    tokenizer = Tokenizer.from_str(json.dumps(_letters()))
    for name in ("tokenizer", "tokenizer_2"):
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
        ).save_pretrained(folder / "flux" / name)
    (folder / "adapter").mkdir()
    state = {
        part: {key: tensor.bfloat16() for key, tensor in tensors.items()}
        for part, tensors in adapter_state_dict(network).items()
    }
    torch.save(state, folder / "adapter" / ADAPTER_FILE)
    return folder


def sources(folder: Path) -> Sources:
    """The parts of `published`."""
    return Sources(
        flux=str(folder / "flux"),
        adapter=str(folder / "adapter"),
        image_encoder=str(folder / "image_encoder"),
        image_encoder_2=str(folder / "image_encoder_2"),
        safety_checker=str(folder / "safety_checker"),
    )


# Its LoRA is faint: random weights of full strength bring outliers that no FP8 range holds.
PRESET: Mapping[str, Any] = {
    "description": "Random weights in few steps.",
    "lora": {"file": "style.safetensors", "scale": 0.015625},
    "defaults": {"num_inference_steps": 2, "guidance_scale": 3.0, "subject_scale": 0.9},
    "limits": {"num_inference_steps": {"min": 1, "max": 4}},
    "licences": {"tiny": {"name": "MIT", "url": "https://example.com", "allows": "Any use."}},
}


def preset_file(folder: Path, **changes: Any) -> str:
    path = folder / "tiny-2.json"
    path.write_text(json.dumps({**PRESET, **changes}))
    return str(path)

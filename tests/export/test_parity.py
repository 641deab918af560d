"""The bundle's pipeline against the torch modules driven by diffusers' own scheduler.

Both start from the same noise. What is compared is the final latents and the 8-bit picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from castmate.defaults import CompleteRequest
from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.families.instantcharacter.constants import SchedulerSpec
from castmate.families.instantcharacter.schedule import flow_match_sigmas, rotary_tables
from castmate.families.instantcharacter.subject import reference_crops
from castmate.images import Reference
from castmate.pipeline.noise import gaussian_noise
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from export.families.instantcharacter.family import DEFAULTS
from export.families.instantcharacter.network import (
    InstantCharacter,
    rotary_embedding,
    unpack_latents,
)

# Both sides compute in fp32 with kernels of their own, so a pixel on the edge between two values
# may fall to either side: 0.3 % of them do with these weights, and none by more.
MAX_PIXEL_DIFFERENCE = 1
MAX_SHARE_OF_DIFFERENT_PIXELS = 0.01


@pytest.fixture(scope="module")
def pipeline(bundle_folder: Path) -> Pipeline:
    bundle = Bundle.open(bundle_folder)
    return Pipeline(bundle, OnnxRuntime(bundle))


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Not square, so that framing shows."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 120, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return Reference.from_bytes(stream.getvalue(), "reference.png")


def token_ids(folder: Path, texts: list[str], length: int) -> Tensor:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = [tokenizer.encode(text).ids for text in texts]
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def shift(num_image_tokens: int, spec: Mapping[str, float]) -> float:
    return calculate_shift(
        num_image_tokens,
        base_seq_len=spec["base_image_seq_len"],
        max_seq_len=spec["max_image_seq_len"],
        base_shift=spec["base_shift"],
        max_shift=spec["max_shift"],
    )


def torch_picture(
    network: InstantCharacter, folder: Path, asked: GenerateRequest, reference: Reference
) -> np.ndarray:
    """What a user of diffusers would write: one pass or true CFG, scheduler steps, decode."""
    request = CompleteRequest.of(asked, DEFAULTS)
    config = network.config
    cell = config.pixels_per_token
    rows, columns = -(-request.height // cell), -(-request.width // cell)
    spec = config.scheduler
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **spec)
    mu = shift(rows * columns, spec)
    linear = np.linspace(1.0, 1 / request.num_inference_steps, request.num_inference_steps)
    scheduler.set_timesteps(sigmas=linear, mu=mu)
    crops = torch.from_numpy(reference_crops(reference.image, config.projector.crop_px))
    features = network.subject_features(crops)
    texts = [request.prompt] + [request.negative_prompt] * bool(request.negative_prompt)
    ids = token_ids(folder, texts, config.max_sequence_length)
    embeds, pooled = network.prompt_embeds(ids), network.pooled_projections(ids)
    cos, sin = rotary_embedding((4, 14, 14), config.max_sequence_length, rows, columns)
    noise = torch.from_numpy(gaussian_noise(request.seed, (1, rows, columns, 64)))
    latents = noise.flatten(1, 2)
    for t in scheduler.timesteps:
        tokens = network.subject_resampler(features, t[None])
        velocity = [
            network.denoiser(
                latents,
                embeds[i : i + 1],
                network.modulation(
                    pooled[i : i + 1], torch.tensor([request.guidance_scale]), t[None]
                ),
                cos,
                sin,
                tokens,
                request.subject_scale,
            )
            for i in range(len(texts))
        ]
        mixed = velocity[0]
        if len(texts) == 2:
            mixed = velocity[1] + request.true_cfg_scale * (velocity[0] - velocity[1])
        latents = scheduler.step(mixed, t, latents, return_dict=False)[0]
    z = unpack_latents(latents.unflatten(1, (rows, columns)))
    z = z / network.vae.config.scaling_factor + network.vae.config.shift_factor
    pixels = network.vae.decode(z, return_dict=False)[0][0]
    picture = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    top, left = (rows * cell - request.height) // 2, (columns * cell - request.width) // 2
    return picture[top : top + request.height, left : left + request.width].numpy()


@pytest.mark.parametrize("negative_prompt", ["", "trees"])
@pytest.mark.parametrize("size", ["512*512", "700*520"])
def test_the_onnx_pipeline_equals_torch_with_diffusers_scheduler(
    pipeline: Pipeline,
    network: InstantCharacter,
    bundle_folder: Path,
    reference: Reference,
    size: str,
    negative_prompt: str,
) -> None:
    request = GenerateRequest.parse(
        {
            "prompt": "waving",
            "negative_prompt": negative_prompt,
            "image": "reference.png",
            "size": size,
            "seed": 11,
            "num_inference_steps": 6,
            "guidance_scale": 3.0,
            "enable_safety_checker": False,
            "enable_matting": False,
        }
    )
    with torch.no_grad():
        expected = torch_picture(network, bundle_folder, request, reference)
    result = pipeline.generate(request, reference, lambda done, total: None)
    picture = np.asarray(Image.open(BytesIO(result.images[0].data)).convert("RGB"))
    assert picture.shape == expected.shape
    assert expected.std() > 5, "a flat picture would prove nothing"
    difference = np.abs(picture.astype(int) - expected.astype(int))
    assert difference.max() <= MAX_PIXEL_DIFFERENCE
    assert (difference > 0).mean() <= MAX_SHARE_OF_DIFFERENT_PIXELS


@pytest.mark.parametrize("steps", [1, 4, 28, 50])
@pytest.mark.parametrize("tokens", [64, 100, 576])
def test_the_schedule_equals_diffusers(network: InstantCharacter, tokens: int, steps: int) -> None:
    spec = network.config.scheduler
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **spec)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift(tokens, spec))
    ours = flow_match_sigmas(steps, tokens, SchedulerSpec(**spec))
    np.testing.assert_allclose(ours, scheduler.sigmas.numpy(), rtol=0, atol=2e-7)
    assert ours.dtype == np.float32


@pytest.mark.parametrize("grid", [(8, 8), (3, 24)])
@pytest.mark.parametrize("axes", [(4, 14, 14), (16, 56, 56)])
def test_the_rope_tables_equal_diffusers_to_the_bit(
    axes: tuple[int, int, int], grid: tuple[int, int]
) -> None:
    cos, sin = rotary_tables(axes, 40, *grid)
    expected_cos, expected_sin = rotary_embedding(axes, 40, *grid)
    np.testing.assert_array_equal(cos, expected_cos.numpy())
    np.testing.assert_array_equal(sin, expected_sin.numpy())

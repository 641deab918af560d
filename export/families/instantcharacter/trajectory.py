"""InstantCharacter's denoise trajectories in torch, as the served pipeline takes them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from castmate.families.instantcharacter.constants import SchedulerSpec
from castmate.families.instantcharacter.schedule import (
    flow_match_sigmas,
    rotary_tables,
    timesteps_of,
)
from castmate.families.instantcharacter.subject import reference_crops
from castmate.pipeline.denoise import Reuse
from castmate.pipeline.denoise import denoise as castmate_denoise
from castmate.pipeline.noise import gaussian_noise
from export.families.instantcharacter.denoiser import Denoiser
from export.families.instantcharacter.graphs import TransformerGraph, VaeDecoderGraph
from export.families.instantcharacter.modulation import ModulationGraph
from export.families.instantcharacter.network import InstantCharacter
from export.family import OnStep
from export.samples import Prompts, Sample


class TorchTransformer:
    """The whole transformer in torch; see `castmate.pipeline.denoise.Transformer`."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._graph = TransformerGraph(denoiser).eval()

    def step(
        self, latents: Tensor, step: Tensor, conditions: Mapping[str, Tensor], reuse: Reuse
    ) -> Tensor:
        """Compute every step."""
        reuse.computed += 1
        return self._graph(latents, step, **conditions)


@torch.no_grad()
def denoise(
    network: InstantCharacter,
    sample: Sample,
    prompts: Prompts,
    steps: int,
    on_step: OnStep,
) -> Tensor:
    """See `export.trajectory.denoise`; packed latents `[1, h, w, 4C]`, fp32."""
    config, denoiser = network.config, network.denoiser
    dtype, device = denoiser.dtype, network.device
    rows, columns = (-(-side // config.pixels_per_token) for side in (sample.height, sample.width))
    sigmas = flow_match_sigmas(steps, rows * columns, SchedulerSpec(**config.scheduler))
    image = Image.open(sample.reference).convert("RGB")
    crops = torch.from_numpy(reference_crops(image, config.projector.crop_px)).to(device)
    ids = {name: found.to(device) for name, found in prompts.ids(sample.prompt).items()}
    axes = tuple(network.transformer.config.axes_dims_rope)
    rotary = rotary_tables(axes, config.max_sequence_length, rows, columns, config.rope_square)

    def put(values: np.ndarray | list[float]) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    timesteps = put(timesteps_of(sigmas))
    pooled = network.pooled_projections(ids["tokenizer"]).to(dtype)
    conditions = {
        "sigmas": put(sigmas),
        "true_cfg_scale": put([1.0]),
        "prompt_embeds": network.prompt_embeds(ids["tokenizer_2"]).to(dtype),
        "modulation": ModulationGraph(network.modulation)(
            pooled, put([sample.guidance_scale]), timesteps
        ),
        "subject_embeds": network.subject_resampler(network.subject_features(crops), timesteps),
        "subject_scale": put([sample.subject_scale]),
        "rotary_emb_cos": put(rotary[0]),
        "rotary_emb_sin": put(rotary[1]),
    }
    channels = network.transformer.config.in_channels
    latents = put(gaussian_noise(sample.seed, (1, rows, columns, channels)))
    numbers = [torch.tensor([step], device=device) for step in range(steps)]
    found, _ = castmate_denoise(TorchTransformer(denoiser), latents, numbers, conditions, on_step)
    return found


@torch.no_grad()
def decode(network: InstantCharacter, latents: Tensor) -> np.ndarray:
    """See `export.trajectory.decode`."""
    picture: np.ndarray = VaeDecoderGraph(network.vae).eval()(latents)[0].cpu().numpy()
    return picture

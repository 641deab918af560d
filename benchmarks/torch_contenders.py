"""Torch with the demo model's weights: as published, and as fast as it gets without TensorRT."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from PIL import Image

from benchmarks.protocol import Draw, Drawn, Setup
from benchmarks.torch_loop import Inputs, Switches, TorchLoop
from castmate.defaults import CompleteRequest
from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.subject import reference_crops
from castmate.schema import GenerateRequest
from demo_model.checkpoint import load_shipped
from export.families.instantcharacter.network import InstantCharacter
from export.samples import Prompts

EXACT = Switches(hoist=True, batch=True, modulation=True)


def diffusers_eager(setup: Setup, ends: ExitStack) -> Draw:
    """torch eager through `FluxPipeline`, the projector run in every step as published."""
    network, device = _network(setup)
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, **network.config.scheduler
        ),
        vae=network.vae,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=network.transformer,
    )
    pipe.set_progress_bar_config(disable=True)
    read = _Reader(setup, network)

    @torch.inference_mode()
    def draw(request: GenerateRequest) -> Drawn:
        inputs = read(request)
        ids, crops = inputs.ids.to(device), inputs.crops.to(device)
        first, second = network.crop_encoders
        features = first(crops) + second(crops)

        def tokens(timestep: float) -> torch.Tensor:
            projected = network.subject_projector(features)
            return network.subject_resampler(projected, torch.tensor([timestep], device=device))

        def next_tokens(
            pipe: FluxPipeline, step: int, timestep: float, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            if step + 1 < len(pipe.scheduler.timesteps):
                following = pipe.scheduler.timesteps[step + 1].item()
                pipe.joint_attention_kwargs["subject_embeds"] = tokens(following)
            return tensors

        pipe(
            prompt_embeds=network.prompt_embeds(ids),
            pooled_prompt_embeds=network.pooled_projections(ids),
            width=request.width,
            height=request.height,
            num_inference_steps=inputs.steps,
            guidance_scale=inputs.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed),
            joint_attention_kwargs={
                "subject_embeds": tokens(1000.0),
                "subject_scale": inputs.subject_scale,
                "num_text_tokens": network.config.max_sequence_length,
            },
            callback_on_step_end=next_tokens,
            output_type="pil",
        )
        return Drawn({}, computed_steps=inputs.steps)

    return draw


def torch_hoisted(setup: Setup, ends: ExitStack) -> Draw:
    """torch eager with all that no step changes computed once; the picture is the same."""
    return _loop(setup, EXACT)


def torch_compile(setup: Setup, ends: ExitStack) -> Draw:
    """The same, compiled: the strongest exact thing without TensorRT or ONNX Runtime."""
    return _loop(setup, replace(EXACT, compile=True))


def torch_compile_fp8(setup: Setup, ends: ExitStack) -> Draw:
    """The same with FP8 GEMMs."""
    return _loop(setup, replace(EXACT, compile=True, fp8=True))


def _loop(setup: Setup, switches: Switches) -> Draw:
    network, _ = _network(setup)
    loop, read = TorchLoop(network, switches), _Reader(setup, network)

    def draw(request: GenerateRequest) -> Drawn:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Inductor warns about what this machine lacks
            timed = loop.draw(read(request))
        return Drawn(timed.stages_ms, timed.steps_ms, timed.computed_steps)

    return draw


def _network(setup: Setup) -> tuple[InstantCharacter, torch.device]:
    """The weights of the bundle, in bf16 on a GPU."""
    if setup.threads:
        torch.set_num_threads(setup.threads)
    network = load_shipped(Bundle.open(setup.bundle))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    return network.to(device, torch.bfloat16 if cuda else torch.float32), device


class _Reader:
    """A request as torch inputs."""

    def __init__(self, setup: Setup, network: InstantCharacter) -> None:
        bundle = Bundle.open(setup.bundle)
        self._prompts, self._defaults = Prompts.of(bundle), bundle.manifest.defaults
        self._crop_px = network.config.projector.crop_px

    def __call__(self, request: GenerateRequest) -> Inputs:
        ids = self._prompts.ids(request.prompt)
        complete = CompleteRequest.of(request, self._defaults)
        with Image.open(request.image) as image:
            crops = torch.from_numpy(
                np.ascontiguousarray(reference_crops(image.convert("RGB"), self._crop_px))
            )
        return Inputs(
            ids["tokenizer"],
            ids["tokenizer_2"],
            crops,
            request.width,
            request.height,
            complete.num_inference_steps,
            request.seed,
            complete.guidance_scale,
            complete.subject_scale,
        )

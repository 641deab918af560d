"""One contender in a process of its own: `python -m benchmarks.contenders NAME FOLDER`.

A process each, so that memory is its own and Castmate's holds no torch. It reads one JSON request a
line and answers with one JSON line, after a first line that says it is ready.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from castmate.images import Reference
from castmate.schema import GenerateRequest

Draw = Callable[[GenerateRequest], dict[str, float]]
"""Makes the picture of a request and returns milliseconds a stage, if it knows them."""


def castmate_local(folder: Path) -> Draw:
    """The product as installed: ONNX Runtime, caches as set by default."""
    from castmate.clients.local import LocalClient
    from castmate.settings import Settings

    client = LocalClient.open(Settings.load(bundle=str(folder)))
    reference = _reference(folder)

    def draw(request: GenerateRequest) -> dict[str, float]:
        result = asyncio.run(client.generate(request, reference))
        return dict(result.timings_ms)

    return draw


def diffusers_eager(folder: Path) -> Draw:
    """torch eager through `FluxPipeline`, the projector run in every step as published."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
    from tokenizers import Tokenizer

    from castmate.pipeline.subject import reference_crops
    from demo_model.config import TOON
    from export.models.network import InstantCharacter

    network = InstantCharacter(TOON).eval()
    network.load_state_dict(torch.load(folder / "network.pt", weights_only=True))
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **TOON.scheduler),
        vae=network.vae,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=network.transformer,
    )
    pipe.set_progress_bar_config(disable=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=TOON.max_sequence_length, pad_id=0)
    image = _reference(folder).image

    @torch.inference_mode()
    def draw(request: GenerateRequest) -> dict[str, float]:
        ids = torch.tensor([tokenizer.encode(request.prompt).ids])
        crops = torch.from_numpy(reference_crops(image, TOON.projector.crop_px))
        first, second = network.crop_encoders
        features = first(crops) + second(crops)

        def tokens(timestep: float) -> torch.Tensor:
            projected = network.subject_projector(features)
            return network.subject_resampler(projected, torch.tensor([timestep]))

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
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed),
            joint_attention_kwargs={
                "subject_embeds": tokens(1000.0),
                "subject_scale": request.subject_scale,
                "num_text_tokens": TOON.max_sequence_length,
            },
            callback_on_step_end=next_tokens,
            output_type="pil",
        )
        return {}

    return draw


CONTENDERS: dict[str, Callable[[Path], Draw]] = {
    "castmate": castmate_local,
    "diffusers-eager": diffusers_eager,
}


def peak_memory_mib() -> float:
    """The most memory that this process has had; `ru_maxrss` would count its parent's as well."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell peak memory")


def _reference(folder: Path) -> Reference:
    path = folder / "reference.png"
    return Reference.from_bytes(path.read_bytes(), path.name)


def main() -> None:
    """Serve requests until the input ends."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    answers, sys.stdout = sys.stdout, sys.stderr
    start = time.perf_counter()
    draw = CONTENDERS[name](folder)

    def answer(**values: object) -> None:
        peak_mib = peak_memory_mib()
        heavy = sorted({"torch", "diffusers", "transformers"} & set(sys.modules))
        print(json.dumps(values | {"peak_mib": peak_mib, "loaded": heavy}), file=answers)
        answers.flush()

    answer(load_ms=1000 * (time.perf_counter() - start))
    for line in sys.stdin:
        request = GenerateRequest.parse(json.loads(line))
        start = time.perf_counter()
        stages = draw(request)
        answer(total_ms=1000 * (time.perf_counter() - start), stages_ms=stages)


if __name__ == "__main__":
    main()

"""The strongest torch baseline, with a switch for each of its optimisations.

The same noise, schedule and graphs as the served pipeline. With every switch off it works like the
published code: projector, resampler and modulations run again in every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from castmate.families.instantcharacter.constants import SchedulerSpec
from castmate.families.instantcharacter.graphs import TABLE
from castmate.families.instantcharacter.schedule import (
    flow_match_sigmas,
    rotary_tables,
    timesteps_of,
)
from castmate.pipeline.noise import gaussian_noise
from export.families.instantcharacter.graphs import TransformerGraph, VaeDecoderGraph
from export.families.instantcharacter.modulation import ModulationGraph
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.step_caching import FinishGraph, HeadGraph, TailGraph
from export.families.instantcharacter.unquantized import UNQUANTIZED
from export.quantization.fp8 import FP8 as FP8_SCHEME
from export.quantization.quantize import quantizable

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0


@dataclass(frozen=True)
class Switches:
    """The optimisations that are on.

    Attributes:
        hoist: Run the timestep-independent part of the projector once, not in every step.
        batch: Run the resampler for all steps at once.
        modulation: Make the modulations of all steps at once.
        compile: `torch.compile` of the step and of the VAE decoder.
        fp8: FP8 GEMMs with one scale for each row; not for embedders and the last layer.
        threshold: Step caching's threshold; 0 computes every step.
        share: Compute this part of the steps, spread evenly, whatever the change: for timing a
            network whose weights are random.
    """

    hoist: bool = False
    batch: bool = False
    modulation: bool = False
    compile: bool = False
    fp8: bool = False
    threshold: float = 0.0
    share: float = 0.0

    @property
    def cached(self) -> bool:
        """Whether steps may be skipped."""
        return bool(self.threshold or self.share)


@dataclass(frozen=True)
class Inputs:
    """One picture to draw: token ids `[1, L]` of both encoders, crops `[1, 5, s, s, 3]` uint8."""

    ids: Tensor
    ids_2: Tensor
    crops: Tensor
    width: int
    height: int
    steps: int
    seed: int
    guidance_scale: float = 3.5
    subject_scale: float = 0.8


@dataclass(frozen=True)
class Timed:
    """A picture `[H, W, 3]` uint8 on the host, and its times in milliseconds."""

    picture: Tensor
    stages_ms: Mapping[str, float]
    steps_ms: tuple[float, ...]
    computed_steps: int


class ScaledLinear(nn.Module):
    """A linear layer in FP8 with a scale for each row of both factors, computed as it runs."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, scale = scaled(layer.weight.detach())
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = scaled(x.flatten(0, -2))
        bias: Tensor | None = self.bias
        y: Tensor = torch._scaled_mm(
            rows,
            self.get_buffer("weight").t(),
            scale_a=scale,
            scale_b=self.get_buffer("scale").t(),
            bias=None if bias is None else bias.to(torch.bfloat16),
            out_dtype=torch.bfloat16,
            use_fast_accum=x.is_cuda,
        )
        return y.to(x.dtype).unflatten(0, x.shape[:-1])


def scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix in FP8 and the scale `[rows, 1]` fp32 of each row."""
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / FP8_MAX
    return (x.float() / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale


def use_fp8(denoiser: nn.Module) -> int:
    """Replace the layers that export quantizes, in place; returns how many."""
    layers = list(quantizable(denoiser, FP8_SCHEME, UNQUANTIZED))
    for name, layer in layers:
        assert isinstance(layer, nn.Linear)
        parent, _, attribute = name.rpartition(".")
        setattr(denoiser.get_submodule(parent), attribute, ScaledLinear(layer))
    return len(layers)


class TorchLoop:
    """A network ready to draw; one picture at a time."""

    def __init__(self, network: InstantCharacter, switches: Switches) -> None:
        """Prepare.

        Args:
            network: In evaluation mode, on its device, in its dtype; `fp8` changes it in place.
            switches: The optimisations to use.
        """
        self.network, self.switches = network, switches
        if switches.fp8:
            use_fp8(network.denoiser)
        denoiser = network.denoiser
        made = self._compiled if switches.compile else _as_it_is
        self._whole = made(TransformerGraph(denoiser))
        self._parts = {
            "transformer_head": made(HeadGraph(denoiser)),
            "transformer_tail": made(TailGraph(denoiser)),
            "transformer_finish": made(FinishGraph(denoiser)),
        }
        self._modulation = made(ModulationGraph(network.modulation))
        self._decoder = made(VaeDecoderGraph(network.vae))
        self.device = next(network.transformer.parameters()).device

    @torch.inference_mode()
    def draw(self, inputs: Inputs) -> Timed:
        """Draw a picture."""
        network, config = self.network, self.network.config
        watch = _Watch(self.device)
        with watch("text"):
            prompt = network.prompt_embeds(inputs.ids_2.to(self.device))
            pooled = network.pooled_projections(inputs.ids.to(self.device))
        rows, columns = (
            -(-side // config.pixels_per_token) for side in (inputs.height, inputs.width)
        )
        sigmas = flow_match_sigmas(inputs.steps, rows * columns, SchedulerSpec(**config.scheduler))
        axes = tuple(network.transformer.config.axes_dims_rope)
        length = config.max_sequence_length
        cos, sin = rotary_tables(axes, length, rows, columns, config.rope_square)
        timesteps = self._put(timesteps_of(sigmas))
        with watch("text"):
            modulation = self._modulations(pooled, self._put([inputs.guidance_scale]), timesteps)
        with watch("subject"):
            tokens = self._subject(inputs.crops.to(self.device), timesteps)
        conditions = {
            "sigmas": self._put(sigmas),
            "true_cfg_scale": self._put([1.0]),
            "prompt_embeds": prompt,
            "subject_scale": self._put([inputs.subject_scale]),
            "rotary_emb_cos": self._put(cos),
            "rotary_emb_sin": self._put(sin),
        }
        channels = network.transformer.config.in_channels
        latents = self._put(gaussian_noise(inputs.seed, (1, rows, columns, channels)))
        numbers = [torch.tensor([step], device=self.device) for step in range(inputs.steps)]
        values: dict[str, Any] = conditions | {"latents": latents}
        if self.switches.cached:
            dim = network.transformer.inner_dim
            values["previous_head_residual"] = torch.zeros(
                1, rows * columns, dim, device=self.device
            )
        steps_ms, computed = [], 0
        for number, step in enumerate(numbers):
            with watch("denoise") as elapsed_ms:
                values |= {
                    "step": step,
                    "modulation": modulation(number),
                    "subject_embeds": tokens(number),
                }
                computed += self._step(values, number)
            steps_ms.append(elapsed_ms())
        with watch("decode"):
            picture = self._decoder(values["latents"])[0].cpu()
        return Timed(picture, watch.totals_ms, tuple(steps_ms), computed)

    def _modulations(
        self, pooled: Tensor, guidance: Tensor, timesteps: Tensor
    ) -> Callable[[int], Tensor]:
        """Returns modulations `[T, 1, A]` for a step; only that step's row has to be right."""

        def made(some: Tensor) -> Tensor:
            rows: Tensor = self._modulation(pooled, guidance, some)
            return rows

        return self._of_step(made, timesteps, at_once=self.switches.modulation)

    def _subject(self, crops: Tensor, timesteps: Tensor) -> Callable[[int], Tensor]:
        """Returns subject tokens `[T, N, D]` for a step; only that step's row has to be right."""
        network, switches = self.network, self.switches
        first, second = network.crop_encoders
        features = first(crops) + second(crops)
        hoisted = network.subject_projector(features) if switches.hoist else None

        def resampled(some: Tensor) -> Tensor:
            projected = network.subject_projector(features) if hoisted is None else hoisted
            return network.subject_resampler(projected, some)

        return self._of_step(resampled, timesteps, at_once=switches.batch)

    def _of_step(
        self, make: Callable[[Tensor], Tensor], timesteps: Tensor, *, at_once: bool
    ) -> Callable[[int], Tensor]:
        if at_once:
            every = make(timesteps)
            return lambda number: every
        return lambda number: make(timesteps[number : number + 1]).expand(len(timesteps), -1, -1)

    def _step(self, values: dict[str, Any], number: int) -> int:
        """Advance `latents` by one step; returns 1 if it was computed in full."""
        switches = self.switches
        if not switches.cached:
            names = [name for name in values if name != "previous_head_residual"]
            values["latents"] = self._whole(**{name: values[name] for name in names})
            return 1
        self._run("transformer_head", values)
        full = not values["change"].item() < switches.threshold  # read in either case
        if switches.share:
            full = int((number + 1) * switches.share) > int(number * switches.share) or number == 0
        if full:
            self._run("transformer_tail", values)
            values["previous_head_residual"] = values["head_residual"]
        self._run("transformer_finish", values)
        values["latents"] = values.pop("next_latents")
        return int(full)

    def _run(self, part: str, values: dict[str, Any]) -> None:
        graph = TABLE.graphs[part]
        found = self._parts[part](**{name: values[name] for name in graph.inputs})
        found = found if isinstance(found, tuple) else (found,)
        values |= dict(zip(graph.outputs, found, strict=True))

    def _compiled(self, module: nn.Module) -> Callable[..., Any]:
        mode = "max-autotune-no-cudagraphs" if torch.cuda.is_available() else None
        compiled: Callable[..., Any] = torch.compile(module.eval(), dynamic=False, mode=mode)
        return compiled

    def _put(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)


def _as_it_is(module: nn.Module) -> Callable[..., Any]:
    return module.eval()


class _Watch:
    """Milliseconds of each stage, until the device has finished its work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.totals_ms: dict[str, float] = {}

    def __call__(self, stage: str) -> _Stage:
        return _Stage(self, stage)

    def wait(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return 1000 * time.perf_counter()


class _Stage:
    def __init__(self, watch: _Watch, name: str) -> None:
        self._watch, self._name = watch, name
        self._started = self._ended = 0.0

    def __enter__(self) -> Callable[[], float]:
        self._started = self._watch.wait()
        return lambda: self._ended - self._started

    def __exit__(self, *failure: object) -> None:
        self._ended = self._watch.wait()
        totals = self._watch.totals_ms
        totals[self._name] = totals.get(self._name, 0.0) + self._ended - self._started

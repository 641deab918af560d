"""A loaded InstantCharacter: a request to conditions, clean latents to pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from castmate.defaults import CompleteRequest
from castmate.engines.base import Array, Runtime, Tensor
from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.constants import Constants
from castmate.families.instantcharacter.graphs import MATTE, TABLE
from castmate.families.instantcharacter.modulation import ModulationEncoder
from castmate.families.instantcharacter.prompt import PromptEncoder
from castmate.families.instantcharacter.schedule import (
    flow_match_sigmas,
    rotary_tables,
    timesteps_of,
)
from castmate.families.instantcharacter.styles import Styles
from castmate.families.instantcharacter.subject import SubjectEncoder
from castmate.families.instantcharacter.transformer import CachedTransformer, WholeTransformer
from castmate.images import Reference
from castmate.pipeline.cache import SizedCache
from castmate.pipeline.framing import Framer
from castmate.pipeline.matte import Matte
from castmate.pipeline.network import Encoded
from castmate.pipeline.safety import SafetyChecker
from castmate.pipeline.stopwatch import Stopwatch

_MODULATION = TABLE.graphs["modulation"]


def open_network(
    bundle: Bundle, runtime: Runtime, *, prompt_cache_bytes: int, subject_cache_bytes: int
) -> InstantCharacter:
    """See `castmate.pipeline.network.open_network`."""
    return InstantCharacter(bundle, runtime, prompt_cache_bytes, subject_cache_bytes)


class InstantCharacter:
    """See `castmate.pipeline.network.Network`."""

    def __init__(
        self, bundle: Bundle, runtime: Runtime, prompt_cache_bytes: int, subject_cache_bytes: int
    ) -> None:
        """See `open_network`."""
        self._runtime, self._constants = runtime, Constants.of(bundle.manifest)
        self._prompt_cache = SizedCache[Any](prompt_cache_bytes)
        self._prompts = PromptEncoder(bundle, runtime, self._prompt_cache)
        self._modulations = ModulationEncoder(runtime, self._prompt_cache)
        self._styles = Styles(bundle, runtime)
        self._caches_steps = bundle.has_step_caching
        graphs = bundle.manifest.graphs
        inputs = {name: graph.inputs for name, graph in graphs.items()}
        self.transformer = (
            CachedTransformer(runtime, inputs)
            if self._caches_steps
            else WholeTransformer(runtime, inputs)
        )
        self._vae_decoder = runtime.load("vae_decoder")
        self.safety = SafetyChecker(runtime, self._constants.safety_px)
        self._sizes = TABLE.sizes(inputs)
        self.matte = Matte(runtime, self._sizes["m"]) if MATTE in graphs else None
        self._framer = Framer(self.matte, self._constants.reference_margins)
        self._subjects = SubjectEncoder(bundle, runtime, self._framer, subject_cache_bytes)
        self._nothing: dict[tuple[int, ...], Tensor] = {}

    @property
    def framer(self) -> Framer:
        """See `castmate.pipeline.network.Network`."""
        return self._framer

    def encode(self, request: CompleteRequest, reference: Reference, watch: Stopwatch) -> Encoded:
        """Prompt, subject, schedule and positions."""
        constants, runtime = self._constants, self._runtime
        rows, columns = (
            -(-side // constants.pixels_per_token) for side in (request.height, request.width)
        )
        sigmas = flow_match_sigmas(request.num_inference_steps, rows * columns, constants.scheduler)
        timesteps = timesteps_of(sigmas)
        negative_prompt, ignored = _effective_negative_prompt(request)
        factors = dict(self._styles.factors(request.style))
        with watch("text"):
            prompt = self._prompts.encode(request.prompt, negative_prompt)
            of_modulation = {
                name: factors.pop(name) for name in _MODULATION.optional if name in factors
            }
            modulation = self._modulations.encode(
                prompt, request.guidance_scale, timesteps, request.style, of_modulation
            )
        with watch("subject"):
            subject = self._subjects.encode(reference, request.enable_matting, timesteps)
        num_tokens = self._prompts.num_tokens
        cos, sin = rotary_tables(
            constants.rope_axes_dim, num_tokens, rows, columns, constants.rope_square
        )
        conditions = {
            "sigmas": runtime.upload(sigmas),
            "true_cfg_scale": runtime.upload(_scalar(request.true_cfg_scale)),
            "prompt_embeds": prompt.prompt_embeds,
            "modulation": modulation,
            "subject_embeds": subject.tokens,
            "subject_scale": runtime.upload(_scalar(request.subject_scale)),
            "rotary_emb_cos": runtime.upload(cos),
            "rotary_emb_sin": runtime.upload(sin),
            **factors,
        }
        if self._caches_steps:
            passes = 2 if negative_prompt else 1
            conditions["previous_head_residual"] = self._zeros(passes, rows * columns)
        noise_shape = (1, rows, columns, constants.latent_channels)
        framing = self._framer.warnings(subject.framed, request.enable_matting)
        left_out = self._subjects.warnings(reference)
        warnings = ignored + prompt.warnings + left_out + framing
        return Encoded(noise_shape, conditions, warnings, subject.framed)

    def decode(self, latents: Tensor) -> Array:
        """See `castmate.pipeline.network.Network`."""
        return self._runtime.download(self._vae_decoder(latents=latents)["images"])

    def remember(self, reference: Reference) -> None:
        """See `castmate.pipeline.network.Network`."""
        self._subjects.remember(reference)

    def cache_counts(self) -> dict[str, tuple[int, int]]:
        """See `castmate.pipeline.network.Network`."""
        prompts = self._prompt_cache
        return {
            "prompt": (prompts.hits, prompts.misses),
            "subject": self._subjects.cache_counts(),
        }

    def _zeros(self, passes: int, tokens: int) -> Tensor:
        shape = (
            TABLE.graphs["transformer_head"]
            .inputs["previous_head_residual"]
            .sizes({**self._sizes, "P": passes, "N": tokens})
        )
        if shape not in self._nothing:  # kept: at full size it is an upload of 50 MB
            self._nothing = {shape: self._runtime.upload(np.zeros(shape, np.float32))}
        return self._nothing[shape]


def _effective_negative_prompt(request: CompleteRequest) -> tuple[str, tuple[str, ...]]:
    """The negative prompt if it changes the picture, else a warning.

    A scale of 1 mixes the two passes into the positive one, so a second pass would be wasted.
    """
    if not request.negative_prompt or request.true_cfg_scale != 1:
        return request.negative_prompt, ()
    return "", ("negative_prompt has no effect when true_cfg_scale is 1, so it was ignored.",)


def _scalar(value: float) -> NDArray[np.float32]:
    return np.array([value], np.float32)

"""A request's whole way through a bundle's graphs; knows neither queues nor files nor networks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from castmate.engines.base import Array, Runtime, Tensor
from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.schedule import flow_match_sigmas, rotary_tables
from castmate.families.instantcharacter.subject import SubjectEncoder
from castmate.images import Reference, encode
from castmate.pipeline.denoise import open_denoiser
from castmate.pipeline.noise import gaussian_noise, image_seeds
from castmate.pipeline.prompt import PromptEncoder
from castmate.pipeline.safety import SafetyChecker
from castmate.schema import MAX_SEED, Cache, GeneratedImage, GenerateRequest, GenerateResult

OnStep = Callable[[int, int], None]
"""Called before each denoise step with the steps done and the steps in all; may raise to stop."""

OnImage = Callable[[int, GeneratedImage, NDArray[np.uint8]], None]
"""Called with the number of each finished picture, the picture, and its pixels `[H, W, 3]`."""

MIB = 2**20


class Pipeline:
    """A loaded bundle; one request at a time, not thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        *,
        prompt_cache_mb: int = 64,
        subject_cache_mb: int = 512,
        cache: Cache = Cache.OFF,
    ) -> None:
        """Load every graph.

        Args:
            bundle: The model.
            runtime: What runs its graphs.
            prompt_cache_mb: Memory for encoded prompts, MiB.
            subject_cache_mb: Memory for encoded references, MiB.
            cache: Step caching of requests that leave it to us.

        Raises:
            BundleError: A graph cannot be loaded.
        """
        self.bundle = bundle
        self._runtime = runtime
        self._prompts = PromptEncoder(bundle, runtime, prompt_cache_mb * MIB)
        self._subjects = SubjectEncoder(bundle, runtime, subject_cache_mb * MIB)
        self._denoise = open_denoiser(bundle, runtime)
        self._cache = Cache.OFF if cache is Cache.AUTO else cache
        self._vae_decoder = runtime.load("vae_decoder")
        self._safety = SafetyChecker(bundle, runtime)
        self._steps = [
            runtime.upload(np.array([step], np.int64))
            for step in range(bundle.manifest.profile.steps.max)
        ]

    def cache_counts(self) -> dict[str, tuple[int, int]]:
        """Hits and misses of each cache since it was made."""
        return {"prompt": self._prompts.cache_counts(), "subject": self._subjects.cache_counts()}

    def remember(self, reference: Reference) -> None:
        """Encode a character now; its first picture then skips that."""
        self._subjects.remember(reference)

    def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_step: OnStep,
        on_image: OnImage | None = None,
    ) -> GenerateResult:
        """Make the pictures of a request, one after the other.

        One at a time, because a batch is not faster at these sizes and would make a picture depend
        on how many were asked for.

        Args:
            request: What to draw.
            reference: Whom to draw.
            on_step: Hears of every step.
            on_image: Hears of every picture as soon as it is finished.
        """
        spec, runtime, watch = self.bundle.manifest, self._runtime, Stopwatch()
        rows, columns = (
            -(-side // spec.pixels_per_token) for side in (request.height, request.width)
        )
        sigmas = flow_match_sigmas(request.num_inference_steps, rows * columns, spec.scheduler)
        with watch("text"):
            prompt = self._prompts.encode(request.prompt, request.negative_prompt)
        with watch("subject"):
            subject_embeds = self._subjects.encode(reference, sigmas)
        cos, sin = rotary_tables(spec.rope_axes_dim, self._prompts.num_tokens, rows, columns)
        conditions: Mapping[str, Tensor] = {
            "sigmas": runtime.upload(sigmas),
            "guidance": runtime.upload(_scalar(request.guidance_scale)),
            "true_cfg_scale": runtime.upload(_scalar(request.true_cfg_scale)),
            "prompt_embeds": prompt.prompt_embeds,
            "pooled_projections": prompt.pooled_projections,
            "subject_embeds": subject_embeds,
            "subject_scale": runtime.upload(_scalar(request.subject_scale)),
            "rotary_emb_cos": runtime.upload(cos),
            "rotary_emb_sin": runtime.upload(sin),
        }
        steps = self._steps[: request.num_inference_steps]
        total = len(steps) * request.num_images
        seeds = image_seeds(
            request.seed if request.seed >= 0 else secrets.randbelow(MAX_SEED + 1),
            request.num_images,
        )
        threshold, ignored = self._threshold(request)
        passes = 2 if request.negative_prompt else 1
        images, computed = [], 0
        for index, seed in enumerate(seeds):
            done = index * len(steps)
            noise = gaussian_noise(seed, (1, rows, columns, spec.latent_channels))
            with watch("denoise"):
                latents, full = self._denoise(
                    runtime.upload(noise),
                    steps,
                    conditions,
                    lambda step, done=done: on_step(done + step, total),  # type: ignore[misc]
                    rows=(passes, rows * columns),
                    threshold=threshold,
                )
                computed += full
            with watch("decode"):
                decoded = runtime.download(self._vae_decoder(latents=latents)["images"])
            image, shown = self._finish(request, seed, decoded, watch)
            images.append(image)
            if on_image is not None:
                on_image(index, image, shown)
        on_step(total, total)
        return GenerateResult(
            images=tuple(images),
            client="local",
            model=self.bundle.name,
            timings_ms=watch.totals_ms(),
            warnings=prompt.warnings + ignored + tuple(_flagged(images)),
            computed_steps=computed,
        )

    def _threshold(self, request: GenerateRequest) -> tuple[float, tuple[str, ...]]:
        """The change below which steps are not computed, and a warning where that cannot be."""
        cache = self._cache if request.cache is Cache.AUTO else request.cache
        if cache is Cache.OFF:
            return 0.0, ()
        if (spec := self.bundle.manifest.step_caching) is None:
            return 0.0, (
                f"Bundle {self.bundle.name!r} cannot skip steps, so cache {cache.value!r} did "
                "nothing and every step was computed. Export it with --step-caching, or leave "
                "`cache` off.",
            )
        return {Cache.BALANCED: spec.balanced, Cache.FAST: spec.fast}[cache], ()

    def _finish(
        self, request: GenerateRequest, seed: int, decoded: Array, watch: Stopwatch
    ) -> tuple[GeneratedImage, NDArray[np.uint8]]:
        picture = center_crop(decoded[0], request.width, request.height)
        flagged = False
        if request.enable_safety_checker:
            with watch("safety"):
                flagged = self._safety.flag(picture)
        with watch("encode"):
            shown = np.zeros_like(picture) if flagged else picture
            data = encode(shown, request.output_format)
        image = GeneratedImage(
            data, request.output_format, request.width, request.height, seed, flagged
        )
        return image, shown


class Stopwatch:
    """Milliseconds a stage, summed over a request."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._totals_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block as part of `stage`."""
        start = time.perf_counter()
        yield
        self._totals_s[stage] = self._totals_s.get(stage, 0.0) + time.perf_counter() - start

    def totals_ms(self) -> dict[str, float]:
        """Every stage so far, in order, and `total` since the beginning."""
        totals_s = self._totals_s | {"total": time.perf_counter() - self._start}
        return {stage: round(1000 * seconds, 3) for stage, seconds in totals_s.items()}


def center_crop(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The middle `height` x `width` pixels of a picture `[H, W, 3]` at least as large."""
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def _scalar(value: float) -> NDArray[np.float32]:
    return np.array([value], np.float32)


def _flagged(images: list[GeneratedImage]) -> Iterator[str]:
    for number, image in enumerate(images, 1):
        if image.has_nsfw:
            yield (
                f"The safety checker flagged picture {number}; it is replaced by a black one. "
                "Change the prompt or the seed."
            )

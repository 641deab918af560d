"""From a request to its pictures; knows neither queues nor files nor model families."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from castmate.defaults import CompleteRequest, beyond_limits
from castmate.engines.base import Array, Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.residency import Residency
from castmate.errors import Incapable
from castmate.images import Reference, encode
from castmate.pipeline.candidates import Drawn, choose, is_enough, warning
from castmate.pipeline.cutout import cut_out
from castmate.pipeline.denoise import denoise
from castmate.pipeline.framing import Framer
from castmate.pipeline.identity import Identity, no_identity
from castmate.pipeline.network import open_network
from castmate.pipeline.noise import gaussian_noise, image_seeds
from castmate.pipeline.stopwatch import Stopwatch
from castmate.schema import (
    MAX_SEED,
    Background,
    Cache,
    GeneratedImage,
    GenerateRequest,
    GenerateResult,
)
from castmate.styles import check_style

OnStep = Callable[[int, int], None]
"""Called before each denoise step with the steps done and their total; may raise to stop."""

OnImage = Callable[[GeneratedImage], None]
"""Called with each picture as soon as it is finished."""

MIB = 2**20


class Pipeline:
    """A loaded bundle; one request at a time, not thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        *,
        prompt_cache_mb: int = 256,
        subject_cache_mb: int = 512,
        cache: Cache = Cache.OFF,
        identity: bool = True,
    ) -> None:
        """Load every graph.

        Args:
            bundle: The model.
            runtime: What runs its graphs.
            prompt_cache_mb: Memory for encoded prompts and their modulations, MiB.
            subject_cache_mb: Memory for encoded references, MiB.
            cache: Step caching for requests that do not set it.
            identity: Whether to judge every picture, if the bundle can.

        Raises:
            BundleError: A graph cannot be loaded.
        """
        self.bundle, self._sha256 = bundle, bundle.sha256
        self._runtime = runtime
        self._network = open_network(
            bundle,
            runtime,
            prompt_cache_bytes=prompt_cache_mb * MIB,
            subject_cache_bytes=subject_cache_mb * MIB,
        )
        self._identity = Identity.open(bundle, runtime, self._network.matte) if identity else None
        self.no_identity = "" if self._identity else no_identity(bundle, asked=identity)
        self._cache = Cache.OFF if cache is Cache.AUTO else cache
        self._steps = [
            runtime.upload(np.array([step], np.int64))
            for step in range(bundle.manifest.profile.steps.max)
        ]

    def cache_counts(self) -> dict[str, tuple[int, int]]:
        """Hits and misses of each cache since it was made."""
        return self._network.cache_counts()

    @property
    def residency(self) -> Residency | None:
        """Which graphs stay on the GPU; None without a GPU, or if the runtime does not plan it."""
        found: Residency | None = getattr(self._runtime, "residency", None)
        return found

    @property
    def framer(self) -> Framer:
        """Finds the character in a reference, just as generation does."""
        return self._network.framer

    def remember(self, reference: Reference) -> None:
        """Encode a character now, so that its first picture skips that."""
        self._network.remember(reference)

    def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_step: OnStep,
        on_image: OnImage | None = None,
    ) -> GenerateResult:
        """Draw the pictures of a request, one after the other.

        One at a time, because a batch is not faster at these sizes and would make a picture depend
        on how many were requested.

        Args:
            request: What to draw.
            reference: The character, in one picture or several.
            on_step: Called before every step.
            on_image: Called with every picture as soon as it is finished; if the request chooses,
                with the chosen ones at the end.

        Raises:
            InvalidRequest: The bundle has no such style.
            Incapable: The request chooses, but nothing here can judge; or it wants a transparent
                background, but the bundle has no matte graph.
        """
        self._check_graphs(request)
        watch = Stopwatch()
        complete, notes = self._completed(request)
        encoded = self._network.encode(complete, reference, watch)
        strangers = self._strangers(reference, watch)
        threshold, ignored = self._threshold(request)
        steps = self._steps[: complete.num_inference_steps]
        total = len(steps) * request.most_drawn
        first = request.seed if request.seed >= 0 else secrets.randbelow(MAX_SEED + 1)
        drawn: list[Drawn] = []
        images: list[GeneratedImage] = []
        computed, unseen = 0, list[str]()

        def give(one: Drawn) -> None:
            pixels = one.picture
            if request.background is Background.TRANSPARENT and not one.flagged:
                with watch("matte"):
                    pixels = self._without_background(pixels, unseen)
            with watch("encode"):
                images.append(_encoded(request, one, pixels))
            if on_image is not None:
                on_image(images[-1])

        for index, seed in enumerate(image_seeds(first, request.most_drawn)):
            done = index * len(steps)
            noise = gaussian_noise(seed, encoded.noise_shape)
            with watch("denoise"):
                latents, full = denoise(
                    self._network.transformer,
                    self._runtime.upload(noise),
                    steps,
                    encoded.conditions,
                    lambda step, done=done: on_step(done + step, total),  # type: ignore[misc]
                    threshold,
                )
                computed += full
            with watch("decode"):
                decoded = self._network.decode(latents)
            drawn.append(self._judged(request, reference, seed, decoded, watch))
            if not request.chooses:
                give(drawn[-1])
            elif is_enough(request, drawn):
                break
        selection = None
        if request.chooses:
            chosen, selection = choose(request, drawn)
            for one in chosen:
                give(one)
            notes += warning(request, selection)
        on_step(total, total)
        return GenerateResult(
            images=tuple(images),
            client="local",
            model=self.bundle.name,
            timings_ms=watch.totals_ms(),
            warnings=encoded.warnings + strangers + notes + ignored + (*_flagged(images), *unseen),
            computed_steps=computed,
            drawn_with=complete.drawn_with,
            reference=encoded.reference,
            no_identity=self.no_identity,
            selection=selection,
            model_hash=self._sha256,
        )

    def _check_graphs(self, request: GenerateRequest) -> None:
        """Refuse what needs a graph that is not here.

        Raises:
            Incapable: See `generate`.
        """
        if request.chooses and self._identity is None:
            raise Incapable(
                f"Candidates cannot be judged here: {self.no_identity} Nothing was drawn. Leave "
                "num_candidates and min_identity out."
            )
        if request.background is Background.TRANSPARENT and self._network.matte is None:
            raise Incapable(
                f"Bundle {self.bundle.name!r} has no matte graph, so it draws no transparent "
                "background; nothing was drawn. Set `background` to scene, or export the bundle "
                "with a matte."
            )

    def _completed(self, request: GenerateRequest) -> tuple[CompleteRequest, tuple[str, ...]]:
        """The completed request, within the bundle's step limit, and warnings about it.

        Raises:
            InvalidRequest: The bundle has no such style.
        """
        manifest, most = self.bundle.manifest, len(self._steps)
        check_style(request.style, manifest.style_names, self.bundle.name)
        notes = tuple(beyond_limits(request, self.bundle.name, manifest.defaults, manifest.limits))
        complete = CompleteRequest.of(request, manifest.defaults)
        if (asked := complete.num_inference_steps) <= most:
            return complete, notes
        return complete.model_copy(update={"num_inference_steps": most}), (
            f"Bundle {self.bundle.name!r} draws in at most {most} steps, so {most} were taken and "
            f"not {asked}.",
            *notes,
        )

    def _strangers(self, reference: Reference, watch: Stopwatch) -> tuple[str, ...]:
        """A warning if the pictures of a character seem to show different characters."""
        if self._identity is None or len(reference.pictures) < 2:
            return ()
        with watch("identity"):
            found = self._identity.strangers(reference)
        if not found:
            return ()
        if len(found) == len(reference.pictures):
            finding = "The pictures of the character are not alike: they may show different ones."
        else:
            which = "pictures" if len(found) > 1 else "picture"
            finding = (
                f"The character's {which} {' and '.join(map(str, found))} may show somebody else "
                "than the others."
            )
        return (f"{finding} Draw from one picture, or save the character without the wrong ones.",)

    def _threshold(self, request: GenerateRequest) -> tuple[float, tuple[str, ...]]:
        """The change below which steps are skipped, and a warning if the bundle cannot skip."""
        cache, spec = request.cache, self.bundle.manifest.step_caching
        if cache is Cache.AUTO:
            cache = self._cache if spec is None or spec.by_default else Cache.OFF
        if cache is Cache.OFF:
            return 0.0, ()
        if spec is None:
            return 0.0, (
                f"Bundle {self.bundle.name!r} cannot skip steps, so cache {cache.value!r} did "
                "nothing and every step was computed. Export it with --step-caching, or leave "
                "`cache` off.",
            )
        return {Cache.BALANCED: spec.balanced, Cache.FAST: spec.fast}[cache], ()

    def _without_background(
        self, picture: NDArray[np.uint8], unseen: list[str]
    ) -> NDArray[np.uint8]:
        """The character of a picture alone, or the whole picture if no character is found."""
        matte = self._network.matte
        found = cut_out(picture, matte) if matte is not None else None
        if found is not None:
            return found
        unseen.append(
            "No character was found in a picture, so it keeps its background. Change the prompt or "
            "the seed; a plain background helps."
        )
        return picture

    def _judged(
        self,
        request: GenerateRequest,
        reference: Reference,
        seed: int,
        decoded: Array,
        watch: Stopwatch,
    ) -> Drawn:
        """A picture, black if it was flagged, and how close its character is."""
        picture = center_crop(decoded[0], request.width, request.height)
        flagged, identity, safety = False, None, self._network.safety
        if request.enable_safety_checker and safety is not None:
            with watch("safety"):
                flagged = safety.flag(picture)
        if flagged:
            return Drawn(seed, np.zeros_like(picture), flagged, None)
        if self._identity is not None:
            with watch("identity"):
                identity = self._identity.score(picture, reference)
        return Drawn(seed, picture, flagged, identity)


def center_crop(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The middle `height` x `width` pixels of a picture `[H, W, 3]` at least as large."""
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def _encoded(request: GenerateRequest, one: Drawn, pixels: NDArray[np.uint8]) -> GeneratedImage:
    return GeneratedImage(
        data=encode(pixels, request.output_format),
        output_format=request.output_format,
        width=request.width,
        height=request.height,
        seed=one.seed,
        has_nsfw=one.flagged,
        identity=one.identity,
    )


def _flagged(images: list[GeneratedImage]) -> Iterator[str]:
    for number, image in enumerate(images, 1):
        if image.has_nsfw:
            yield (
                f"The safety checker flagged picture {number}; it is replaced by a black one. "
                "Change the prompt or the seed."
            )

"""Opens the bundle of the settings on this machine."""

from __future__ import annotations

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.choose import open_runtime
from castmate.engines.digests import Digests
from castmate.engines.residency import Share
from castmate.pipeline.pipeline import MIB, Pipeline
from castmate.schema import Cache
from castmate.settings import Settings


def open_bundle(settings: Settings) -> Bundle:
    """Find the bundle that the settings name; its files are hashed once, not at every start.

    Raises:
        BundleError: It cannot be used; gives the reason.
    """
    return Bundle.open(settings.bundle, Digests(settings.data_dir / "digests.json"))


def open_pipeline(
    bundle: Bundle, settings: Settings, *, device: int | None = None, instances: int = 1
) -> Pipeline:
    """Load a bundle.

    Args:
        bundle: From `open_bundle`.
        settings: This machine's.
        device: Number of the GPU; by default the settings'.
        instances: How many pipelines share that GPU.

    Raises:
        BundleError: It cannot be used, with the reason.
        Unavailable: The GPU has too little memory left.
    """
    return Pipeline(
        bundle,
        runtime_of(bundle, settings, device=device, instances=instances),
        prompt_cache_mb=settings.prompt_cache_mb,
        subject_cache_mb=settings.subject_cache_mb,
        cache=Cache(settings.cache),
        identity=settings.identity == "on",
    )


def runtime_of(
    bundle: Bundle,
    settings: Settings,
    *,
    device: int | None = None,
    instances: int = 1,
    prove: bool = True,
) -> Runtime:
    """Open the runtime of a bundle's graphs; raises the same errors as `open_pipeline`.

    Args:
        bundle: From `open_bundle`.
        settings: This machine's.
        device: Number of the GPU; by default the settings'.
        instances: How many runtimes share that GPU.
        prove: See `castmate.engines.choose.open_runtime`.
    """
    share = Share(
        settings.device if device is None else device,
        instances,
        settings.gpu_memory,
        cache_bytes(settings),
    )
    return open_runtime(
        bundle,
        threads=settings.threads,
        share=share,
        data_dir=settings.data_dir,
        prove=prove,
    )


def cache_bytes(settings: Settings) -> int:
    """Device memory that encoded prompts and references may take."""
    return (settings.prompt_cache_mb + settings.subject_cache_mb) * MIB

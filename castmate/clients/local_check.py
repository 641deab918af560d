"""Checks drawing in this process for `castmate doctor`: the bundle, and one step."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from castmate.clients.base import Check
from castmate.clients.local import LocalClient
from castmate.engines.bundle import Bundle
from castmate.engines.licences import in_short
from castmate.errors import BundleError
from castmate.images import Reference, encode
from castmate.schema import GenerateRequest, OutputFormat
from castmate.settings import Settings


async def check(settings: Settings) -> Sequence[Check]:
    """Check every file of the bundle, then draw with it."""
    bundle = _bundle(settings)
    return [bundle, await _drawing(settings)] if bundle.ok else [bundle]


def _bundle(settings: Settings) -> Check:
    try:
        bundle = Bundle.open(settings.bundle)
        bundle.check()
    except BundleError as error:
        return Check("bundle", False, settings.bundle, str(error))
    manifest = bundle.manifest
    found = f"{bundle.name} ({manifest.engine}, {manifest.precision}) in {bundle.path}; "
    found += f"licence: {in_short(manifest.licences)}; by default {manifest.defaults.in_words}"
    found += f"; styles: {', '.join(manifest.style_names)}" if manifest.styles else ""
    return Check("bundle", True, found)


async def _drawing(settings: Settings) -> Check:
    """Take one denoise step of the smallest picture, which runs every graph."""
    request = GenerateRequest.parse(
        {"prompt": "a test", "image": "-", "size": "512*512", "num_inference_steps": 1}
    )
    grey = encode(np.full((64, 64, 3), 128, np.uint8), OutputFormat.PNG)
    start = time.perf_counter()
    try:
        client = LocalClient.open(settings)
    except BundleError as error:
        return Check("drawing", False, "the model does not load", str(error))
    try:
        loaded = time.perf_counter()
        result = await client.generate(request, Reference.from_bytes(grey, "the test picture"))
    finally:
        await client.aclose()
    seconds = result.timings_ms["total"] / 1000
    return Check(
        "drawing",
        True,
        f"{result.client} loads in {loaded - start:.1f} s and takes a step in {seconds:.1f} s",
    )

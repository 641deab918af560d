"""Pictures with step caching, as a user asks for them, on a bundle that can and one that cannot."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from castmate.clients.local import LocalClient
from castmate.engines.bundle import Bundle, locate
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.errors import InvalidRequest
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import Cache, GenerateRequest, GenerateResult
from castmate.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the first exports two bundles
STEPS = 12


@pytest.fixture(scope="module")
def pipeline(cached_bundle: Bundle) -> Pipeline:
    return Pipeline(cached_bundle, OnnxRuntime(cached_bundle, threads=1))


def draw(pipeline: Pipeline, **values: Any) -> GenerateResult:
    quick = {"prompt": "hi", "image": "-", "size": "512*512", "seed": 7}
    request = GenerateRequest.parse(quick | {"num_inference_steps": STEPS} | values)
    path = locate("toon") / "references/mira.png"
    reference = Reference.from_bytes(path.read_bytes(), path.name)
    return pipeline.generate(request, reference, lambda done, total: None)


def difference(some: GenerateResult, other: GenerateResult) -> float:
    """Mean absolute difference of the first pictures, of 255."""
    first, second = (
        np.asarray(Image.open(io.BytesIO(result.images[0].data)), float) for result in (some, other)
    )
    return float(np.abs(first - second).mean())


def test_the_three_parts_draw_the_picture_of_the_whole(
    pipeline: Pipeline, bundle_folder: Path
) -> None:
    bundle = Bundle.open(bundle_folder)
    whole = draw(Pipeline(bundle, OnnxRuntime(bundle, threads=1)))
    parts = draw(pipeline)
    assert whole.computed_steps == parts.computed_steps == STEPS
    assert difference(whole, parts) < 0.01


def test_a_larger_threshold_computes_fewer_steps_and_differs_more(pipeline: Pipeline) -> None:
    off, balanced, fast = (draw(pipeline, cache=cache) for cache in ("off", "balanced", "fast"))
    assert off.computed_steps == STEPS
    assert balanced.computed_steps is not None
    assert fast.computed_steps is not None
    assert 1 <= fast.computed_steps < balanced.computed_steps < STEPS
    assert 0 < difference(off, balanced) < difference(off, fast)
    assert balanced.warnings == fast.warnings == off.warnings


def test_a_cached_picture_can_be_made_again_and_every_picture_starts_afresh(
    pipeline: Pipeline,
) -> None:
    both = draw(pipeline, cache="fast", num_images=2)
    again = [draw(pipeline, cache="fast", seed=seed) for seed in (7, 8)]
    assert [image.data for image in both.images] == [one.images[0].data for one in again]
    assert both.computed_steps == sum(one.computed_steps or 0 for one in again)


def test_step_caching_works_with_a_negative_prompt_and_after_another_size(
    pipeline: Pipeline,
) -> None:
    options = {"cache": "balanced", "negative_prompt": "no", "num_inference_steps": 6}
    before = draw(pipeline, **options)
    draw(pipeline, **options | {"size": "640*512"})
    assert draw(pipeline, **options).images == before.images
    assert 1 <= (before.computed_steps or 0) <= 6


def test_a_request_that_does_not_choose_gets_what_the_server_is_set_to(
    cached_bundle: Bundle, pipeline: Pipeline
) -> None:
    runtime = OnnxRuntime(cached_bundle, threads=1)
    fast = Pipeline(cached_bundle, runtime, cache=Cache.FAST)
    assert draw(fast).images == draw(pipeline, cache="fast").images
    assert draw(fast, cache="off").computed_steps == STEPS


@pytest.fixture
def client(cached_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalClient]:
    monkeypatch.setenv("CASTMATE_CACHE", "fast")
    opened = LocalClient.open(Settings.load(bundle=str(cached_bundle.path), threads=1))
    yield opened
    asyncio.run(opened.aclose())


def test_the_setting_reaches_the_embedded_client(client: LocalClient) -> None:
    path = locate("toon") / "references/mira.png"
    reference = Reference.from_bytes(path.read_bytes(), path.name)
    values = {"prompt": "hi", "image": "-", "size": "512*512", "num_inference_steps": STEPS}
    result = asyncio.run(client.generate(GenerateRequest.parse(values), reference))
    assert result.computed_steps is not None
    assert result.computed_steps < STEPS


def test_a_bundle_that_cannot_skip_steps_computes_them_and_says_so(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    pipeline = Pipeline(bundle, OnnxRuntime(bundle, threads=1))
    exact, asked = (draw(pipeline, cache=cache) for cache in ("off", "fast"))
    assert asked.images == exact.images
    assert asked.computed_steps == STEPS
    assert exact.warnings == asked.warnings[:-1]
    assert "cache 'fast' did nothing" in asked.warnings[-1]
    assert "--step-caching" in asked.warnings[-1]


def test_an_unknown_mode_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"`cache`.*auto, off, balanced, fast"):
        GenerateRequest.parse({"prompt": "a", "image": "b", "cache": "quick"})

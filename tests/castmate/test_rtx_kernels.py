"""TensorRT-RTX compiles kernels on the user's machine: at once, and once for all processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castmate.engines.bundle import Bundle
from castmate.engines.tensorrt import TensorRTRuntime
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from tests.gpu_double import Card, install, plan_bundle_of, tensorrt


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> list[tensorrt.RuntimeCache]:
    """Every cache that contexts were made with."""
    made: list[tensorrt.RuntimeCache] = []
    real = tensorrt.Context.__init__

    def recorded(self: tensorrt.Context, engine: Any, config: Any) -> None:
        strategies = tensorrt.DynamicShapesKernelSpecializationStrategy
        assert config.dynamic_shapes_kernel_specialization_strategy is strategies.EAGER
        made.append(config.cache)
        real(self, engine, config)

    monkeypatch.setattr(tensorrt.Context, "__init__", recorded)
    return made


def test_compiled_kernels_are_kept_for_the_next_process_and_none_are_compiled_lazily(
    tmp_path: Path,
    caches: list[tensorrt.RuntimeCache],
    make_request: Callable[..., GenerateRequest],
    character: Callable[[str], Reference],
) -> None:
    bundle = plan_bundle_of(Bundle.open("toon"), tmp_path / "plans")
    folder = tmp_path / "state/kernels"
    with install(Card()):
        pipeline = Pipeline(bundle, TensorRTRuntime(bundle, kernels=folder))
        request = make_request(enable_matting=True)  # so that every graph runs
        pipeline.generate(request, character("mira"), lambda done, total: None)
        del pipeline
    compiled = [cache.kernels for cache in caches]
    assert all(compiled)
    assert len(list(folder.iterdir())) == len(bundle.manifest.graphs)
    caches.clear()
    with install(Card()):
        pipeline = Pipeline(bundle, TensorRTRuntime(bundle, kernels=folder))
        assert [cache.kernels for cache in caches] == compiled
        del pipeline


def test_kernels_of_another_driver_are_not_used(
    tmp_path: Path, caches: list[tensorrt.RuntimeCache]
) -> None:
    bundle = plan_bundle_of(Bundle.open("toon"), tmp_path / "plans")
    folder = tmp_path / "kernels"
    folder.mkdir()
    for name in bundle.manifest.graphs:
        plan = next(bundle.path.glob(f"{name}.plan"))
        digest = hashlib.sha256(plan.read_bytes()).hexdigest()[:16]
        stored = {"driver": "470", "kernels": ["old"]}
        (folder / f"{name}-{digest}-0.kernels").write_text(json.dumps(stored))
    with install(Card()):
        pipeline = Pipeline(bundle, TensorRTRuntime(bundle, kernels=folder))
        assert [cache.accepted for cache in caches] == [False] * len(bundle.manifest.graphs)
        assert not any(cache.kernels for cache in caches)
        del pipeline


def test_a_folder_that_cannot_be_made_is_no_error(
    tmp_path: Path,
    make_request: Callable[..., GenerateRequest],
    character: Callable[[str], Reference],
) -> None:
    bundle = plan_bundle_of(Bundle.open("toon"), tmp_path / "plans")
    (tmp_path / "file").write_text("not a folder")
    with install(Card()):
        pipeline = Pipeline(bundle, TensorRTRuntime(bundle, kernels=tmp_path / "file/kernels"))
        pipeline.generate(make_request(), character("mira"), lambda done, total: None)
        del pipeline

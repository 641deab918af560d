"""A file is hashed once for as long as it is the same."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from castmate.engines import digests
from castmate.engines.bundle import Bundle
from castmate.engines.digests import Digests
from castmate.engines.tensorrt import TensorRTRuntime
from castmate.errors import BundleCorrupt
from castmate.pipeline.pipeline import Pipeline
from tests.gpu_double import Card, install, plan_bundle_of


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to be hashed."""
    names: list[str] = []
    real = digests.sha256_of

    def recorded(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(digests, "sha256_of", recorded)
    return names


def test_a_file_is_read_again_only_after_it_has_changed(tmp_path: Path, hashed: list[str]) -> None:
    path, store = tmp_path / "weights", tmp_path / "state/digests.json"
    path.write_bytes(b"one")
    assert Digests(store).of(path) == Digests(store).of(path) == hashlib.sha256(b"one").hexdigest()
    assert hashed == ["weights"]
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert Digests(store).of(path) == hashlib.sha256(b"two").hexdigest()
    assert hashed == ["weights", "weights"]


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b'{"a": 1}', b"\xff"])
def test_a_store_that_cannot_be_read_costs_time_and_nothing_else(
    tmp_path: Path, content: bytes
) -> None:
    path, store = tmp_path / "weights", tmp_path / "digests.json"
    path.write_bytes(b"one")
    store.write_bytes(content)
    assert Digests(store).of(path) == hashlib.sha256(b"one").hexdigest()
    assert hashlib.sha256(b"one").hexdigest() in json.loads(store.read_bytes()).values()


def test_plans_are_read_once_by_the_first_start_and_not_at_all_by_the_next(
    tmp_path: Path, hashed: list[str]
) -> None:
    path = plan_bundle_of(Bundle.open("toon"), tmp_path / "plans").path
    hashed.clear()
    for _ in range(2):
        with install(Card()):
            bundle = Bundle.open(path, Digests(tmp_path / "digests.json"))
            pipeline = Pipeline(bundle, TensorRTRuntime(bundle))
            del pipeline
    assert len(hashed) == len(set(hashed))
    assert "transformer_tail.plan" in hashed


def test_a_check_of_the_bundle_reads_every_file_whatever_is_remembered(tmp_path: Path) -> None:
    path = plan_bundle_of(Bundle.open("toon"), tmp_path / "plans").path
    bundle = Bundle.open(path, Digests(tmp_path / "digests.json"))
    bundle.check()
    plan = path / "vae_decoder.plan"
    before = plan.stat()
    plan.write_bytes(b"X" + plan.read_bytes()[1:])
    os.utime(plan, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BundleCorrupt, match=r"vae_decoder\.plan was changed"):
        bundle.check()

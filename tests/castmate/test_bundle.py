"""A bundle that does not fit is refused with the reason, before any of it runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castmate.clients.local import LocalClient
from castmate.engines.bundle import Bundle, locate, shipped
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.errors import BundleCorrupt, BundleMismatch, BundleNotFound
from castmate.families.instantcharacter.graphs import PARTS
from castmate.settings import Settings


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of `toon` to spoil."""
    return Path(shutil.copytree(locate("toon"), tmp_path / "toon"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_the_shipped_bundle_opens_by_name_and_every_file_is_what_its_manifest_says() -> None:
    assert "toon" in shipped()
    bundle = Bundle.open("toon")
    bundle.check()
    assert bundle.name == "toon"


def test_a_bundle_opens_by_path(copy: Path) -> None:
    assert Bundle.open(copy).path == copy
    assert Bundle.open(str(copy)).manifest == Bundle.open("toon").manifest


def test_an_unknown_name_is_answered_with_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match=r"'nowhere'.*toon"):
        Bundle.open("nowhere")
    with pytest.raises(BundleNotFound, match=r"bundle\.json"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("name", ["subject_projector.onnx", "tokenizer.json", "vae_decoder.onnx"])
def test_one_changed_byte_refuses_the_bundle_and_names_the_file(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleCorrupt, match=rf"{name} was changed.*again"):
        LocalClient.open(Settings.load(bundle=str(copy)))


def in_parts(*names: str) -> Callable[[dict[str, Any]], None]:
    """Leaves a manifest some parts of the transformer, with thresholds."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["step_caching"] = {"balanced": 0.1, "fast": 0.2, "chosen_on": "nothing"}
        for name in set(PARTS) - set(names):
            del manifest["graphs"][name]

    return change


def test_a_bundle_may_hold_the_transformer_in_the_parts_of_step_caching(copy: Path) -> None:
    edit(copy, in_parts(*PARTS))
    assert Bundle.open(copy).has_step_caching


def test_thresholds_of_step_caching_are_positive(copy: Path) -> None:
    edit(copy, in_parts(*PARTS))
    edit(copy, lambda manifest: manifest["step_caching"].update(fast=0))
    with pytest.raises(BundleCorrupt, match=r"`step_caching\.fast`.*greater than 0"):
        Bundle.open(copy)


def test_a_bundle_with_some_of_the_parts_is_refused(copy: Path) -> None:
    edit(copy, in_parts("transformer_head", "transformer_tail"))
    with pytest.raises(BundleMismatch, match="no graph 'transformer_finish'"):
        Bundle.open(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "image_encoder.onnx").unlink()
    with pytest.raises(BundleCorrupt, match=r"image_encoder\.onnx is missing"):
        Bundle.open(copy).check()


def test_another_format_is_refused_with_the_version_that_made_it(copy: Path) -> None:
    def newer(manifest: dict[str, Any]) -> None:
        manifest["format"] = 99
        manifest["created_with"]["castmate"] = "7.0"

    edit(copy, newer)
    with pytest.raises(BundleMismatch, match=r"format 99.*reads format 3.*7\.0"):
        Bundle.open(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"'])
def test_an_unreadable_manifest_is_corrupt(copy: Path, content: str) -> None:
    (copy / "bundle.json").write_text(content)
    with pytest.raises(BundleCorrupt, match=r"bundle\.json cannot be read"):
        Bundle.open(copy)


def test_a_manifest_without_a_field_names_it(copy: Path) -> None:
    edit(copy, lambda manifest: manifest["constants"].pop("crop_px"))
    with pytest.raises(BundleCorrupt, match=r"`constants\.crop_px`"):
        Bundle.open(copy)


def test_a_missing_graph_is_named(copy: Path) -> None:
    edit(copy, lambda manifest: manifest["graphs"].pop("safety_checker"))
    with pytest.raises(BundleMismatch, match="no graph 'safety_checker'"):
        Bundle.open(copy)


def test_a_graph_with_other_tensors_than_the_code_binds_is_refused(copy: Path) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        inputs = manifest["graphs"]["vae_decoder"]["inputs"]
        inputs["hidden_states"] = inputs.pop("latents")

    edit(copy, rename)
    with pytest.raises(BundleMismatch, match=r"'vae_decoder'.*hidden_states.*binds latents"):
        Bundle.open(copy)


def test_a_bundle_for_another_engine_is_refused(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(engine="tensorrt"))
    with pytest.raises(BundleMismatch, match="for engine 'tensorrt', not 'onnxruntime'"):
        OnnxRuntime(Bundle.open(copy))


def test_a_file_that_is_no_graph_is_refused_although_its_hash_fits(copy: Path) -> None:
    (copy / "text_encoder.onnx").write_bytes(b"no graph")

    def rehash(manifest: dict[str, Any]) -> None:
        import hashlib

        (part,) = manifest["graphs"]["text_encoder"]["files"]
        part["sha256"] = hashlib.sha256(b"no graph").hexdigest()

    edit(copy, rehash)
    with pytest.raises(BundleMismatch, match="cannot load graph 'text_encoder'"):
        OnnxRuntime(Bundle.open(copy)).load("text_encoder")

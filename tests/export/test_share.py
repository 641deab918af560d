"""Bundles side by side keep what they have in common once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from castmate.engines.bundle import Bundle, locate
from castmate.engines.manifest import MANIFEST
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.errors import BundleCorrupt
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from export.errors import ExportError
from export.samples import REFERENCES
from export.share import main, share

OWN = "transformer_finish.onnx"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(locate("toon"), tmp_path / "toon"))


@pytest.fixture
def variant(base: Path, tmp_path: Path) -> Path:
    """Another bundle beside it, with one graph of its own and other defaults."""
    folder = Path(shutil.copytree(base, tmp_path / "toon-2"))
    (folder / OWN).write_bytes((folder / OWN).read_bytes() + b"\x12\x01x")  # another producer
    data = Bundle.open(folder).digests.of(folder / OWN)

    def change(manifest: dict[str, Any]) -> None:
        manifest["name"] = "toon-2"
        manifest["defaults"]["num_inference_steps"] = 2
        (file,) = manifest["graphs"]["transformer_finish"]["files"]
        file |= {"sha256": data, "num_bytes": (folder / OWN).stat().st_size}

    edit(folder, change)
    return folder


def edit(folder: Path, change: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def draw(folder: Path) -> bytes:
    bundle = Bundle.open(folder)
    pipeline = Pipeline(bundle, OnnxRuntime(bundle))
    asked = {"prompt": "waving", "image": "-", "size": "512*512", "seed": 7}
    request = GenerateRequest.parse(asked)
    reference = Reference.from_bytes((REFERENCES / "mira.png").read_bytes(), "mira")
    return pipeline.generate(request, reference, lambda *_: None).images[0].data


def test_a_bundle_draws_the_same_with_the_files_of_its_base(variant: Path, base: Path) -> None:
    before = draw(variant)
    freed = share(Bundle.open(variant), Bundle.open(base))
    assert {path.name for path in variant.iterdir() if path.is_file()} == {MANIFEST, OWN}
    assert freed > 0.9 * sum(path.stat().st_size for path in base.iterdir())
    Bundle.open(variant).check()
    assert draw(variant) == before
    assert Bundle.open(variant).manifest.defaults.num_inference_steps == 2


def test_what_the_base_lost_or_changed_is_named(variant: Path, base: Path) -> None:
    share(Bundle.open(variant), Bundle.open(base))
    (base / "vae_decoder.onnx").write_bytes(b"another")
    with pytest.raises(BundleCorrupt, match=r"toon/vae_decoder\.onnx was changed"):
        Bundle.open(variant).check()
    shutil.rmtree(base)
    with pytest.raises(BundleCorrupt, match=r"toon/.* is missing"):
        Bundle.open(variant).check()


def test_bundles_that_cannot_share_are_refused_and_lose_nothing(
    variant: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = Path(shutil.copytree(base, tmp_path / "far/toon"))
    stranger = Path(shutil.copytree(base, tmp_path / "stranger"))
    edit(stranger, lambda manifest: _forget_hashes(manifest))
    for other, why in ((far, "Put them into one folder"), (stranger, "no file in common")):
        assert main([str(variant), str(other)]) == 1
        assert why in capsys.readouterr().err
    with pytest.raises(ExportError, match="Put them into one folder"):
        share(Bundle.open(variant), Bundle.open(variant))
    Bundle.open(variant).check()
    assert Bundle.open(variant).manifest.base is None
    assert main([str(variant), str(base)]) == 0
    with pytest.raises(ExportError, match="takes files from 'toon'"):
        share(Bundle.open(stranger), Bundle.open(variant))


def _forget_hashes(part: Any) -> None:
    if isinstance(part, dict):
        if "sha256" in part:
            part["sha256"] = "0" * 64
        for value in part.values():
            _forget_hashes(value)
    elif isinstance(part, list):
        for value in part:
            _forget_hashes(value)


def test_a_damaged_base_is_not_shared(variant: Path, base: Path) -> None:
    (base / "vae_decoder.onnx").write_bytes(b"another")
    with pytest.raises(BundleCorrupt, match="was changed"):
        share(Bundle.open(variant), Bundle.open(base))
    Bundle.open(variant).check()


@pytest.mark.parametrize("name", ["..", ".", "", "../toon", "/etc", "a\\b"])
def test_a_base_is_a_folder_beside_the_bundle_and_nowhere_else(variant: Path, name: str) -> None:
    edit(variant, lambda manifest: manifest.update(base=name))
    with pytest.raises(BundleCorrupt, match=r"`base`.*not the name of a folder"):
        Bundle.open(variant)

"""A second family is a folder on each side: exported, opened, drawn with and built unchanged."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import castmate.families
import export.families
from castmate.clients.local import LocalClient
from castmate.engines.bundle import Bundle, locate
from castmate.engines.family import optimization_profile
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.engines.plan import Flavour
from castmate.errors import BundleCorrupt, BundleMismatch
from castmate.images import Reference
from castmate.schema import GenerateRequest
from castmate.settings import Settings
from export.build import Options, build_bundle
from export.bundle import write_bundle
from export.errors import ExportError
from export.family import family_of, published
from export.full_size import step_flops
from export.golden import record
from export.verify import verify_graphs
from tests.doubles import picture

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "flat"
FOLDERS = ((castmate.families, "served"), (export.families, "exported"))


@pytest.fixture(scope="module")
def network() -> Iterator[Any]:
    """A network of the family, whose two folders are there for this module only."""
    for package, folder in FOLDERS:
        package.__path__.append(str(HERE / folder))
    try:
        yield import_module("export.families.flat.family").Flat().eval()
    finally:
        for package, folder in FOLDERS:
            package.__path__.remove(str(HERE / folder))
        for name in [name for name in sys.modules if ".families.flat" in name]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def folder(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bundle") / "grey"
    golden = record(network, {}, step_caching=False)
    write_bundle(
        network, made, description="Flat pictures.", licences={}, tokenizers={}, golden=golden
    )
    return made


def edited(folder: Path, to: Path, **changes: object) -> Path:
    shutil.copytree(folder, to)
    manifest = json.loads((to / "bundle.json").read_text())
    (to / "bundle.json").write_text(json.dumps(manifest | changes))
    return to


@pytest.mark.slow
def test_its_bundle_names_it_and_holds_its_own_graphs_and_constants(folder: Path) -> None:
    bundle = Bundle.open(folder)
    bundle.check()
    manifest = bundle.manifest
    assert (manifest.family, manifest.name) == ("flat", "grey")
    assert set(manifest.graphs) == {"transformer", "vae_decoder"}
    assert manifest.constants == {"pixels_per_cell": 64}


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_client_draws_with_it(folder: Path) -> None:
    client = LocalClient.open(Settings.load(bundle=str(folder)))
    reference = Reference.from_bytes(picture(colour="#3366cc"), "the reference")
    request = GenerateRequest.parse(
        {
            "prompt": "hi",
            "image": "-",
            "size": "600*512",
            "num_images": 2,
            "num_inference_steps": 28,
        }
    )
    try:
        result = await client.generate(request, reference)
    finally:
        await client.aclose()
    assert (result.model, result.computed_steps) == ("grey", 2 * 4)
    assert result.warnings[0] == "flat"
    assert "at most 4 steps, so 4 were taken and not 28" in result.warnings[1]
    for image in result.images:
        pixels = np.asarray(Image.open(BytesIO(image.data)))
        assert pixels.shape == (512, 600, 3)
        assert (pixels == (0x33, 0x66, 0xCC)).all()


@pytest.mark.slow
def test_its_graphs_are_verified(folder: Path) -> None:
    bundle = Bundle.open(folder)
    found = verify_graphs(bundle, OnnxRuntime(bundle))
    assert [each.output for each in found] == ["transformer.next_latents", "vae_decoder.images"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_its_engines_are_built(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")
    manifest = Bundle.open(folder).manifest
    assert optimization_profile(manifest, "transformer")["latents"].max == (4, 24, 24, 3)
    options = Options(Flavour.TENSORRT_RTX, "8.9", allow_fallback=True)
    build_bundle(Bundle.open(folder), tmp_path, options)
    built = Bundle.open(tmp_path)
    built.check()
    assert (built.manifest.family, built.manifest.engine) == ("flat", "tensorrt_rtx")


@pytest.mark.slow
def test_what_its_constants_or_graphs_lack_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleCorrupt, match=r"`constants\.pixels_per_cell`: Field required"):
        Bundle.open(edited(folder, tmp_path / "constants", constants={}))
    graphs = json.loads((folder / "bundle.json").read_text())["graphs"]
    graphs["transformer"]["inputs"]["latents"]["shape"][3] = 4
    with pytest.raises(BundleMismatch, match=r"do not fit one another: axis c of `colour`"):
        Bundle.open(edited(folder, tmp_path / "sizes", graphs=graphs))
    graphs["transformer"]["inputs"]["latents"]["dtype"] = "int64"
    with pytest.raises(BundleMismatch, match=r"'transformer'.*`latents` is int64 .*binds float32"):
        Bundle.open(edited(folder, tmp_path / "dtype", graphs=graphs))


@pytest.mark.slow
def test_a_family_without_published_weights_says_so(network: Any) -> None:
    with pytest.raises(ExportError, match="Nothing is published of family 'flat'"):
        published(network.family)
    with pytest.raises(ExportError, match="Nothing is published of family 'flat'"):
        step_flops(network.config, 512, network.family)


@pytest.mark.parametrize(("package", "folder"), FOLDERS)
def test_contributing_lists_the_files_of_a_family(package: ModuleType, folder: str) -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    section = guide.partition("## Add a model family")[2].partition("\n## ")[0]
    where = package.__name__.replace(".", "/")
    listed = set(re.findall(rf"`{where}/<name>/(\w+\.py)`", section))
    assert listed == {path.name for path in (HERE / folder / "flat").glob("[!_]*.py")}


def test_an_unknown_family_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    folder = edited(locate("toon"), tmp_path / "toon", family="flux2_klein")
    with pytest.raises(BundleMismatch, match=r"'flux2_klein'; it knows .*instantcharacter"):
        Bundle.open(folder)
    with pytest.raises(ExportError, match=r"no family 'os'.*instantcharacter"):
        family_of("os")

"""An engine that computes something else than its graph is found, named and refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from castmate.engines.base import Array, Engine, Tensor, WrappedRuntime
from castmate.engines.bundle import Bundle, locate
from castmate.engines.golden import Golden
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.engines.plan import Flavour
from castmate.engines.proof import ProvenRuntime, differences
from castmate.errors import BundleCorrupt, BundleMismatch
from castmate.pipeline.opening import runtime_of
from castmate.settings import Settings
from tests.castmate.command import castmate_
from tests.gpu_double import Card, install, plan_bundle_of

pytestmark = pytest.mark.usefixtures("own_folder")
TOON = Bundle.open("toon")
Change = Callable[[Array], Array]


class Gpu(WrappedRuntime):
    """Plans on a GPU, as far as the pipeline sees: right ones, or wrong in one output."""

    name = Flavour.TENSORRT_RTX.value
    machine = ""

    def __init__(self, machine: str = "a GPU", **wrong: Change) -> None:
        """Wrong outputs are changed by what stands under their names."""
        super().__init__(OnnxRuntime(TOON))
        self.machine, self._wrong = machine, wrong
        self.runs: list[str] = []

    def load(self, graph: str) -> Engine:
        engine = super().load(graph)

        def run(**inputs: Tensor) -> Mapping[str, Tensor]:
            self.runs.append(graph)
            return {
                name: self.upload(self._wrong[name](self.download(tensor).copy()))
                if name in self._wrong
                else tensor
                for name, tensor in engine(**inputs).items()
            }

        return run


def copy_of_toon(folder: Path) -> Path:
    return Path(shutil.copytree(locate("toon"), folder / "toon"))


def change_file(bundle: Path, name: str, change: Callable[[bytearray], None]) -> None:
    """Change a graph's file and give the manifest the hash of the new one."""
    path, manifest = bundle / name, json.loads((bundle / "bundle.json").read_text())
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    (spec,) = [f for g in manifest["graphs"].values() for f in g["files"] if f["file"] == name]
    spec["sha256"] = hashlib.sha256(data).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def clear_some_weights(data: bytearray) -> None:
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)


def report(bundle: Path) -> dict[str, dict[str, Any]]:
    result = castmate_("doctor", "--verify", "--json", "--bundle", str(bundle))
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if found["ok"] else 1)
    return {check["name"]: check for check in found["checks"]}


def test_every_graph_of_the_shipped_bundle_computes_what_torch_recorded() -> None:
    checks = report(TOON.path)
    assert set(TOON.manifest.graphs) < set(checks)
    assert all(check["ok"] for check in checks.values())
    worst = max(
        each.relative_l2 for _, found in differences(TOON, OnnxRuntime(TOON)) for each in found
    )
    assert 0 < worst < 1e-5


@pytest.mark.slow
def test_doctor_names_the_graph_whose_weights_are_wrong_and_the_numbers(tmp_path: Path) -> None:
    bundle = copy_of_toon(tmp_path)
    change_file(bundle, "text_encoder_2.onnx", clear_some_weights)
    checks = report(bundle)
    wrong = checks.pop("text_encoder_2")
    assert wrong["found"].startswith("text_encoder_2.prompt_embeds: relative L2 ")
    assert "allowed 5e-03; largest difference" in wrong["found"]
    assert "export the bundle again" in wrong["fix"]
    assert all(check["ok"] for check in checks.values())


@pytest.mark.slow
def test_doctor_says_where_a_bundle_has_nothing_to_compare_with(tmp_path: Path) -> None:
    bundle = copy_of_toon(tmp_path)
    manifest = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"golden": None}))
    checks = report(bundle)
    assert checks["vae_decoder"]["found"] == "has no golden tensors"
    assert not checks["vae_decoder"]["ok"]


def without_last_token(values: Array) -> Array:
    values[..., -1, :] = 0
    return values


@pytest.mark.parametrize(
    ("graph", "output", "change", "says"),
    [
        ("transformer_tail", "tail_residual", without_last_token, "relative L2"),
        ("text_encoder_2", "prompt_embeds", np.negative, r"relative L2 2\.00e\+00, allowed 5e-03"),
        ("text_encoder_2", "prompt_embeds", lambda x: x * np.nan, "values are not finite"),
        ("transformer_finish", "next_latents", lambda x: x * 1.02, "relative L2"),
    ],
    ids=["one token", "the sign", "nan", "too long a step"],
)
def test_a_wrong_engine_is_refused_every_time_with_how_to_build_another(
    graph: str, output: str, change: Change, says: str, tmp_path: Path
) -> None:
    wrong: dict[str, Any] = {output: change}
    gpu = Gpu(**wrong)
    for _ in range(2):
        with pytest.raises(BundleMismatch, match=says) as refused:
            ProvenRuntime(gpu, TOON, tmp_path).load(graph)
        assert f"graph {graph!r} of bundle 'toon'" in str(refused.value)
        assert f"{graph}.{output}: " in str(refused.value)
        assert "on a GPU" in str(refused.value)
        assert "export.build --no-fused-attention" in str(refused.value)
    assert gpu.runs == [graph, graph]


def test_a_right_engine_is_compared_once_for_a_bundle_and_a_machine(tmp_path: Path) -> None:
    ours, updated = Gpu("RTX 4090, driver 580"), Gpu("RTX 4090, driver 590")
    for gpu in (ours, ours, updated, ours):
        proven = ProvenRuntime(gpu, TOON, tmp_path)
        proven.load("text_encoder")
        proven.load("text_encoder")
    assert (ours.runs, updated.runs) == (["text_encoder"], ["text_encoder"])
    other = copy_of_toon(tmp_path)
    manifest = (other / "bundle.json").read_text()
    (other / "bundle.json").write_text(manifest.replace("in nineteen places", "in nine places"))
    ProvenRuntime(ours, Bundle.open(other), tmp_path).load("text_encoder")
    assert len(ours.runs) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"relative_l2": [1]}'])
def test_what_cannot_be_remembered_or_recalled_is_compared_again(
    content: str, tmp_path: Path
) -> None:
    gpu = Gpu()
    ProvenRuntime(gpu, TOON, tmp_path).load("text_encoder")
    (remembered,) = tmp_path.glob("*.json")
    remembered.write_text(content)
    ProvenRuntime(gpu, TOON, tmp_path).load("text_encoder")
    remembered.with_name("other").write_text("")
    ProvenRuntime(gpu, TOON, tmp_path / "other").load("text_encoder")
    ProvenRuntime(gpu, TOON, None).load("text_encoder")
    assert len(gpu.runs) == 4


@pytest.mark.parametrize("flavour", list(Flavour))
def test_plans_prove_themselves_when_they_are_first_loaded_on_a_gpu(
    flavour: Flavour, tmp_path: Path
) -> None:
    right = plan_bundle_of(TOON, tmp_path / "right", flavour)
    changed = copy_of_toon(tmp_path)
    change_file(changed, "text_encoder_2.onnx", clear_some_weights)
    wrong = plan_bundle_of(Bundle.open(changed), tmp_path / "wrong", flavour)
    settings = Settings.load(data_dir=tmp_path / "data")
    with install(Card()) as machine:
        for runs in (1, 0):
            machine.calls.clear()
            runtime = runtime_of(right, settings)
            runtime.load("text_encoder_2")
            assert machine.calls.count("run text_encoder_2") == runs
            assert "a double, compute capability 8.9, driver" in runtime.machine
        runtime = runtime_of(wrong, settings)
        runtime.load("text_encoder")
        with pytest.raises(
            BundleMismatch, match=r"text_encoder_2\.prompt_embeds: .*\n.*no-fused-attention"
        ):
            runtime.load("text_encoder_2")
        del runtime


def test_golden_tensors_that_are_missing_changed_or_none_refuse_the_bundle(tmp_path: Path) -> None:
    bundle = Bundle.open(copy_of_toon(tmp_path))
    (bundle.path / "golden.npz").write_bytes(b"PK")
    with pytest.raises(BundleCorrupt, match=r"golden\.npz was changed"):
        bundle.check()
    with pytest.raises(BundleCorrupt, match=r"golden\.npz was changed"):
        ProvenRuntime(Gpu(), bundle, None)
    with pytest.raises(BundleCorrupt, match="holds no golden tensors"):
        Golden(bundle.path / "golden.npz", {})
    (bundle.path / "golden.npz").unlink()
    with pytest.raises(BundleCorrupt, match=r"golden\.npz is missing"):
        bundle.check()


def test_an_output_of_another_shape_is_refused() -> None:
    gpu = Gpu(images=lambda pixels: pixels[:, :-1])
    with pytest.raises(BundleMismatch, match=r"`images` of graph 'vae_decoder' has shape \[1, 511"):
        ProvenRuntime(gpu, TOON, None).load("vae_decoder")

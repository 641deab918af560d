"""Plans without fused attention compute the same, in kernels of their own."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from castmate.engines.bundle import Bundle, locate
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.engines.plan import Flavour, PlanManifest
from export.build import Options, build_bundle
from export.unfused import unfused, write_unfused
from export.verify import verify_graphs


def test_every_graph_computes_the_same_without_an_attention(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(locate("toon"), tmp_path / "toon"))
    manifest = json.loads((bundle / "bundle.json").read_text())
    (tmp_path / "out").mkdir()
    rewritten = 0
    for graph in manifest["graphs"].values():
        (spec,) = graph["files"]
        before = onnx.load(bundle / spec["file"])
        if any(
            attribute.name == "q_num_heads" for n in before.graph.node for attribute in n.attribute
        ):
            continue  # written for a CPU alone
        attentions = sum(node.op_type == "Attention" for node in before.graph.node)
        made = write_unfused(bundle / spec["file"], tmp_path / "out")
        kinds = [node.op_type for node in onnx.load(made).graph.node]
        assert not {"Attention", "Softmax"} & set(kinds)
        assert kinds.count("LogSoftmax") >= attentions
        rewritten += attentions
        spec["sha256"] = hashlib.sha256(
            made.replace(bundle / spec["file"]).read_bytes()
        ).hexdigest()
    assert rewritten > 10
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    changed = Bundle.open(bundle)
    found = verify_graphs(changed, OnnxRuntime(changed))
    assert max(each.relative_l2 for each in found) < 1e-5


@pytest.mark.parametrize("attribute", ["is_causal", "q_num_heads"])
def test_an_attention_that_is_not_written_for_engines_is_refused(attribute: str) -> None:
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2, 3, 4])
        for name in "qkvo"
    ]
    node = onnx.helper.make_node("Attention", ["q", "k", "v"], ["o"], name="x")
    node.attribute.append(onnx.helper.make_attribute(attribute, 1))
    graph = onnx.helper.make_graph([node], "g", values[:3], values[3:])
    opset = [onnx.helper.make_opsetid("", 23)]
    with pytest.raises(ValueError, match="attention 'x' is of a kind"):
        unfused(onnx.helper.make_model(graph, opset_imports=opset))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", ["8.9", "12.0"])
def test_a_plan_is_built_with_quantized_products_and_without_a_fused_attention(
    fp8_bundle: Bundle, target: str, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")
    manifest = fp8_bundle.manifest
    names = ("text_encoder", "transformer_head")
    graphs = {name: manifest.graphs[name] for name in names}
    source = replace(fp8_bundle, manifest=manifest.model_copy(update={"graphs": graphs}))
    options = Options(Flavour.TENSORRT_RTX, target, fused_attention=False)
    build_bundle(source, tmp_path, options)
    for name in names:
        layers = PlanManifest.beside(tmp_path / f"{name}.plan").layers
        assert layers is not None
        assert layers.fused_attentions == 0
    built = (tmp_path / f"{name}.plan").stat().st_mtime_ns
    assert layers is not None
    assert layers.gemms_reading["FP8"] > 9
    build_bundle(source, tmp_path, options)
    assert (tmp_path / f"{name}.plan").stat().st_mtime_ns == built, "it fits"
    build_bundle(source, tmp_path, replace(options, fused_attention=True))
    layers = PlanManifest.beside(tmp_path / f"{name}.plan").layers
    assert layers is not None
    assert layers.fused_attentions == 2

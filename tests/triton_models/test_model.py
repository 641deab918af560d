"""The Triton model's file without Triton: a double of its module, the real pipeline behind."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from castmate.engines.bundle import locate
from castmate.pipeline.pipeline import Pipeline
from castmate.triton.metrics import TritonMetrics
from castmate.triton.wire import decode_error, decode_report

HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "triton_models/castmate/1/model.py"
WAIT_S = 60.0


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pb_utils(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load(HERE / "fake_pb_utils.py", "fake_pb_utils")
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    return module


def config(**parameters: str) -> dict[str, str]:
    values = {name: {"string_value": value} for name, value in parameters.items()}
    return {
        "model_config": json.dumps({"parameters": values}),
        "model_instance_name": "castmate_0",
    }


@pytest.fixture
def model(
    pb_utils: ModuleType, toon: Pipeline, monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> Iterator[Any]:
    monkeypatch.setattr("castmate.triton.loading.open_pipeline", lambda *args, **options: toon)
    model = load(MODEL, "castmate_triton_model").TritonPythonModel()
    model.initialize(config(bundle="toon", max_waiting="16"))
    yield model
    model.finalize()


def mira() -> bytes:
    return (locate("toon") / "references/mira.png").read_bytes()


def a_request(pb_utils: ModuleType, prompt: bytes = b"waving", **parameters: Any) -> Any:
    quick = {"size": "512*512", "num_inference_steps": 2, "seed": 7} | parameters
    tensors = {"prompt": np.array([prompt], object), "image": np.array([mira()], object)}
    return pb_utils.Request(tensors, json.dumps(quick))


def test_a_bad_request_fails_alone_with_a_code(model: Any, pb_utils: ModuleType) -> None:
    good, bad = a_request(pb_utils), a_request(pb_utils, size="9*9")
    assert model.execute([bad, good]) is None
    for request in (good, bad):
        assert request.sender.final.wait(WAIT_S)
    (refused,) = bad.sender.responses
    assert refused.error.code == "INVALID_ARG"
    assert "`size`: '9*9' is not allowed" in str(decode_error(refused.error.message))
    assert [response.error for response in good.sender.responses if response.error] == []
    assert decode_report(good.sender.responses[-1].outputs["report"][0])["model"] == "toon"


def test_each_response_holds_only_outputs_of_the_config_with_their_types(
    model: Any, pb_utils: ModuleType
) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

    declared = text_format.Parse((MODEL.parents[1] / "config.pbtxt").read_text(), ModelConfig())
    kinds = {output.name: DataType.Name(output.data_type) for output in declared.output}
    dtypes = {"int32": "TYPE_INT32", "int64": "TYPE_INT64", "bool": "TYPE_BOOL"}
    dtypes |= {"float64": "TYPE_FP64", "object": "TYPE_STRING"}
    request = a_request(pb_utils)
    model.execute([request])
    assert request.sender.final.wait(WAIT_S)
    seen = {
        name: dtypes[str(array.dtype)]
        for response in request.sender.responses
        for name, array in response.outputs.items()
    }
    assert seen == kinds


def test_a_request_without_tensors_says_what_is_missing(model: Any, pb_utils: ModuleType) -> None:
    request = pb_utils.Request({})
    model.execute([request])
    assert request.sender.final.wait(WAIT_S)
    (refused,) = request.sender.responses
    assert "`prompt`" in str(decode_error(refused.error.message))
    assert "`image`" in str(decode_error(refused.error.message))


def test_a_tensor_that_cannot_be_read_fails_its_own_request(
    model: Any, pb_utils: ModuleType
) -> None:
    broken = pb_utils.Request({"prompt": np.array([], object)})  # what numpy 2 makes of a text
    good = a_request(pb_utils, num_inference_steps=1)
    model.execute([broken, good])
    assert broken.sender.final.wait(WAIT_S)
    assert broken.sender.responses[0].error.code == "INTERNAL"
    assert good.sender.final.wait(WAIT_S)
    assert good.sender.responses[-1].error is None


def test_what_went_wrong_at_loading_is_said_by_its_code(pb_utils: ModuleType) -> None:
    model = load(MODEL, "castmate_triton_model").TritonPythonModel()
    with pytest.raises(pb_utils.TritonModelException, match=r"^bundle_not_found: .*'/none'"):
        model.initialize(config(bundle="/none"))
    with pytest.raises(pb_utils.TritonModelException, match=r"^settings_error: .*`threadz`"):
        model.initialize(config(threadz="1"))


def test_a_request_is_measured_by_stage_by_step_and_by_cache(
    model: Any, pb_utils: ModuleType
) -> None:
    request = a_request(pb_utils, num_inference_steps=3)
    model.execute([request])
    assert request.sender.final.wait(WAIT_S)
    families = pb_utils.MetricFamily.all
    stages = {labels[0][1] for labels in families["castmate_stage_seconds"].metrics}
    assert {"queue", "subject", "denoise", "decode", "total"} <= stages
    (steps,) = families["castmate_step_seconds"].metrics.values()
    assert len(steps.values) == 2
    assert (("cache", "subject"),) in families["castmate_cache_hits_total"].metrics
    assert list(families["castmate_requests_total"].metrics) == [(("outcome", "ok"),)]


def test_two_threads_never_touch_a_metric_at_once(pb_utils: ModuleType) -> None:
    metrics = TritonMetrics(pb_utils, "castmate_0")

    def count(number: int) -> None:
        metrics.step(0.1)
        metrics.stages({"total": 1.0, "denoise": 0.5})
        metrics.caches({"prompt": (number, number)})
        metrics.load(number, 1)
        metrics.ended("ok")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(200)))
    (steps,) = pb_utils.MetricFamily.all["castmate_step_seconds"].metrics.values()
    assert len(steps.values) == 200

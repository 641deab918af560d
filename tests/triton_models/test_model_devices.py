"""Instances of the Triton model on the GPUs that Triton gives them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from castmate.engines.bundle import Bundle
from castmate.pipeline.pipeline import Pipeline
from castmate.triton.wire import decode_report
from tests.gpu_double import Card, install, plan_bundle_of
from tests.triton_models.test_model import HERE, MODEL, WAIT_S, load, mira

pytestmark = pytest.mark.usefixtures("own_folder")
GIB = 2**30
PLACES = {
    "one on each of two GPUs": [("castmate_0_0", 0), ("castmate_0_1", 1)],
    "two on one GPU": [("castmate_0_0", 1), ("castmate_0_1", 1)],
}


@pytest.fixture
def pb_utils(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load(HERE / "fake_pb_utils.py", "fake_pb_utils")
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    return module


def arguments(bundle: Bundle, name: str, device: int, gpus: list[int]) -> dict[str, str]:
    config = {
        "parameters": {"bundle": {"string_value": str(bundle.path)}},
        "instance_group": [
            {"kind": "KIND_GPU", "count": gpus.count(gpu), "gpus": [gpu]} for gpu in set(gpus)
        ],
    }
    return {
        "model_config": json.dumps(config),
        "model_instance_name": name,
        "model_instance_kind": "GPU",
        "model_instance_device_id": str(device),
    }


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES.keys())
def test_each_instance_draws_on_its_gpu_and_shares_it_with_its_neighbours(
    places: list[tuple[str, int]], pb_utils: ModuleType, tmp_path: Path, toon: Pipeline
) -> None:
    bundle = plan_bundle_of(Bundle.open("toon"), tmp_path / "plans")
    used = {device for _, device in places}
    with install(Card(), Card()) as machine:
        model = load(MODEL, "castmate_triton_model").TritonPythonModel
        models = []
        for name, device in places:
            models.append(model())
            gpus = [gpu for _, gpu in places]
            models[-1].initialize(arguments(bundle, name, device, gpus))
        drawn = [draw(each, pb_utils) for each in models]
        for each in models:
            each.finalize()
        for card in machine.cards:
            assert (card.most_taken > 0) is (card.index in used)
        assert sum(f"GPU {d} memory" in line for line in pb_utils.Logger.infos for d in used) >= 2
        del models, each
    assert drawn[0] == drawn[1]


def draw(model: Any, pb_utils: ModuleType) -> bytes:
    quick = {"size": "512*512", "num_inference_steps": 2, "seed": 7}
    tensors = {"prompt": np.array([b"waving"], object), "image": np.array([mira()], object)}
    request = pb_utils.Request(tensors, json.dumps(quick))
    model.execute([request])
    assert request.sender.final.wait(WAIT_S)
    responses = request.sender.responses
    assert [response.error for response in responses if response.error] == []
    assert decode_report(responses[-1].outputs["report"][0])["computed_steps"] == 2
    (picture,) = [r.outputs["picture"][0] for r in responses if "picture" in r.outputs]
    return bytes(picture)

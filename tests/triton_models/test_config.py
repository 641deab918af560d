"""config.pbtxt says what the model reads and what Triton accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInput

from castmate.triton import wire
from castmate.triton.loading import ModelSettings

CONFIG = Path(__file__).parents[2] / "triton_models/castmate/config.pbtxt"


@pytest.fixture(scope="module")
def config() -> Any:
    return text_format.Parse(CONFIG.read_text(), ModelConfig())


def test_it_is_a_decoupled_python_model_named_like_its_folder(config: Any) -> None:
    assert (config.name, config.backend) == (CONFIG.parent.name, "python")
    assert config.name == wire.MODEL
    assert config.model_transaction_policy.decoupled
    assert config.max_batch_size == 0


def test_every_tensor_has_a_type_and_dimensions_that_triton_takes(config: Any) -> None:
    for tensor in [*config.input, *config.output]:
        assert DataType.Name(tensor.data_type) != "TYPE_INVALID"
        assert tensor.dims
        assert all(dim == -1 or dim > 0 for dim in tensor.dims)
    assert [tensor.name for tensor in config.input] == ["prompt", "image"]
    assert all(isinstance(tensor, ModelInput) and tensor.optional for tensor in config.input)


def test_its_outputs_are_those_of_the_wire(config: Any) -> None:
    outputs = {wire.PROGRESS, wire.AHEAD, wire.PICTURE, wire.SEED, wire.HAS_NSFW, wire.IDENTITY}
    assert {tensor.name for tensor in config.output} == outputs | {wire.REPORT}


def test_its_parameters_are_all_that_the_model_knows_and_are_valid(
    config: Any, own_folder: Path
) -> None:
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    assert set(parameters) == set(ModelSettings.model_fields)
    assert ModelSettings.from_parameters(parameters).bundle == "toon"


def test_one_config_serves_cpu_and_gpu_and_never_waits_half_a_second(config: Any) -> None:
    assert list(config.instance_group) == []  # KIND_GPU would not load on a CPU
    # A queue policy of Triton's would make a free instance wait for its 500 ms poll.
    assert config.WhichOneof("scheduling_choice") is None

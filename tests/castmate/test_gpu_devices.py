"""Which GPU draws, from which thread, and what happens when it is lost."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from castmate.clients.local import LocalClient
from castmate.engines import cuda
from castmate.engines.bundle import Bundle
from castmate.engines.residency import Share
from castmate.engines.tensorrt import TensorRTRuntime
from castmate.errors import BundleMismatch, Unavailable
from castmate.images import Reference
from castmate.pipeline.opening import open_pipeline
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from castmate.settings import Settings
from castmate.triton.loading import Instance
from tests.gpu_double import Card, install, plan_bundle_of

GIB = 2**30
ILLEGAL_ADDRESS = 700
pytestmark = pytest.mark.usefixtures("own_folder")


class Ended(BaseException):
    """In the place of the end of the process."""


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(reason: str) -> None:
        raise Ended(reason)

    monkeypatch.setattr(cuda, "end_process", end)


@pytest.fixture
def plans(tmp_path: Path) -> Bundle:
    return plan_bundle_of(Bundle.open("toon"), tmp_path / "plans")


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_thread_that_draws_has_chosen_the_gpu_of_the_settings(
    plans: Bundle,
    make_request: Callable[..., GenerateRequest],
    character: Callable[[str], Reference],
    toon: Pipeline,
) -> None:
    request = make_request(num_inference_steps=2)
    with install(Card(), Card()) as machine:
        client = LocalClient.open(Settings.load(bundle=str(plans.path), device=1))
        result = await client.generate(request, character("mira"))
        await client.aclose()
        assert machine.cards[0].most_taken == 0
        assert machine.cards[1].most_taken > 0
        del client
    expected = toon.generate(request, character("mira"), lambda done, total: None)
    assert result.images[0].data == expected.images[0].data


def test_a_tensor_may_be_forgotten_in_a_thread_that_never_drew(plans: Bundle) -> None:
    with install(Card(), Card()) as machine:
        device = cuda.Device(1)
        held = [device.allocate((1024,), "uint8")]
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join(10)
        assert machine.cards[1].live == []


def test_a_gpu_that_is_not_there_is_refused_by_its_number(plans: Bundle) -> None:
    with install(Card()), pytest.raises(BundleMismatch, match=r"no GPU 3.*has 1.*CASTMATE_DEVICE"):
        TensorRTRuntime(plans, share=Share(device=3))


def test_several_instances_on_one_gpu_share_it_equally(
    plans: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "castmate")
    with install(Card(size=24 * GIB)) as machine:
        settings = Settings.load(bundle=str(plans.path))
        both = [open_pipeline(plans, settings, device=0, instances=2) for _ in range(2)]
        said = [line for line in caplog.messages if line.startswith("GPU 0 memory: ")]
        assert said[0] == said[1]
        assert "at the peak of 12.3 GB" in said[0]  # half of 24 GiB, and half a GiB is kept free
        assert machine.cards[0].most_taken < 24 * GIB
        del both


@pytest.mark.parametrize(
    ("kind", "groups", "expected"),
    [
        ("CPU", [], Instance("castmate_0_0")),
        ("GPU", [{"kind": "KIND_GPU", "count": 1, "gpus": [0, 1]}], Instance("castmate_0_0", 1)),
        (
            "GPU",
            [
                {"kind": "KIND_GPU", "count": 2, "gpus": [0, 1]},
                {"kind": "KIND_GPU", "count": 1, "gpus": [1]},
                {"kind": "KIND_GPU", "count": 4, "gpus": [0]},
            ],
            Instance("castmate_0_0", 1, 3),
        ),
    ],
    ids=["no GPU", "one on each", "several on it"],
)
def test_triton_says_which_gpu_an_instance_has_and_how_many_share_it(
    kind: str, groups: list[dict[str, object]], expected: Instance
) -> None:
    arguments = {
        "model_config": json.dumps({"instance_group": groups}),
        "model_instance_name": "castmate_0_0",
        "model_instance_kind": kind,
        "model_instance_device_id": "1",
    }
    assert Instance.of(arguments) == expected


def test_a_lost_gpu_ends_the_process_and_says_so(
    tmp_path: Path,
    ended: None,
    make_request: Callable[..., GenerateRequest],
    character: Callable[[str], Reference],
) -> None:
    bundle = plan_bundle_of(
        Bundle.open("toon"), tmp_path / "bad", transformer_tail={"poisons": ILLEGAL_ADDRESS}
    )
    with install(Card()):
        pipeline = Pipeline(bundle, TensorRTRuntime(bundle))
        with pytest.raises(Ended, match=r"GPU 0 is lost.*transformer_tail.*illegal memory.*start"):
            pipeline.generate(make_request(), character("mira"), lambda done, total: None)


def test_an_error_that_a_context_survives_does_not_end_the_process(ended: None) -> None:
    with install(Card(size=GIB)):
        device = cuda.Device()
        with pytest.raises(Unavailable, match="GPU 0 has too little memory left"):
            device.allocate((2 * GIB,), "uint8")
        assert device.allocate((1024,), "uint8").num_bytes == 1024


def test_the_line_is_on_standard_error_before_the_process_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(status: int) -> None:
        raise Ended(status)

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Ended, match=str(cuda.POISONED_EXIT)):
        cuda.end_process("the reason")
    assert capsys.readouterr().err == "castmate: the reason\n"

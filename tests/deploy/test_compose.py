"""deploy/: what can be checked of the container without one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from castmate import cli

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def triton() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["triton"]


def test_the_base_image_is_pinned_and_the_built_one_carries_its_tag(triton: Any) -> None:
    tag = re.search(r"^FROM \S+/tritonserver:(\d\d\.\d\d)-py3$", DOCKERFILE, re.MULTILINE)
    assert tag
    assert triton["image"] == f"castmate-triton:{tag[1]}"


def test_everything_that_is_copied_is_in_the_checkout_and_not_ignored() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    context = DEPLOY.parent
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert [source for source in copied if not (context / source).exists()] == []
    assert {f"!{source}" for source in copied} <= set(allowed)


def test_the_build_finds_its_context_and_its_file(triton: Any) -> None:
    context = DEPLOY / triton["build"]["context"]
    assert (context / triton["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")


def test_the_health_check_and_the_entry_point_are_commands_of_castmate(triton: Any) -> None:
    commands = {command.name for command in cli.serve.registered_commands}
    assert triton["healthcheck"]["test"][1:3] == ["castmate", "serve"]
    assert triton["healthcheck"]["test"][3] in commands
    entry = re.search(r'^ENTRYPOINT \["castmate", "serve", "(\w+)"', DOCKERFILE, re.MULTILINE)
    assert entry
    assert entry[1] in commands


def test_ports_open_to_this_machine_alone(triton: Any) -> None:
    assert all(port.startswith("127.0.0.1:") for port in triton["ports"])


def test_the_model_gets_a_gpu_shared_memory_and_a_bundle(triton: Any) -> None:
    (device,) = triton["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert triton["shm_size"] == "1gb"
    (volume,) = triton["volumes"]
    assert volume.endswith(f":{triton['environment']['CASTMATE_BUNDLE']}:ro")

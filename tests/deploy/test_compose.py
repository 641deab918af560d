"""deploy/: what can be checked of the containers without one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from benchmarks.server_process import castmate_serve
from castmate import __version__, cli
from castmate.engines.plan import Flavour
from castmate.triton.server import Ports
from castmate_mcp.settings import ServerSettings

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
WAIT_S = 60.0


@pytest.fixture
def triton() -> Any:
    return SERVICES["triton"]


@pytest.fixture
def gateway() -> Any:
    return SERVICES["gateway"]


def dockerfile_of(service: Any) -> Path:
    return (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve()


def test_it_is_a_compose_file_by_the_schema_of_compose() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(COMPOSE)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_base_image_is_pinned_and_the_built_one_carries_its_tag(
    triton: Any, gateway: Any
) -> None:
    tag = re.search(r"^FROM \S+/tritonserver:(\d\d\.\d\d)-py3$", DOCKERFILE, re.MULTILINE)
    assert tag
    assert triton["image"] == f"castmate-triton:{tag[1]}"
    assert gateway["image"] == f"castmate-gateway:{__version__}"
    assert re.search(r"^FROM python:3\.12-slim-\w+$", dockerfile_of(gateway).read_text(), re.M)


@pytest.mark.parametrize("name", SERVICES)
def test_everything_that_is_copied_is_in_the_checkout_and_not_ignored(name: str) -> None:
    path = dockerfile_of(SERVICES[name])
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", path.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    allowed = path.with_name(f"{path.name}.dockerignore").read_text().splitlines()
    assert [source for source in copied if not (DEPLOY.parent / source).exists()] == []
    assert {f"!{source}" for source in copied} <= set(allowed)


@pytest.mark.parametrize("name", SERVICES)
def test_a_change_of_the_code_leaves_the_layer_of_the_dependencies(name: str) -> None:
    text = dockerfile_of(SERVICES[name]).read_text()
    dependencies, code = text.split("COPY castmate castmate")
    assert "--constraint constraints.txt" in dependencies
    assert re.findall(r"^COPY (.+) \./$", dependencies, re.MULTILINE) == [
        "pyproject.toml constraints.txt README.md LICENSE"
    ]
    assert re.findall(r"pip install .*(--no-deps) \.", code) == ["--no-deps"]


def test_the_health_check_and_the_entry_point_of_triton_are_commands_of_castmate(
    triton: Any,
) -> None:
    commands = {command.name for command in cli.serve.registered_commands}
    assert triton["healthcheck"]["test"][1:3] == ["castmate", "serve"]
    assert triton["healthcheck"]["test"][3] in commands
    entry = re.search(r'^ENTRYPOINT \["castmate", "serve", "(\w+)"', DOCKERFILE, re.MULTILINE)
    assert entry
    assert entry[1] in commands


@pytest.mark.parametrize(
    ("given", "installed"),
    [
        ("", None),
        ("tensorrt==11.3.0.99", ["tensorrt==11.3.0.99", "cuda-python>=13,<14"]),
        ("tensorrt_rtx_cu13==1.7.1.116", ["tensorrt_rtx_cu13==1.7.1.116", "cuda-python>=13,<14"]),
    ],
)
def test_the_image_installs_the_tensorrt_of_its_argument_and_no_other(
    triton: Any, given: str, installed: list[str] | None, tmp_path: Path
) -> None:
    assert triton["build"]["args"] == {"TENSORRT": "${CASTMATE_TENSORRT:-}"}
    steps = re.findall(r"^RUN ((?:\\\n|.)+)", DOCKERFILE, re.MULTILINE)
    (step,) = [step for step in steps if "TENSORRT" in step]
    pip = tmp_path / "python3"
    pip.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/said\n')
    pip.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TENSORRT": given}
    subprocess.run(["sh", "-ec", step], env=environment, check=True, timeout=WAIT_S)
    said = (tmp_path / "said").read_text().split("\n") if installed else []
    assert "--constraint" not in said, "which pins the TensorRT of the tests"
    assert said[-3:-1] == (installed or [])
    assert (tmp_path / "said").exists() == (installed is not None)


def test_the_releases_of_tensorrt_are_those_that_the_package_allows() -> None:
    extras = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    allowed = extras["project"]["optional-dependencies"]
    releases = json.loads((DEPLOY / "tensorrt.json").read_text())
    for extra, flavour in (("tensorrt", Flavour.TENSORRT), ("rtx", Flavour.TENSORRT_RTX)):
        wheel = releases["wheels"][flavour]
        (requirement,) = [
            found
            for each in allowed[extra]
            if (found := Requirement(each)).name == wheel["package"]
        ]
        assert all(version in requirement.specifier for version in wheel["versions"])
        assert wheel["versions"] == sorted(wheel["versions"], key=Version)


@pytest.mark.parametrize("name", SERVICES)
def test_ports_open_to_this_machine_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


def test_the_model_gets_a_gpu_shared_memory_and_a_bundle(triton: Any) -> None:
    (device,) = triton["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert triton["shm_size"] == "1gb"
    (volume,) = triton["volumes"]
    assert volume.endswith(f":{triton['environment']['CASTMATE_BUNDLE']}:ro")


def test_the_gateway_finds_triton_and_its_settings_are_known(
    triton: Any, gateway: Any, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {f"CASTMATE_{name.upper()}" for name in ServerSettings.model_fields}
    assert set(gateway["environment"]) <= fields
    for name, value in environment(gateway).items():
        monkeypatch.setenv(name, value)
    settings = ServerSettings.load()
    assert settings.triton_urls == ("triton:8001",)
    assert any(port.endswith(":8001") for port in triton["ports"])
    assert settings.wavespeed_api_key is None
    grace_s = float(gateway["stop_grace_period"].removesuffix("s"))
    assert grace_s > settings.drain_s + 10
    assert any(port.endswith(f":{settings.port}") for port in gateway["ports"])


@pytest.mark.slow
def test_the_gateway_serves_with_a_key_and_its_health_check_says_so(
    gateway: Any, own_folder: Path, tmp_path: Path
) -> None:
    port = str(Ports.free().http)
    command = [sys.executable, "-m", "castmate.cli"]
    image = re.findall(r"(CASTMATE_\w+)=(\S+)", dockerfile_of(gateway).read_text())
    settings = environment(gateway) | dict(image) | {"CASTMATE_PORT": port}
    settings["CASTMATE_DATA_DIR"] = str(tmp_path / "volume")
    health = [text.replace("8787", port) for text in gateway["healthcheck"]["test"]]
    assert health[:2] == ["CMD", "python"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, env=os.environ | settings, capture_output=True, text=True, timeout=WAIT_S
        )

    refused = run(*command, "serve")
    assert refused.returncode != 0
    assert "castmate keys create" in refused.stderr
    assert run(*command, "keys", "create", "me").returncode == 0
    with castmate_serve(tmp_path / "volume", **settings) as serving:
        assert serving.url.endswith(f":{port}")
        assert run(sys.executable, *health[2:]).returncode == 0
        assert serving.stop() == 0
    assert run(sys.executable, *health[2:]).returncode != 0


def environment(service: Any) -> dict[str, str]:
    """As compose passes it where the caller has set none of its own variables."""
    return {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
        for name, value in service["environment"].items()
    }

"""deploy/kubernetes: valid for Kubernetes, KEDA and Prometheus, and true of our own commands."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from typer.main import get_command

from benchmarks.server_process import ServerProcess, inherited
from castmate import __version__, cli
from castmate.clients.triton.discovery import REFRESH_S
from castmate.triton.server import Ports
from castmate_mcp.settings import ServerSettings
from tests.deploy.test_compose import DOCKERFILE

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
SECRET = "wsk_" + "0" * 32


@cache
def others() -> dict[str, Any]:
    """The kinds that are not Kubernetes's own; each worker would import them for 3 s."""
    from cloudcoil.models.keda import v1alpha1 as keda
    from cloudcoil.models.prometheus_operator import v1 as monitoring

    return {
        "ScaledObject": keda.ScaledObject,
        "TriggerAuthentication": keda.TriggerAuthentication,
        "PrometheusRule": monitoring.PrometheusRule,
        "ServiceMonitor": monitoring.ServiceMonitor,
    }


@cache
def built(overlay: str) -> list[dict[str, Any]]:
    """What `kubectl apply --kustomize` would send."""
    kubectl = Path(sys.executable).with_name("kubectl")
    command = [str(kubectl), "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str) -> list[dict[str, Any]]:
    return [one for one in built(overlay) if one["kind"] == kind]


def pods(overlay: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for deployment in of_kind(overlay, "Deployment"):
        yield deployment["metadata"]["name"], deployment["spec"]["template"]["spec"]


def containers(overlay: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for _, pod in pods(overlay):
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            yield pod, container


def variables(overlay: str, container: dict[str, Any]) -> dict[str, str | None]:
    """A container's environment; what comes from a secret is None."""
    found: dict[str, str | None] = {}
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            (config,) = [
                one
                for one in of_kind(overlay, "ConfigMap")
                if one["metadata"]["name"] == source["configMapRef"]["name"]
            ]
            found |= config["data"]
    return found | {one["name"]: one.get("value") for one in container.get("env", ())}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_sent_to_a_cluster_is_valid(overlay: str) -> None:
    assert built(overlay)
    for one in built(overlay):
        if model := others().get(one["kind"]):
            model.model_validate(one)
        else:
            kubernetes_validate.validate(one, "1.37", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_and_references_meet_something(overlay: str) -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"] for one in of_kind(overlay, "Deployment")
    ]
    selectors = [one["spec"]["selector"] for one in of_kind(overlay, "Service")]
    for kind in ("Deployment", "PodDisruptionBudget"):
        selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(overlay, kind)]
    selectors += [
        one["spec"]["podSelector"]["matchLabels"] for one in of_kind(overlay, "NetworkPolicy")
    ]
    assert selectors
    for selector in selectors:
        assert any(selector.items() <= known.items() for known in labels), selector
    names = {one["metadata"]["name"] for one in of_kind(overlay, "Deployment")}
    for kind in ("ScaledObject", "HorizontalPodAutoscaler"):
        assert {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(overlay, kind)} <= names


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_container_may_do_more_than_it_needs(overlay: str) -> None:
    for pod, container in containers(overlay):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"]
        assert not own["allowPrivilegeEscalation"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert "@" in container["image"] or ":" in container["image"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting_and_its_value_is_taken(
    overlay: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _, container in containers(overlay):
        for name, value in variables(overlay, container).items():
            assert name.removeprefix("CASTMATE_").lower() in ServerSettings.model_fields, name
            if value is not None:
                monkeypatch.setenv(name, value)
    ServerSettings.load()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_command_is_one_of_ours(overlay: str) -> None:
    dockerfiles = {
        "castmate-gateway": (ROOT / "deploy/Dockerfile.gateway").read_text(),
        "castmate-triton": DOCKERFILE,
    }
    for _, container in containers(overlay):
        image = container["image"].partition(":")[0]
        (entrypoint,) = [
            json.loads(line.removeprefix("ENTRYPOINT "))
            for line in dockerfiles[image].splitlines()
            if line.startswith("ENTRYPOINT")
        ]
        commands = [[*entrypoint, *container["args"]]]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if "exec" in container.get(probe, {}):
                commands.append(container[probe]["exec"]["command"])
        for program, *arguments in commands:
            assert program == "castmate"
            command: Any = get_command(cli.app)
            while arguments and arguments[0] in getattr(command, "commands", ()):
                command = command.commands[arguments.pop(0)]
            command.make_context("castmate", arguments)  # parses, and runs nothing


def test_ports_are_those_on_which_our_servers_listen() -> None:
    by_name = dict(pods("node"))
    (triton,) = by_name["castmate-triton"]["containers"]
    (gateway,) = by_name["castmate-gateway"]["containers"]
    ports = Ports()
    assert {one["name"]: one["containerPort"] for one in triton["ports"]} == {
        "http": ports.http,
        "grpc": ports.grpc,
        "metrics": ports.metrics,
    }
    assert gateway["ports"][0]["containerPort"] == ServerSettings.model_fields["port"].default


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_finish_what_it_draws(overlay: str) -> None:
    for name, pod in pods(overlay):
        (container,) = pod["containers"]
        waits_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        if name == "castmate-triton":
            assert waits_s > REFRESH_S  # then no gateway knows its address any more
        else:
            drain_s = ServerSettings.model_fields["drain_s"].default
            assert pod["terminationGracePeriodSeconds"] > waits_s + drain_s


def test_a_gateway_whose_ledger_is_on_a_volume_never_runs_twice() -> None:
    for overlay in OVERLAYS:
        for deployment in of_kind(overlay, "Deployment"):
            volumes = {
                one["name"]: one for one in deployment["spec"]["template"]["spec"]["volumes"]
            }
            if "persistentVolumeClaim" in volumes["data"]:
                assert deployment["spec"]["replicas"] == 1
                assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_images_carry_the_tags_that_are_built() -> None:
    images = {container["image"] for overlay in OVERLAYS for _, container in containers(overlay)}
    (base,) = [line for line in DOCKERFILE.splitlines() if line.startswith("FROM ")]
    tag = base.rpartition(":")[2].removesuffix("-py3")
    assert images == {f"castmate-gateway:{__version__}", f"castmate-triton:{tag}"}


@pytest.mark.slow
def test_the_containers_of_the_cpu_overlay_start_with_the_environment_that_they_are_given(
    own_folder: Path,
) -> None:
    ((_, pod),) = pods("cpu")
    (first_key,), (gateway,) = pod["initContainers"], pod["containers"]
    given = {name: value for name, value in variables("cpu", gateway).items() if value}
    given |= {"CASTMATE_DATA_DIR": str(own_folder / "data"), "CASTMATE_HOST": "0.0.0.0"}
    castmate = str(Path(sys.executable).with_name("castmate"))
    secret = own_folder / "first-key"
    secret.write_text(SECRET)
    arguments = [
        argument.replace("/run/castmate", str(own_folder)) for argument in first_key["args"]
    ]
    command = [castmate, *arguments]
    for _ in range(2):  # an init container may run again
        subprocess.run(command, check=True, env=inherited() | given, timeout=60)
    port = {"CASTMATE_PORT": "0"}
    server = ServerProcess([castmate, *gateway["args"]], own_folder, **given, **port)
    try:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = gateway[probe]["httpGet"]["path"]
            with urllib.request.urlopen(server.url + path, timeout=10) as answer:
                assert answer.status == 200
        server.stop()
    finally:
        server.kill()

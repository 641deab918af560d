"""What `castmate serve triton` refuses, and what it says to do instead."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from castmate import cli, reporting, serve
from castmate.engines.bundle import Bundle, locate

pytestmark = pytest.mark.usefixtures("own_folder")


def serve_triton(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["serve", "triton", *arguments])


def built_with(folder: Path, engine: str, version: str) -> Path:
    """A bundle whose plans need a GPU."""
    folder.mkdir()
    manifest = json.loads((locate("toon") / "bundle.json").read_text())
    changes = {"engine": engine, "created_with": {engine: version}}
    (folder / "bundle.json").write_text(json.dumps(manifest | changes))
    return folder


@pytest.fixture
def gpu_bundle(tmp_path: Path) -> Path:
    return built_with(tmp_path / "flux", "tensorrt", "11.3.0.99")


def test_a_folder_without_the_model_is_refused(tmp_path: Path) -> None:
    result = serve_triton("--models", str(tmp_path))
    assert result.exit_code == reporting.BAD_REQUEST
    assert "has no castmate/config.pbtxt. Run this in a checkout" in result.stderr


def test_a_bundle_that_is_not_there_is_refused() -> None:
    result = serve_triton("--bundle", "nothing")
    assert result.exit_code == reporting.FAILED
    assert "There is no bundle 'nothing'" in result.stderr


def test_a_gpu_bundle_is_sent_to_the_container_with_the_command(gpu_bundle: Path) -> None:
    result = serve_triton("--bundle", str(gpu_bundle))
    assert result.exit_code == reporting.BAD_REQUEST
    assert "is for engine 'tensorrt', which needs a GPU and NVIDIA's container" in result.stderr
    variables = f"CASTMATE_BUNDLE_DIR={gpu_bundle} CASTMATE_TENSORRT=tensorrt==11.3.0.99"
    assert f"{variables} docker compose --file" in result.stderr


def test_the_container_command_is_printed_where_there_is_no_docker(
    gpu_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    result = serve_triton("--container", "--bundle", str(gpu_bundle))
    assert result.exit_code == reporting.OK
    variables = f"CASTMATE_BUNDLE_DIR={gpu_bundle} CASTMATE_TENSORRT=tensorrt==11.3.0.99"
    assert result.stdout.startswith(f"{variables} docker compose --file")


def test_the_container_command_runs_where_there_is_docker(
    gpu_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[object] = []
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "execve", lambda *arguments: ran.extend(arguments))
    serve_triton("--container", "--bundle", str(gpu_bundle))
    path, command, variables = ran
    assert path == "/usr/bin/docker"
    assert command[-3:] == ["up", "--build", "triton"]  # type: ignore[index]
    assert variables["CASTMATE_BUNDLE_DIR"] == str(gpu_bundle)  # type: ignore[index]
    assert variables["CASTMATE_TENSORRT"] == "tensorrt==11.3.0.99"  # type: ignore[index]


def test_the_image_gets_the_flavour_and_version_that_built_the_plans(tmp_path: Path) -> None:
    rtx = built_with(tmp_path / "rtx", "tensorrt_rtx", "1.7.1.116")
    variables, _ = serve.container_command(Bundle.open(rtx))
    assert variables["CASTMATE_TENSORRT"] == "tensorrt_rtx_cu13==1.7.1.116"
    assert "CASTMATE_TENSORRT" not in serve.container_command(Bundle.open("toon"))[0]


@pytest.mark.parametrize(
    ("engine", "version", "says"),
    [
        (
            "tensorrt",
            "10.16.1",
            r"tensorrt 10\.16\.1, which cannot .* there are .*10\.16\.1\.11.*'tensorrt==11\.4.*"
            r"26\.04 with 10\.16\.1, .*export\.build.*add it to \S+deploy/tensorrt\.json",
        ),
        ("tensorrt_rtx", "1.3.0.9", r"pip install 'tensorrt_rtx_cu13==1\.7\.1\.116', then python"),
    ],
)
def test_a_version_that_cannot_be_installed_is_refused_before_anything_is_built(
    engine: str, version: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "execve", lambda *arguments: pytest.fail("it runs Docker"))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    bundle = built_with(tmp_path / "flux", engine, version)
    for options in (("--container",), ()):
        result = serve_triton(*options, "--bundle", str(bundle))
        assert result.exit_code == reporting.FAILED
        assert re.search(says, result.stderr)


def test_the_compose_file_of_the_command_is_there() -> None:
    _, command = serve.container_command(Bundle.open("toon"))
    assert Path(command[command.index("--file") + 1]).is_file()

"""What `castmate serve triton` refuses, and what it says to do instead."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from castmate import cli, reporting, serve
from castmate.engines.bundle import Bundle, locate

pytestmark = pytest.mark.usefixtures("own_folder")


def serve_triton(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["serve", "triton", *arguments])


@pytest.fixture
def gpu_bundle(tmp_path: Path) -> Path:
    """A bundle whose plans need a GPU."""
    folder = tmp_path / "flux"
    folder.mkdir()
    manifest = json.loads((locate("toon") / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(manifest | {"engine": "tensorrt"}))
    return folder


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
    assert f"CASTMATE_BUNDLE_DIR={gpu_bundle} docker compose --file" in result.stderr


def test_the_container_command_is_printed_where_there_is_no_docker(
    gpu_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    result = serve_triton("--container", "--bundle", str(gpu_bundle))
    assert result.exit_code == reporting.OK
    assert result.stdout.startswith(f"CASTMATE_BUNDLE_DIR={gpu_bundle} docker compose --file")


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


def test_the_compose_file_of_the_command_is_there() -> None:
    _, command = serve.container_command(Bundle.open("toon"))
    assert Path(command[command.index("--file") + 1]).is_file()

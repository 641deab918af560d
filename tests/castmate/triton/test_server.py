"""Where a tritonserver comes from and what stops it from starting, without starting one."""

from __future__ import annotations

import os
import socket
import stat
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from castmate.errors import SettingsError, Unavailable
from castmate.triton import server
from castmate.triton.environment import in_container, installed, prepare
from castmate.triton.server import Installation, Ports, TritonServer, remove_leftovers


def a_server(tmp_path: Path, binary: str, ports: Ports) -> TritonServer:
    script = tmp_path / "tritonserver"
    script.write_text(binary)
    script.chmod(0o755)
    installation = Installation(script, tmp_path / "backends")
    return TritonServer(installation, tmp_path, ports, tmp_path / "log/tritonserver.log")


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = Ports.free()
        ports = Ports(taken.getsockname()[1], free.http, free.metrics)
        with pytest.raises(SettingsError, match=rf"--grpc-port {ports.grpc} .* cannot be used"):
            a_server(tmp_path, "#!/bin/sh\n", ports).start()


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    binary = "#!/bin/sh\necho \"E0101 00:00:00.0 1 x.cc:1] 'failed to bind'\"; exit 1\n"
    broken = a_server(tmp_path, binary, Ports.free())
    with pytest.raises(Unavailable, match=r"did not start\. 'failed to bind'"):
        broken.start()
    assert not broken.is_running()


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
def test_its_log_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        talkative = a_server(tmp_path, "#!/bin/sh\necho something; exit 1\n", Ports.free())
        with pytest.raises(Unavailable, match="did not start"):
            talkative.start()
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (talkative.log, talkative.log.parent)}
    assert modes == {0o600, 0o700}


def test_a_server_that_is_never_ready_is_given_up_and_ended(tmp_path: Path) -> None:
    hung = a_server(tmp_path, "#!/bin/sh\nsleep 600 & wait\n", Ports.free())
    with pytest.raises(Unavailable, match=r"not ready after 0\.3 s"):
        hung.start(timeout_s=0.3)
    assert not hung.is_running()
    ends = time.monotonic() + 10
    while living_in_group(hung.pid):  # a killed process may need a moment to go
        assert time.monotonic() < ends
        time.sleep(0.01)


def living_in_group(leader: int) -> list[str]:
    """Processes of a group, without those that have ended and were not collected yet."""
    fields = [
        path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")
    ]
    return [state for state, _, group, *_ in fields if group == str(leader) and state != "Z"]


def test_shared_memory_is_removed_only_when_its_owner_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_SHM", tmp_path)
    names = ["castmate999999999_ab12_x", f"castmate{os.getpid()}_ab12_x", "castmate_of_somebody"]
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


def test_an_installation_for_other_versions_does_not_count(tmp_path: Path) -> None:
    assert installed(tmp_path) is None
    (tmp_path / "castmate.json").write_text('{"wheel": "nvidia-pytriton==0.1.0"}')
    assert installed(tmp_path) is None


def test_a_python_without_a_shared_library_is_refused_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path))
    with pytest.raises(SettingsError, match=r"has no .*libpython3\.\d+\.so\.1\.0"):
        prepare(tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_what_a_failed_command_said_last_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0").touch()
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path))
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'No space left on device' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(Unavailable, match=r"-m venv .* failed:\nNo space left on device"):
        prepare(tmp_path / "home")
    assert installed(tmp_path / "home") is None


def test_inside_nvidias_container_its_own_server_is_used(tmp_path: Path) -> None:
    assert in_container(tmp_path) is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tritonserver").touch()
    found = in_container(tmp_path)
    assert found is not None
    assert found.backends == tmp_path / "backends"
    assert dict(found.environment) == {}

"""`castmate serve triton`: prepares, starts, watches and stops a Triton server.

The server's health page says ready even when the model's process is dead, and nothing restarts that
process. So this asks the model itself, and restarts the whole server if it does not answer.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from castmate.clients.triton.client import TritonClient
from castmate.engines.bundle import Bundle
from castmate.errors import SettingsError, Unavailable
from castmate.paths import expand
from castmate.settings import Settings
from castmate.triton.environment import in_container, installed, prepare
from castmate.triton.image import tensorrt_requirement
from castmate.triton.server import Installation, Ports, TritonServer

START_TIMEOUT_S: Final = 600.0  # a full-size bundle is read from disk
PROBE_EVERY_S: Final = 2.0
FAILED_PROBES: Final = 2  # in a row, before the server is restarted
RESTART_PAUSE_S: Final = 1.0

CHECKOUT: Final = Path(__file__).parents[1]
Say = Callable[[str], object]


def serve_triton(
    settings: Settings,
    ports: Ports,
    *,
    say: Say,
    models: Path | None = None,
    home: Path | None = None,
    trace_url: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; call it from the main thread.

    Args:
        settings: The bundle, and where state is kept.
        ports: Where to listen.
        say: Called with one line for each event.
        models: The model repository; by default the checkout's.
        home: Where the server is, or will be, installed; by default in the data folder.
        trace_url: An OpenTelemetry collector's address for traces.

    Raises:
        BundleError: The bundle cannot be used.
        SettingsError: A folder or port cannot be used, or the bundle needs a GPU machine.
        Unavailable: The server cannot be installed or started.
    """
    models = find_models(models)
    bundle = Bundle.open(settings.bundle)
    installation = in_container() or _embedded(settings, bundle, home, say)
    server = TritonServer(
        installation,
        models,
        ports,
        settings.data_dir / "triton/tritonserver.log",
        environment=_environment(settings),
        options=trace_options(trace_url) if trace_url else (),
    )
    with _stopped_by_signals():
        try:
            server.start(START_TIMEOUT_S)
            say(f"Serving {bundle.name} at {server.url} (gRPC). Ctrl-C stops it.")
            _watch(server, say)
        except KeyboardInterrupt:
            say("Stopping.")
        finally:
            server.stop()


def run_container(settings: Settings, say: Say) -> None:
    """Print the command that serves a bundle on a GPU machine; run it if Docker is installed.

    Raises:
        BundleError: The bundle cannot be used, or no image can be built for it.
    """
    variables, command = container_command(Bundle.open(settings.bundle))
    say(_shown(variables, command))
    if docker := shutil.which(command[0]):
        os.execve(docker, command, os.environ | variables)


def container_command(bundle: Bundle) -> tuple[dict[str, str], list[str]]:
    """Variables and command line that start `triton` of `deploy/compose.yaml` with a bundle.

    Raises:
        BundleMismatch: No image can be built for its plans.
    """
    deploy = CHECKOUT / "deploy"
    compose = str(deploy / "compose.yaml")
    variables = {"CASTMATE_BUNDLE_DIR": str(bundle.path)}
    if tensorrt := tensorrt_requirement(bundle, deploy):
        variables["CASTMATE_TENSORRT"] = tensorrt
    return variables, ["docker", "compose", "--file", compose, "up", "--build", "triton"]


def trace_options(url: str) -> list[str]:
    """Options that make every request a span of the caller's trace."""
    settings = ("mode=opentelemetry", f"opentelemetry,url={url}", "rate=1", "level=TIMESTAMPS")
    return [f"--trace-config={setting}" for setting in settings]


def find_models(models: Path | None) -> Path:
    """The model repository.

    Raises:
        SettingsError: There is none.
    """
    found = expand(models or CHECKOUT / "triton_models").resolve()
    if not (found / "castmate/config.pbtxt").is_file():
        raise SettingsError(
            f"{found} has no castmate/config.pbtxt. Run this in a checkout of Castmate, or name "
            "its triton_models with --models."
        )
    return found


def _embedded(settings: Settings, bundle: Bundle, home: Path | None, say: Say) -> Installation:
    """The server from the wheel, installed if necessary."""
    if bundle.manifest.engine != "onnxruntime":
        variables, command = container_command(bundle)
        raise SettingsError(
            f"Bundle {bundle.name!r} is for engine {bundle.manifest.engine!r}, which needs a GPU "
            f"and NVIDIA's container:\n{_shown(variables, command)}"
        )
    home = expand(home or settings.data_dir / "triton")
    if (found := installed(home)) is not None:
        return found
    say(f"Installing tritonserver and a Python environment for it into {home}: a minute or two.")
    return prepare(home)


def _shown(variables: Mapping[str, str], command: Sequence[str]) -> str:
    """A command line to be pasted into a shell."""
    assigned = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return f"{' '.join(assigned)} {shlex.join(command)}"


def _environment(settings: Settings) -> dict[str, str]:
    """The environment of the model, with this command's flags."""
    return {
        "CASTMATE_BUNDLE": str(Bundle.open(settings.bundle).path),
        "CASTMATE_THREADS": str(settings.threads),
        **({"CASTMATE_GPU_MEMORY": str(int(settings.gpu_memory))} if settings.gpu_memory else {}),
        "CASTMATE_PROMPT_CACHE_MB": str(settings.prompt_cache_mb),
        "CASTMATE_SUBJECT_CACHE_MB": str(settings.subject_cache_mb),
        "CASTMATE_CACHE": settings.cache,
    }


def _watch(server: TritonServer, say: Say) -> None:
    """Ask the model every two seconds; restart the server if it died or does not answer."""
    failures: list[str] = []
    while True:
        if server.wait(PROBE_EVERY_S):
            failures = ["the process ended"] * FAILED_PROBES
        else:
            try:
                asyncio.run(probe(server.url))
                failures.clear()
            except Unavailable as error:
                failures.append(str(error))
        if len(failures) >= FAILED_PROBES:
            say(f"Starting the server again: {failures[-1]}")
            failures.clear()
            server.kill()
            time.sleep(RESTART_PAUSE_S)
            server.start(START_TIMEOUT_S)
            say(f"Serving again at {server.url}.")


async def probe(url: str) -> dict[str, Any]:
    """Ask one server's model whether it can draw.

    Raises:
        Unavailable: It cannot; says why.
    """
    client = TritonClient((url,))
    try:
        return await client.probe(url)
    finally:
        await client.aclose()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM acts like Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

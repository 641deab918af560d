"""NVIDIA's perf_analyzer on the streaming model; the package of that name on PyPI is empty."""

from __future__ import annotations

import base64
import csv
import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from castmate.schema import GenerateRequest
from castmate.triton.server import TritonServer

# The last wheel whose binary runs with glibc 2.35; later ones need 2.38.
WHEEL: Final = "tritonclient==2.51.0"
_MEMBER: Final = "perf_analyzer"


def install(home: Path) -> Path:
    """The binary in `home`, from an older wheel that pip downloads at first use.

    Raises:
        RuntimeError: The wheel cannot be downloaded.
    """
    binary = home / _MEMBER
    if binary.exists():
        return binary
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        done = subprocess.run([*pip, WHEEL], capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            raise RuntimeError(f"pip cannot download {WHEEL}:\n{done.stderr}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            (member,) = [name for name in wheel.namelist() if name.endswith(f"bin/{_MEMBER}")]
            binary.write_bytes(wheel.read(member))
    binary.chmod(0o755)
    return binary


def load(
    binary: Path,
    libraries: Path,
    server: TritonServer,
    request: GenerateRequest,
    reference: Path,
    folder: Path,
) -> list[dict[str, str]]:
    """Load a running server; returns a row for each concurrency.

    Its latency is that of the first response, `ahead`, not of the picture.

    Args:
        binary: The result of `install`.
        libraries: Folder with libb64 and libcudart, from the server's wheel.
        server: A running server.
        request: The request to send.
        reference: The character's picture.
        folder: Where its files go.

    Raises:
        RuntimeError: It failed; contains its output.
    """
    for name, pattern in {"libb64.so.0d": "libb64-*", "libcudart.so.12": "libcudart-*"}.items():
        (folder / name).symlink_to(next(libraries.glob(pattern)))
    data = reference.read_bytes()
    # It sends the decoded base64 as it is, so the BYTES element's length prefix must be part of it.
    image = base64.b64encode(struct.pack("<I", len(data)) + data).decode()
    inputs = {"data": [{"prompt": [request.prompt], "image": {"b64": image}}]}
    (folder / "input.json").write_text(json.dumps(inputs))
    report = folder / "report.csv"
    command = [
        *(str(binary), "-m", "castmate", "-i", "grpc", "-u", server.url, "--streaming", "--async"),
        *("--input-data", str(folder / "input.json")),
        *("--shape", "prompt:1", "--shape", "image:1"),
        *("--concurrency-range", "1:2", "--measurement-mode", "count_windows"),
        *("--measurement-request-count", "5", "-r", "3", "-s", "100", "-f", str(report)),
    ]
    kinds = {str: "string", int: "int"}
    for field in ("size", "num_inference_steps"):
        value = getattr(request, field)
        command += ["--request-parameter", f"{field}:{value}:{kinds[type(value)]}"]
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode or not report.exists():
        raise RuntimeError(f"perf_analyzer failed:\n{done.stdout}\n{done.stderr}")
    with report.open() as stream:
        return list(csv.DictReader(stream))

"""A measurement on disk: its figures, what they depend on, and a seal that shows a later edit."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("castmate", "onnxruntime", "torch", "diffusers", "numpy", "pillow", "tensorrt")
SEAL = "sha256"
CHANGES = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
"""What tells changed code; results that were just written are not code."""
NVIDIA_SMI = (
    "name",
    "driver_version",
    "memory.total",
    "power.limit",
    "power.draw",
    "clocks.sm",
    "clocks.mem",
    "temperature.gpu",
    "pstate",
)


def write_result(path: Path, benchmark: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Write a result as JSON: its name, this run's environment, the figures, and their seal."""
    result = {"benchmark": benchmark, "environment": describe(), **figures}
    result = json.loads(json.dumps(result))
    result[SEAL] = seal(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return result


def seal(result: Mapping[str, Any]) -> str:
    """The hash of everything in a result but the seal itself."""
    body = {name: value for name, value in result.items() if name != SEAL}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def describe() -> dict[str, object]:
    """Hardware, versions, commit and command of this run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m " + " ".join([_module(), *sys.argv[1:]]),
        "commit": _git("rev-parse", "HEAD"),
        "modified": bool(_git(*CHANGES)),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "clock": _clock(),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else sys.argv[0]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _clock() -> dict[str, str | None]:
    """How the first core is clocked, if the system says."""
    folder = Path("/sys/devices/system/cpu/cpu0/cpufreq")
    files = {"governor": "scaling_governor", "max_khz": "scaling_max_freq"}
    found = {name: folder / file for name, file in files.items()}
    return {
        name: path.read_text().strip() if path.exists() else None for name, path in found.items()
    }


def _gpu() -> dict[str, str] | None:
    """The first GPU, its driver, clocks and power; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = f"--query-gpu={','.join(NVIDIA_SMI)}"
    command = ["nvidia-smi", query, "--format=csv,noheader", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    values = [value.strip() for value in done.stdout.split(",")]
    return dict(zip(NVIDIA_SMI, values, strict=True)) if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

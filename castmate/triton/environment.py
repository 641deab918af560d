"""Where tritonserver comes from: NVIDIA's container, or a wheel and a Python environment for it.

PyPI's `nvidia-pytriton` contains an unmodified tritonserver with the python backend, so the model
can be served on a machine without a GPU or Docker. Only its python stub needs numpy 1, so the
models get their own environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from castmate import __version__
from castmate.errors import SettingsError, Unavailable
from castmate.triton.server import Installation

WHEEL: Final = "nvidia-pytriton==0.7.0"  # tritonserver 2.51.0, of NGC 24.10
NUMPY: Final = "numpy>=1.26,<2"
CONTAINER_ROOT: Final = Path("/opt/tritonserver")
STUB: Final = "triton_python_backend_stub"
_STAMP: Final = "castmate.json"


def in_container(root: Path = CONTAINER_ROOT) -> Installation | None:
    """The server of NVIDIA's container, if this runs in one."""
    binary = root / "bin/tritonserver"
    return Installation(binary, root / "backends") if binary.is_file() else None


def installed(home: Path) -> Installation | None:
    """The server that `prepare` made in `home`, unless it is for other versions."""
    try:
        stamp = json.loads((home / _STAMP).read_text())
    except (OSError, ValueError):
        return None
    return _installation(home) if stamp == _versions() else None


def prepare(home: Path, constraints: Path | None = None) -> Installation:
    """Install the server and the models' environment into `home`; takes a minute.

    Args:
        home: A folder for this alone, created if needed.
        constraints: A file of pins for pip; its pin of numpy is ignored.

    Raises:
        SettingsError: This Python cannot run the server's stub.
        Unavailable: pip failed; gives its last output.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sysconfig.get_config_var("LIBDIR")) / f"libpython{python}.so.1.0"
    if not library.is_file():
        raise SettingsError(
            f"{sys.executable} has no {library}, which tritonserver's stub loads. Use a Python "
            "built as a shared library (the system's, or pyenv with "
            "PYTHON_CONFIGURE_OPTS=--enable-shared), or the container."
        )
    home.mkdir(parents=True, exist_ok=True)
    (home / _STAMP).unlink(missing_ok=True)
    python_bin = home / "venv/bin/python"
    pip: list[str | Path] = [python_bin, "-m", "pip", "install", "--quiet", "--no-input"]
    _run([sys.executable, "-m", "venv", "--clear", home / "venv"])
    pins: list[str | Path] = []
    if constraints is not None:
        lines = constraints.read_text().splitlines()
        kept = home / "constraints.txt"
        kept.write_text("\n".join(line for line in lines if not line.startswith("numpy")) + "\n")
        pins = ["--constraint", kept]
    _run([*pip, *pins, NUMPY, *_castmate()])
    shutil.rmtree(home / "server", ignore_errors=True)
    _run([*pip, "--no-deps", "--target", home / "server", WHEEL])
    _lay_out_backends(home, python)
    (home / _STAMP).write_text(json.dumps(_versions()))
    return _installation(home)


def _lay_out_backends(home: Path, python: str) -> None:
    """Make a backend folder with links to the wheel's files and the stub beside them."""
    wheel, backend = home / "server/pytriton/tritonserver", home / "backends/python"
    stub = wheel / "python_backend_stubs" / python / STUB
    if not stub.is_file():
        shipped = sorted(path.name for path in stub.parents[1].iterdir())
        raise SettingsError(
            f"{WHEEL} has no stub for Python {python}, only for {', '.join(shipped)}. Run castmate "
            "with one of those."
        )
    shutil.rmtree(backend, ignore_errors=True)
    backend.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (backend / name).symlink_to(
            Path("../../server/pytriton/tritonserver/backends/python", name)
        )
    shutil.copy2(stub, backend)


def _installation(home: Path) -> Installation:
    home = home.resolve()
    # Here the stub finds libpython and the wheel's own libraries, which it looks for beside its
    # original place.
    libraries = [sysconfig.get_config_var("LIBDIR"), str(home / "server/nvidia_pytriton.libs")]
    return Installation(
        home / "server/pytriton/tritonserver/bin/tritonserver",
        home / "backends",
        {
            "PATH": f"{home / 'venv/bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "PYTHONNOUSERSITE": "1",
        },
    )


def _versions() -> dict[str, str]:
    return {
        "wheel": WHEEL,
        "castmate": __version__,
        "python": sys.version,
        "source": _castmate()[-1],
    }


def _castmate() -> list[str]:
    """The arguments with which pip installs this same library."""
    try:
        origin = json.loads(distribution("castmate").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    if origin.get("dir_info", {}).get("editable"):
        return ["--editable", url2pathname(urlsplit(origin["url"]).path)]
    return [origin.get("url") or f"castmate=={__version__}"]


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise Unavailable(f"`{' '.join(map(str, command))}` failed:\n{last}")


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("home", type=Path, help="folder to install into")
    parser.add_argument("--constraints", type=Path, help="pins for pip")
    arguments = parser.parse_args()
    prepare(arguments.home, arguments.constraints)


if __name__ == "__main__":
    _main()

"""What the studio's page weighs, and how soon it is seen: `python -m benchmarks.studio`.

A server with the demo model and nothing drawn yet; Chromium on the same machine, so the times are
the server's and the browser's, without a network. `make mcp-checks` installs the browser.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx2
from rich.console import Console
from rich.table import Table

from benchmarks.record import RESULTS
from benchmarks.server_process import castmate_serve
from export.environment import write_result

DRIVER: Final = Path(__file__).with_name("first_paint.mjs")
NODE: Final = Path(sys.executable).with_name("node")
TIMES: Final = ("first_paint_ms", "usable_ms")
TIMEOUT_S: Final = 300.0
GZIP_LEVEL: Final = 6  # zlib's own choice


def measure(url: str, loads: int) -> dict[str, Any]:
    """The page's bytes, its requests and its times, over so many first visits."""
    page = httpx2.get(f"{url}/").content
    done = subprocess.run(
        [str(NODE), str(DRIVER), f"{url}/", str(loads)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
    )
    visits = json.loads(done.stdout)
    files = {tuple(_files(visit["paths"])) for visit in visits}
    return {
        "loads": loads,
        "bytes": {"raw": len(page), "gzip": len(gzip.compress(page, GZIP_LEVEL))},
        "requests": {
            "page": max(map(len, files)),
            "api": max(len(visit["paths"]) - len(_files(visit["paths"])) for visit in visits),
        },
        "times": {name: summary([visit[name] for visit in visits]) for name in TIMES},
    }


def summary(found: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    values = {"p50": statistics.median(found), "min": min(found), "max": max(found)}
    return {name: round(value, 1) for name, value in values.items()}


def _files(paths: Sequence[str]) -> list[str]:
    """The page and what belongs to it, as far as it is not the data that it shows."""
    return [path for path in paths if not path.startswith("/api/")]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studio", description=__doc__)
    parser.add_argument("--loads", type=int, default=20, help="first visits (default 20)")
    parser.add_argument("--out", type=Path, default=RESULTS / "studio.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, castmate_serve(Path(folder)) as server:
        figures = measure(server.url, options.loads)
    show(write_result(options.out, "studio", figures))


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title=f"{report['loads']} first visits, {report['environment']['cpu']}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for kind in ("bytes", "requests", "times"):
        for name, figure in report[kind].items():
            table.add_row(f"{kind}: {name}", str(figure))
    Console().print(table)


if __name__ == "__main__":
    main()

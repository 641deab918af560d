"""What Triton adds to the bare pipeline, and what failures cost: `python -m benchmarks.triton`.

The same requests go to a `LocalClient` in this process and to a tritonserver on this machine, in
turns, with the same bundle and the same number of threads. Both queue requests and draw one at a
time; the wait for a turn is subtracted from what Triton adds. Failures are timed from the signal
to the client's error.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import perf_analyzer
from castmate.clients.base import Client, Progress
from castmate.clients.local import LocalClient
from castmate.clients.triton.client import TritonClient
from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.choose import open_runtime
from castmate.errors import ImageRejected, Unavailable
from castmate.images import MAX_BYTES, Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest, GenerateResult
from castmate.triton.environment import installed, prepare
from castmate.triton.server import Ports, TritonServer
from export.environment import write_result

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
REFERENCE = ROOT / "castmate/bundles/toon/references/mira.png"
CONCURRENCIES = (1, 2, 4)
CROWD = 24  # more than may wait: `max_waiting` in config.pbtxt is 16


@dataclass(frozen=True)
class Sample:
    """One request, in milliseconds.

    Attributes:
        wall_ms: Time as the caller saw it.
        stages_ms: Times of the pipeline's stages.
        steps: Denoise steps.
    """

    wall_ms: float
    stages_ms: dict[str, float]
    steps: int

    @property
    def step_ms(self) -> float:
        """One step, reporting included."""
        return self.stages_ms["denoise"] / self.steps

    @property
    def outside_ms(self) -> float:
        """Time outside every stage: decoding the reference, queue, wire."""
        parts = sum(ms for stage, ms in self.stages_ms.items() if stage not in ("total", "queue"))
        return self.wall_ms - parts - self.stages_ms.get("queue", 0.0)


class NotingPipeline(Pipeline):
    """Records when each request's turn came; the Triton model reports its `queue` itself."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        super().__init__(bundle, runtime)
        self.began: dict[int, float] = {}

    def generate(self, request: GenerateRequest, *args: Any, **kwargs: Any) -> GenerateResult:
        """See `Pipeline`."""
        self.began[request.seed] = time.perf_counter()
        return super().generate(request, *args, **kwargs)


async def timed(
    client: Client,
    request: GenerateRequest,
    reference: Reference,
    pipeline: NotingPipeline | None = None,
) -> Sample:
    """Draw and time one picture; `pipeline` is that of a client in this process."""
    start = time.perf_counter()
    result = await client.generate(request, reference, lambda progress: None)
    wall_ms = 1000 * (time.perf_counter() - start)
    stages_ms = dict(result.timings_ms)
    if pipeline is not None:
        stages_ms["queue"] = 1000 * (pipeline.began[request.seed] - start)
    return Sample(wall_ms, stages_ms, result.drawn_with["num_inference_steps"])


async def load(
    client: Client,
    request: GenerateRequest,
    concurrency: int,
    runs: int,
    pipeline: NotingPipeline | None,
) -> list[Sample]:
    """`runs` requests, `concurrency` at a time, each decoding its reference as a server would."""
    left = iter(range(runs))
    samples: list[Sample] = []
    data = REFERENCE.read_bytes()

    async def caller() -> None:
        for seed in left:
            reference = Reference.from_bytes(data, "the reference")
            seeded = request.model_copy(update={"seed": seed})
            samples.append(await timed(client, seeded, reference, pipeline))

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return samples


def summarize(samples: Sequence[Sample]) -> dict[str, float]:
    """Medians, and the fastest step: a busy machine makes steps slower, never faster."""
    return {
        "wall_p50_ms": round(statistics.median(sample.wall_ms for sample in samples), 2),
        "step_p50_ms": round(statistics.median(sample.step_ms for sample in samples), 3),
        "step_min_ms": round(min(sample.step_ms for sample in samples), 3),
        "outside_p50_ms": round(statistics.median(sample.outside_ms for sample in samples), 2),
    }


async def compare(
    local: Client, triton: Client, pipeline: NotingPipeline, request: GenerateRequest, runs: int
) -> list[dict[str, Any]]:
    """Both clients at each concurrency, in turns A B B A."""
    rows = []
    for concurrency in CONCURRENCIES:
        samples: dict[str, list[Sample]] = {"local": [], "triton": []}
        turn = max(runs // 2, concurrency)
        for client in (local, triton, triton, local):
            noting = pipeline if client is local else None
            samples[client.name] += await load(client, request, concurrency, turn, noting)
        figures = {name: summarize(found) for name, found in samples.items()}
        rows.append(
            {
                "concurrency": concurrency,
                "runs": len(samples["local"]),
                **figures,
                "added_per_request_p50_ms": _difference(figures, "outside_p50_ms"),
                "added_per_step_p50_ms": _difference(figures, "step_p50_ms"),
                "added_per_step_min_ms": _difference(figures, "step_min_ms"),
            }
        )
    return rows


def _difference(figures: dict[str, dict[str, float]], name: str) -> float:
    return round(figures["triton"][name] - figures["local"][name], 3)


def memory(server: TritonServer) -> dict[str, float]:
    """Resident and proportional memory of the server and of the model's process, MiB."""
    found: dict[str, float] = {}
    for name, pid in (("server", server.pid), ("model", model_of(server))):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        for key in ("Rss", "Pss"):
            match = re.search(rf"^{key}:\s+(\d+)", rollup, re.MULTILINE)
            assert match is not None
            found[f"{name}_{key.lower()}_mib"] = round(int(match[1]) / 1024, 1)
    return found


def model_of(server: TritonServer) -> int:
    """The model's process, the only other one in the server's group."""
    groups = {
        int(path.parent.name): path.read_text().rpartition(")")[2].split()[2]
        for path in Path("/proc").glob("[0-9]*/stat")
    }
    (model,) = [pid for pid, group in groups.items() if group == str(server.pid) != str(pid)]
    return model


async def strike(
    client: TritonClient, request: GenerateRequest, reference: Reference, hit: Callable[[], object]
) -> dict[str, Any]:
    """Break something after the first step; seconds until the client's error, and its text."""
    struck_at = 0.0

    def after_the_first_step(progress: Progress) -> None:
        nonlocal struck_at
        if progress.step == 1:
            struck_at = time.perf_counter()
            hit()

    try:
        await client.generate(request, reference, after_the_first_step)
    except Unavailable as error:
        return {"error_after_s": round(time.perf_counter() - struck_at, 3), "error": str(error)}
    raise RuntimeError("the client did not notice")


async def failures(
    client: TritonClient, server: TritonServer, quick: GenerateRequest, reference: Reference
) -> dict[str, Any]:
    """kill -9 of the server and of its model, SIGSTOP, refusals, and recovery."""
    refused = await refusals(client, quick, reference)
    slow = quick.model_copy(update={"num_images": 4, "num_inference_steps": 50})
    killed = await strike(client, slow, reference, lambda: os.kill(server.pid, signal.SIGKILL))
    server.kill()
    start = time.perf_counter()
    server.start()
    ready_s = time.perf_counter() - start
    await client.generate(quick, reference)
    recovery = {
        "ready_s": round(ready_s, 2),
        "first_picture_s": round(time.perf_counter() - start, 2),
    }
    orphaned = await strike(
        client, slow, reference, lambda: os.kill(model_of(server), signal.SIGKILL)
    )
    server.kill()
    server.start()
    frozen = await strike(client, slow, reference, lambda: os.kill(server.pid, signal.SIGSTOP))
    os.kill(server.pid, signal.SIGCONT)
    return {
        "kill_9": killed,
        "restart": recovery,
        "kill_9_of_the_model": orphaned,
        "sigstop": frozen,
        **refused,
    }


async def refusals(
    client: TritonClient, quick: GenerateRequest, reference: Reference
) -> dict[str, Any]:
    """Seconds until an oversized image and one request too many are refused."""
    oversized = dataclasses.replace(reference, data=bytes(MAX_BYTES + 1))
    start = time.perf_counter()
    try:
        await client.generate(quick, oversized)
        raise RuntimeError("an oversized image was accepted")
    except ImageRejected as error:
        message = str(error)
    image = {"error_after_s": round(time.perf_counter() - start, 3), "error": message}
    start = time.perf_counter()
    crowd = [asyncio.ensure_future(client.generate(quick, reference)) for _ in range(CROWD)]
    await asyncio.wait(crowd, return_when=asyncio.FIRST_EXCEPTION)
    after_s = time.perf_counter() - start
    (first, *_) = filter(None, (task.exception() for task in crowd if task.done()))
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    full = {"error_after_s": round(after_s, 3), "error": str(first), "requests": CROWD}
    return {"oversized_image": image, "full_queue": full}


async def measure(options: argparse.Namespace, server: TritonServer) -> dict[str, Any]:
    """Run everything against one server."""
    request = GenerateRequest.parse(
        {
            "prompt": "waving on the beach",
            "image": "the reference",
            "size": options.size,
            "num_inference_steps": options.steps,
            "output_format": "jpeg",
        }
    )
    reference = Reference.from_bytes(REFERENCE.read_bytes(), REFERENCE.name)
    bundle = Bundle.open("toon")
    pipeline = NotingPipeline(bundle, open_runtime(bundle, threads=options.threads))
    local = LocalClient(pipeline)
    triton = TritonClient((server.url,))
    try:
        first = await timed(triton, request, reference)
        again = await timed(triton, request, reference)
        await local.generate(request, reference)
        rows = await compare(local, triton, pipeline, request, options.runs)
        held = memory(server)
        broken = await failures(
            triton, server, request.model_copy(update={"num_inference_steps": 2}), reference
        )
    finally:
        await local.aclose()
        await triton.aclose()
    return {
        "request": request.model_dump(mode="json", exclude={"image"}),
        "subject_stage_ms": {
            "new character": first.stages_ms["subject"],
            "known character": again.stages_ms["subject"],
        },
        "rows": rows,
        "memory_mib": held,
        "failures": broken,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triton", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="counted pictures each (default 20)")
    parser.add_argument("--size", default="512*512", help="W*H (default 512*512)")
    parser.add_argument("--steps", type=int, default=28, help="denoise steps (default 28)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each (default 1)")
    parser.add_argument("--home", type=Path, default=ROOT / ".venv-triton")
    parser.add_argument(
        "--perf-analyzer",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run NVIDIA's load generator too, which is downloaded (14 MB) at first use",
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "triton.json")
    options = parser.parse_args()
    installation = installed(options.home) or prepare(options.home)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        server = TritonServer(
            installation,
            ROOT / "triton_models",
            Ports.free(),
            folder / "tritonserver.log",
            environment={"CASTMATE_BUNDLE": "toon", "CASTMATE_THREADS": str(options.threads)},
        )
        with server:
            figures = asyncio.run(measure(options, server))
            if options.perf_analyzer:
                request = GenerateRequest.parse({**figures["request"], "image": "-"})
                figures["perf_analyzer"] = perf_analyzer.load(
                    perf_analyzer.install(options.home),
                    (options.home / "server/nvidia_pytriton.libs").resolve(),
                    server,
                    request,
                    REFERENCE,
                    folder,
                )
    show(write_result(options.out, "triton", figures))


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table(title=f"toon through Triton, {report['environment']['cpu']}")
    headings = ("concurrency", "local p50 ms", "Triton p50 ms", "+ per request", "+ per step")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in report["rows"]:
        table.add_row(
            str(row["concurrency"]),
            f"{row['local']['wall_p50_ms']:.0f}",
            f"{row['triton']['wall_p50_ms']:.0f}",
            f"{row['added_per_request_p50_ms']:.1f}",
            f"{row['added_per_step_p50_ms']:.2f}",
        )
    console = Console()
    console.print(table)
    for row in report.get("perf_analyzer", ()):
        console.print(f"perf_analyzer: {json.dumps(row)}")
    for name in ("subject_stage_ms", "memory_mib", "failures"):
        console.print(f"{name}: {json.dumps(report[name])}")


if __name__ == "__main__":
    main()

"""The contenders by name, and the process that runs one of them.

`python -m benchmarks.contenders NAME SETUP`; see `benchmarks.protocol`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.protocol import Draw, Drawn, Setup, Unfit, peak_memory_mib
from castmate.clients.base import Progress
from castmate.errors import BundleError, CastmateError
from castmate.images import Reference
from castmate.schema import Cache, GenerateRequest

Opener = Callable[[Setup, ExitStack], Draw]
FP8_SINCE = (8, 9)


class Class(StrEnum):
    """How a contender's picture relates to the exact one; two classes never share a table."""

    EXACT = "exact"
    NEAR_LOSSLESS = "near-lossless"
    CACHED = "cached"
    FEW_STEPS = "few steps"
    STYLE = "style"
    HOSTED = "hosted"


@dataclass(frozen=True)
class Contender:
    """One way to make the picture.

    Attributes:
        kind: Its class.
        opener: `module:function`, loaded only in the contender's process.
        options: Keyword arguments of the function.
    """

    kind: Class
    opener: str
    options: Mapping[str, str] | None = None

    @property
    def in_process(self) -> bool:
        """Whether its own process draws, so that its memory is meaningful."""
        return not self.opener.startswith("served:")

    def open(self, setup: Setup, ends: ExitStack) -> Draw:
        """Load it.

        Args:
            setup: What every contender gets.
            ends: Collects what must be closed.

        Raises:
            Unfit: It cannot run here.
        """
        module, _, name = self.opener.partition(":")
        function: Callable[..., Draw] = getattr(import_module(f"benchmarks.{module}"), name)
        return function(setup, ends, **(self.options or {}))


CONTENDERS: Mapping[str, Contender] = {
    "castmate": Contender(Class.EXACT, "contenders:castmate_local"),
    "diffusers-eager": Contender(Class.EXACT, "torch_contenders:diffusers_eager"),
    "torch-eager": Contender(Class.EXACT, "torch_contenders:torch_hoisted"),
    "torch-compile": Contender(Class.EXACT, "torch_contenders:torch_compile"),
    "torch-compile-fp8": Contender(Class.NEAR_LOSSLESS, "contenders:torch_compile_fp8"),
    "tensorrt": Contender(Class.EXACT, "contenders:castmate_tensorrt"),
    "tensorrt-fp8": Contender(
        Class.NEAR_LOSSLESS, "contenders:castmate_tensorrt", {"quantization": "fp8"}
    ),
    "castmate-balanced": Contender(
        Class.CACHED, "contenders:castmate_local", {"cache": "balanced"}
    ),
    "castmate-fast": Contender(Class.CACHED, "contenders:castmate_local", {"cache": "fast"}),
    "castmate-triton": Contender(Class.EXACT, "served:castmate_triton"),
    "castmate-rest": Contender(Class.EXACT, "served:castmate_rest"),
    "castmate-mcp-stdio": Contender(Class.EXACT, "served:castmate_mcp_stdio"),
    "castmate-mcp-http": Contender(Class.EXACT, "served:castmate_mcp_http"),
    "wavespeed": Contender(Class.HOSTED, "served:wavespeed"),
}


def castmate_local(setup: Setup, ends: ExitStack, cache: str = "off") -> Draw:
    """The product as installed, in this process, with its default prompt and character caches."""
    from castmate.clients.local import LocalClient
    from castmate.engines.bundle import Bundle
    from castmate.settings import Settings

    if cache != "off" and not Bundle.open(setup.bundle).has_step_caching:
        raise Unfit(f"bundle {setup.bundle!r} cannot skip steps: python -m demo_model.build")
    client = LocalClient.open(Settings.load(bundle=setup.bundle, threads=setup.threads))
    runner = ends.enter_context(asyncio.Runner())
    ends.callback(lambda: runner.run(client.aclose()))

    def draw(request: GenerateRequest) -> Drawn:
        path, ticks = Path(request.image), []

        def on_progress(progress: Progress) -> None:
            ticks.append(time.perf_counter())

        reference = Reference.from_bytes(path.read_bytes(), path.name)
        asked = request.model_copy(update={"cache": Cache(cache)})
        result = runner.run(client.generate(asked, reference, on_progress))
        # The last event arrives when the picture is decoded, not when its last step is done.
        steps_ms = [1000 * (b - a) for a, b in itertools.pairwise(ticks[:-1])]
        return Drawn(result.timings_ms, tuple(steps_ms), result.computed_steps)

    return draw


def castmate_tensorrt(setup: Setup, ends: ExitStack, quantization: str = "") -> Draw:
    """The same with TensorRT plans."""
    from dataclasses import replace

    from castmate.engines.bundle import Bundle

    if not setup.plans:
        raise Unfit("no TensorRT plans were given: --plans FOLDER (python -m export.all makes one)")
    precision = Bundle.open(setup.plans).manifest.precision
    if ("fp8" in precision) != (quantization == "fp8"):
        raise Unfit(f"the plans in --plans are {precision}")
    return castmate_local(replace(setup, bundle=setup.plans), ends)


def torch_compile_fp8(setup: Setup, ends: ExitStack) -> Draw:
    """Compiled torch with FP8 GEMMs; where it cannot run, diffusers is not loaded to say so."""
    import torch

    if not torch.cuda.is_available():
        raise Unfit("FP8 GEMMs need an NVIDIA GPU of compute capability 8.9 or newer; none is here")
    if (found := torch.cuda.get_device_capability()) < FP8_SINCE:
        raise Unfit(f"FP8 GEMMs need compute capability 8.9 or newer; this GPU has {found}")
    from benchmarks import torch_contenders

    return torch_contenders.torch_compile_fp8(setup, ends)


def main() -> None:
    """Answer requests until stdin ends."""
    name, setup = sys.argv[1], Setup.from_json(sys.argv[2])
    answers, sys.stdout = sys.stdout, sys.stderr
    start = time.perf_counter()

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers)
        answers.flush()

    def state() -> dict[str, Any]:
        heavy = sorted({"torch", "diffusers", "transformers"} & set(sys.modules))
        return {"peak_mib": peak_memory_mib(), "loaded": heavy}

    with ExitStack() as ends:
        try:
            draw = CONTENDERS[name].open(setup, ends)
        except (Unfit, BundleError) as error:
            return answer(reason=str(error))
        answer(load_ms=1000 * (time.perf_counter() - start), **state())
        for line in sys.stdin:
            request = GenerateRequest.parse(json.loads(line))
            start = time.perf_counter()
            try:
                drawn = draw(request)
            except (Unfit, CastmateError) as error:
                answer(reason=str(error))
                continue
            total_ms = 1000 * (time.perf_counter() - start)
            answer(total_ms=total_ms, **asdict(drawn), **state())


if __name__ == "__main__":
    main()

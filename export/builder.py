"""One ONNX graph to one TensorRT plan, in a process of its own: `python -m export.builder JOB`.

Of its own, because a builder keeps what it took, a second target in one process can fail, and a
killed build must not take the others with it. `export.build` starts it; the two share a folder.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Self

from castmate.engines.plan import Flavour, ShapeRange
from export.errors import ExportError, MissingTool

PIP = {
    Flavour.TENSORRT: "tensorrt",
    Flavour.TENSORRT_RTX: "tensorrt_rtx_cu13==1.7.1.116",
}


@dataclass(frozen=True)
class Job:
    """What one builder process does.

    Attributes:
        graph: Name.
        onnx: Its file.
        plan: Where to write the plan.
        log: Where to write the builder's messages, one JSON string a line.
        flavour: Which TensorRT.
        target: Compute capability, such as "8.9".
        profiles: Shapes by input.
        weight_streaming: Let weights live in host memory at run time: slower, fits anywhere.
        optimization_level: 0 to 5; None is TensorRT's default.
        timing_cache: Kernel timings of earlier builds; RTX ignores them.
    """

    graph: str
    onnx: Path
    plan: Path
    log: Path
    flavour: Flavour
    target: str
    profiles: tuple[dict[str, ShapeRange], ...]
    weight_streaming: bool = False
    optimization_level: int | None = None
    timing_cache: Path | None = None

    def save(self, path: Path) -> None:
        """Write it for the builder process."""
        values = asdict(self) | {
            "profiles": [
                {name: shape.model_dump() for name, shape in profile.items()}
                for profile in self.profiles
            ]
        }
        path.write_text(json.dumps(values, default=str))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        values = json.loads(path.read_bytes())
        for name in ("onnx", "plan", "log", "timing_cache"):
            values[name] = Path(values[name]) if values[name] else None
        values["flavour"] = Flavour(values["flavour"])
        values["profiles"] = tuple(
            {name: ShapeRange.model_validate(shape) for name, shape in profile.items()}
            for profile in values["profiles"]
        )
        return cls(**values)


def load_tensorrt(flavour: Flavour) -> Any:
    """Import a TensorRT.

    Raises:
        MissingTool: It is not installed; says which wheel or container has it.
    """
    try:
        return importlib.import_module(flavour.value)
    except ImportError as error:
        other = (
            "It builds on any machine, without a GPU, for RTX 30 to 50, L40S and RTX PRO."
            if flavour is Flavour.TENSORRT_RTX
            else "Or work in NVIDIA's container tensorrt:YY.MM-py3, on the GPU that the engine is "
            "for. For RTX cards, --flavour tensorrt_rtx builds without one."
        )
        raise MissingTool(
            f"{flavour.value} is not installed ({error}). "
            f"Run: pip install '{PIP[flavour]}'. {other}"
        ) from None


def installed() -> list[Flavour]:
    """The flavours that can be imported here, data-centre TensorRT first."""
    found = []
    for flavour in Flavour:
        try:
            importlib.import_module(flavour.value)
        except ImportError:
            continue
        found.append(flavour)
    return found


def tensorrt_version(flavour: Flavour) -> str:
    """Of the installed library; plans of another version are refused."""
    return str(load_tensorrt(flavour).__version__)


def build(job: Job) -> None:
    """Write the plan.

    Raises:
        ExportError: TensorRT refused the graph; its own words are in the message.
    """
    trt = load_tensorrt(job.flavour)
    logger = _logger(trt)
    builder = trt.Builder(logger)
    # Its value differs between versions, and newer ones are always strongly typed.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(job.onnx)):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"TensorRT cannot read graph {job.graph!r}: {errors}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if job.optimization_level is not None:
        config.builder_optimization_level = job.optimization_level
    if job.weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    if hasattr(trt, "ComputeCapability"):
        config.num_compute_capabilities = 1
        name = f"SM{job.target.replace('.', '')}"
        config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    for ranges in job.profiles:
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            value = network.get_input(index)
            shape = ranges[value.name]
            if -1 in tuple(value.shape):
                profile.set_shape(value.name, shape.min, shape.opt, shape.max)
        config.add_optimization_profile(profile)
    cache = _timing_cache(config, job)
    try:
        with job.plan.open("wb") as stream:
            # In one piece, the plan would lie in host memory beside all that it is made from.
            writer = _writer(trt, stream)
            done = builder.build_serialized_network_to_stream(network, config, writer)
            if writer.error is not None:
                raise writer.error
    except OSError as error:
        raise ExportError(
            f"The plan of graph {job.graph!r} cannot be written: {error}. Make room on the disk, "
            "or choose another --out."
        ) from None
    if done and not any(line.startswith("Layers:") for line in logger.lines):
        logger.lines.append(inspect(trt, logger, job.plan))
    job.log.write_text("\n".join(map(json.dumps, logger.lines)))
    if not done:
        said = "; ".join(logger.errors[-3:]) or "no reason given"
        raise ExportError(f"TensorRT cannot build graph {job.graph!r}: {said}")
    if cache is not None and job.timing_cache is not None:
        job.timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))


def inspect(trt: Any, logger: Any, plan: Path) -> str:
    """What the engine inspector says of a plan in JSON; nothing where it cannot be loaded."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        return ""
    said = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return str(said)


def _timing_cache(config: Any, job: Job) -> Any:
    if job.timing_cache is None:
        return None
    data = job.timing_cache.read_bytes() if job.timing_cache.is_file() else b""
    cache = config.create_timing_cache(data)
    config.set_timing_cache(cache, ignore_mismatch=True)
    return cache


def _writer(trt: Any, stream: BinaryIO) -> Any:
    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        """Writes what TensorRT hands over. TensorRT looks at no count: `error` says what failed."""

        error: OSError | None = None

        def write(self, data: bytes) -> int:
            """Called by TensorRT."""
            try:
                return stream.write(data)
            except OSError as error:  # it must not pass through TensorRT's C++
                self.error = error
                return 0

    return Writer()


def _logger(trt: Any) -> Any:
    class Recorder(trt.ILogger):  # type: ignore[misc]
        """Keeps the layer table and the errors."""

        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            if severity != trt.ILogger.Severity.VERBOSE or message.startswith(
                ("Layers:", "Total ")
            ):
                self.lines.append(message)

    return Recorder()


def package_version(flavour: Flavour) -> str:
    """Of the wheel, for the bundle's list of versions; the library's where there is no wheel."""
    name = PIP[flavour].partition("==")[0]
    try:
        return version(name)
    except PackageNotFoundError:
        return tensorrt_version(flavour)


def main() -> int:
    """Build one job; the reason of a failure goes to standard error as one line."""
    job = Job.load(Path(sys.argv[1]))
    try:
        build(job)
    except ExportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

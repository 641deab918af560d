"""Graphs of a bundle against the torch network on the same inputs, one by one and as a picture.

Works on any runtime that can be opened here: ONNX Runtime on a CPU, TensorRT on its GPU. The
reference is the network in fp32, not quantized.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.choose import open_runtime
from castmate.errors import CastmateError
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from export.errors import ExportError
from export.family import Network, bundle_graphs, parser, published
from export.precision import Precision
from export.quantization.registry import SCHEMES
from export.quantization.scheme import Limits, Scheme
from export.samples import Prompts, Sample, samples
from export.trajectory import decode, denoise


class VerificationError(ExportError):
    """A graph computes something else than the network; names it and by how much."""


@dataclass(frozen=True)
class Difference:
    """How one output differs.

    Attributes:
        output: `graph.output`.
        max_abs: Largest difference.
        relative_l2: Norm of the difference by that of the expected values.
        cosine: Between both.
    """

    output: str
    max_abs: float
    relative_l2: float
    cosine: float

    @classmethod
    def between(cls, output: str, found: np.ndarray, expected: np.ndarray) -> Difference:
        """Compare two arrays in fp64.

        Raises:
            VerificationError: Of another shape, or not finite.
        """
        if found.shape != expected.shape:
            raise VerificationError(f"{output}: shape {found.shape}, torch has {expected.shape}.")
        a, b = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
        if not np.isfinite(a).all():
            raise VerificationError(f"{output}: {np.sum(~np.isfinite(a))} values are not finite.")
        norms = float(np.linalg.norm(a) * np.linalg.norm(b))
        return cls(
            output,
            float(np.abs(a - b).max()),
            float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-30)),
            float(a @ b) / norms if norms else float(not a.any() and not b.any()),
        )


def verify_graphs(
    bundle: Bundle, runtime: Runtime, network: Network, limits: Limits
) -> list[Difference]:
    """Compare every graph of the bundle on random inputs.

    Args:
        bundle: Whose graphs.
        runtime: What runs them.
        network: In fp32, not quantized.
        limits: From `limits_of`.

    Raises:
        VerificationError: Lists every output beyond the limits.
    """
    differences = []
    torch.manual_seed(0)
    for name, make in bundle_graphs(network, step_caching=bundle.has_step_caching).items():
        graph, spec = make(), bundle.manifest.graphs[name]
        with torch.no_grad():
            expected = graph.module(*graph.inputs.values())
        outputs = (expected,) if isinstance(expected, Tensor) else expected
        inputs = {
            key: runtime.upload(_as(value.numpy(), spec.inputs[key].dtype))
            for key, value in graph.inputs.items()
        }
        found = runtime.load(name)(**inputs)
        for output, wanted in zip(graph.outputs, outputs, strict=True):
            values, reference = runtime.download(found[output]), wanted.numpy()
            if output == "next_latents":
                start = graph.inputs["latents"].numpy()
                values, reference = values - start, reference - start
            differences.append(Difference.between(f"{name}.{output}", values, reference))
    if beyond := [d for d in differences if _beyond(d, limits)]:
        raise VerificationError(
            "These outputs are not the network's:\n  " + "\n  ".join(map(_say, beyond))
        )
    return differences


def verify_picture(
    bundle: Bundle,
    runtime: Runtime,
    network: Network,
    prompts: Prompts,
    sample: Sample,
    steps: int,
    limits: Limits,
) -> float:
    """Draw one picture with both and compare them.

    Returns:
        PSNR in dB.

    Raises:
        VerificationError: It is below the limit.
    """
    request = GenerateRequest.parse(
        {
            "prompt": sample.prompt,
            "image": str(sample.reference),
            "size": f"{sample.width}*{sample.height}",
            "seed": sample.seed,
            "num_inference_steps": steps,
            "guidance_scale": sample.guidance_scale,
            "subject_scale": sample.subject_scale,
            "enable_safety_checker": False,
        }
    )
    reference = Reference.from_bytes(sample.reference.read_bytes(), sample.reference.name)
    result = Pipeline(bundle, runtime).generate(request, reference, lambda done, total: None)
    found = np.asarray(Image.open(BytesIO(result.images[0].data)).convert("RGB"))
    expected = decode(network, denoise(network, sample, prompts, steps))
    psnr = psnr_db(found, expected)
    if psnr < limits.psnr_db:
        raise VerificationError(
            f"The picture differs from torch's: PSNR {psnr:.1f} dB, at least {limits.psnr_db} dB "
            "is wanted."
        )
    return psnr


def psnr_db(found: np.ndarray, expected: np.ndarray) -> float:
    """Peak signal to noise of two 8-bit pictures; 100 where they are equal."""
    mse = float(np.square(found.astype(float) - expected).mean())
    return min(100.0, float(10 * np.log10(255**2 / max(mse, 1e-10))))


def _as(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def _beyond(difference: Difference, limits: Limits) -> bool:
    return difference.relative_l2 > limits.relative_l2 or difference.cosine < limits.cosine


def _say(difference: Difference) -> str:
    return (
        f"{difference.output}: relative L2 {difference.relative_l2:.2e}, cosine "
        f"{difference.cosine:.5f}, largest difference {difference.max_abs:.2e}"
    )


def main() -> int:
    """Verify a bundle of the published network."""
    line = parser("python -m export.verify", __doc__, None)
    line.add_argument("bundle", help="name or folder")
    line.add_argument("--precision", type=Precision, choices=Precision, required=True)
    line.add_argument("--quantization", choices=list(SCHEMES), required=True)
    line.add_argument("--steps", type=int, default=28)
    line.add_argument("--side", type=int, default=1024, help="pixels")
    given = line.parse_args()
    try:
        limits = limits_of(given.precision, SCHEMES[given.quantization])
        bundle = Bundle.open(given.bundle)
        if bundle.manifest.family != given.family:
            raise ExportError(
                f"Bundle {bundle.name!r} is of family {bundle.manifest.family!r}: name it with "
                "--family."
            )
        runtime, family = open_runtime(bundle), published(given.family)
        sources, config = family.sources.of(given), family.config
        network = family.load_network(sources, torch.float32, config)
        for difference in verify_graphs(bundle, runtime, network, limits):
            print(_say(difference))
        with tempfile.TemporaryDirectory() as folder:
            prompts = Prompts.of_files(family.load_tokenizers(sources, config, Path(folder)))
        (sample,) = samples(1, given.side)
        psnr = verify_picture(bundle, runtime, network, prompts, sample, given.steps, limits)
        print(f"picture: PSNR {psnr:.1f} dB")
    except (ExportError, CastmateError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def limits_of(precision: Precision, quantization: Scheme) -> Limits:
    """What the scheme accepts at a precision.

    PSNR of bf16 and below is loose on purpose: without any loss it is fragile, 19 dB between two
    exact kernels at full size. `benchmarks.quantization` compares with such a control.

    Raises:
        VerificationError: It has no limits for it.
    """
    if (limits := quantization.limits.get(precision)) is None:
        known = ", ".join(f"{p} with {s}" for s in SCHEMES.values() for p in s.limits)
        raise VerificationError(
            f"No limits for {precision} with {quantization}; there are {known}."
        )
    return limits


if __name__ == "__main__":
    sys.exit(main())

"""A bundle against the torch network: graphs by their golden tensors, and a picture.

Works on any runtime that can be opened here: ONNX Runtime on a CPU, TensorRT on its GPU. The
reference is the network in fp32, not quantized.
"""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.choose import open_runtime
from castmate.engines.golden import Difference, say
from castmate.engines.proof import differences
from castmate.errors import CastmateError
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from export.errors import ExportError
from export.family import Network, parser, published
from export.precision import Precision
from export.quantization.registry import SCHEMES, least_psnr_db
from export.samples import Prompts, Sample, samples
from export.trajectory import decode, denoise


class VerificationError(ExportError):
    """A graph computes something else than the network; names it and by how much."""


def verify_graphs(bundle: Bundle, runtime: Runtime) -> list[Difference]:
    """Compare every graph of the bundle with its golden tensors.

    Args:
        bundle: Whose graphs.
        runtime: What runs them; not one that refuses wrong graphs itself.

    Raises:
        VerificationError: Lists every output beyond the limits, or a graph without golden tensors.
    """
    found = dict(differences(bundle, runtime))
    if missing := [graph for graph, outputs in found.items() if not outputs]:
        raise VerificationError(
            f"Bundle {bundle.name!r} has no golden tensors of {', '.join(missing)}. Export it "
            "again."
        )
    every = [difference for outputs in found.values() for difference in outputs]
    if beyond := [difference for difference in every if not difference.is_allowed]:
        raise VerificationError(f"These outputs are not the network's:\n  {say(beyond)}")
    return every


def verify_picture(
    bundle: Bundle,
    runtime: Runtime,
    network: Network,
    prompts: Prompts,
    sample: Sample,
    steps: int,
    least_db: float,
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
    if psnr < least_db:
        raise VerificationError(
            f"The picture differs from torch's: PSNR {psnr:.1f} dB, at least {least_db} dB "
            "is wanted."
        )
    return psnr


def psnr_db(found: np.ndarray, expected: np.ndarray) -> float:
    """Peak signal to noise of two 8-bit pictures; 100 where they are equal."""
    mse = float(np.square(found.astype(float) - expected).mean())
    return min(100.0, float(10 * np.log10(255**2 / max(mse, 1e-10))))


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
        least = least_psnr_db(given.precision, SCHEMES[given.quantization])
        bundle = Bundle.open(given.bundle)
        if bundle.manifest.family != given.family:
            raise ExportError(
                f"Bundle {bundle.name!r} is of family {bundle.manifest.family!r}: name it with "
                "--family."
            )
        runtime, family = open_runtime(bundle, prove=False), published(given.family)
        print(*verify_graphs(bundle, runtime), sep="\n")
        sources, config = family.sources.of(given), family.config
        network = family.load_network(sources, torch.float32, config)
        with tempfile.TemporaryDirectory() as folder:
            prompts = Prompts.of_files(family.load_tokenizers(sources, config, Path(folder)))
        (sample,) = samples(1, given.side)
        psnr = verify_picture(bundle, runtime, network, prompts, sample, given.steps, least)
        print(f"picture: PSNR {psnr:.1f} dB")
    except (ExportError, CastmateError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

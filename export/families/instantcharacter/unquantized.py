"""Which parts of InstantCharacter's denoiser stay as they are, whatever the scheme."""

from __future__ import annotations

SENSITIVE = (
    ".x_embedder",
    ".context_embedder",
    ".time_text_embed",
    ".norm_out",
    "transformer.proj_out",
)
"""Embedders and the end of the network, as in NVIDIA's FLUX recipe: few FLOPs, and an error in them
reaches every token. A single block's own `proj_out` is quantized."""

MODULATIONS = (".norm.linear", ".norm1.linear", ".norm1_context.linear")
"""The blocks' modulations stay as they are by default, unlike in NVIDIA's recipe.

They run on one row, so FP8 would save their bytes, 3.2 GB of FLUX, and hardly any arithmetic. Their
own errors are the smallest of all layers, and yet the demo model's pictures suffer: 29.9 to 29.4 dB
in the median, 20.5 to 13.8 dB in the worst one (benchmarks/results/fp8-toon.json). With FLUX.1-dev,
vllm-omni reported noise instead of pictures until sensitive layers were left alone (#2728, #2795).
If you have the weights but not the room, try `--fp8-modulation`.
"""


def unquantized(*, modulation: bool = False) -> tuple[str, ...]:
    """Parts of layer names for `export.quantization.quantize`.

    Args:
        modulation: Quantize the blocks' modulations as well.
    """
    return SENSITIVE if modulation else SENSITIVE + MODULATIONS

"""Which parts of InstantCharacter stay as they are, whatever the scheme."""

from __future__ import annotations

ENCODERS = (".text_encoder_2", ".image_encoder", ".image_encoder_2", ".subject_projector")
"""T5, SigLIP, DINOv2 and the projector, which may be quantized as well: they run once a prompt or a
reference, so narrower weights save memory and loading, and hardly any time."""

SMALL = (".text_encoder", ".subject_resampler", ".vae", ".safety_checker")
"""Never quantized: 0.6 of 21.5 billion weights, and two of the parts end in what users see, the
picture and whether it is shown."""

SENSITIVE = (
    ".x_embedder",
    ".context_embedder",
    ".time_text_embed",
    ".norm_out",
    "transformer.proj_out",
    ".wo",
)
"""Embedders and the end of the network, as in NVIDIA's FLUX recipe: few FLOPs, and an error in them
reaches every token. A single block's own `proj_out` is quantized.

`wo` ends T5's feed-forward layers. What it reads has the largest outliers of the encoder: in fp16
they overflow (transformers keeps it in fp32, huggingface/transformers#20287), and vllm-omni's FP8
text encoders leave it out, too (vllm-project/vllm-omni#7824). It is 1.0 of T5's
4.8 billion weights.
"""

MODULATIONS = (".norm.linear", ".norm1.linear", ".norm1_context.linear")
"""The blocks' modulations stay as they are by default, unlike in NVIDIA's recipe.

They run on one row, so FP8 would save their bytes, 3.2 GB of FLUX, and hardly any arithmetic. Their
own errors are the smallest of all layers, and yet the demo model's pictures suffer: 29.9 to 29.4 dB
in the median, 20.5 to 13.8 dB in the worst one (benchmarks/results/fp8-toon.json). With FLUX.1-dev,
vllm-omni reported noise instead of pictures until sensitive layers were left alone (#2728, #2795).
If you have the weights but not the room, try `--fp8-modulation`.
"""


def unquantized(*, encoders: bool = False, modulation: bool = False) -> tuple[str, ...]:
    """Parts of layer names for `export.quantization.quantize`.

    Args:
        encoders: Quantize the encoders as well.
        modulation: Quantize the blocks' modulations as well.
    """
    return (
        *SMALL,
        *SENSITIVE,
        *(() if encoders else ENCODERS),
        *(() if modulation else MODULATIONS),
    )

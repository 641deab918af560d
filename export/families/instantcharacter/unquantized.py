"""Which parts of InstantCharacter stay as they are, whatever the scheme."""

from __future__ import annotations

from export.families.instantcharacter.modulation import LAYERS
from export.families.instantcharacter.shallow import DEPTH

SMALL = (".text_encoder", ".subject_resampler", ".vae", ".safety_checker", ".identity")
"""0.6 of 21.5 billion weights; three of these parts end in what users see: the picture, whether it
is shown, and whether it shows the right character."""

UNQUANTIZED = (
    *SMALL,
    ".x_embedder",
    ".context_embedder",
    "transformer.proj_out",
    *LAYERS,
    ".wo",
)
"""Parts of layer names for `export.quantization.quantize`.

Embedders and the end of the network, as in NVIDIA's FLUX recipe: few FLOPs, and an error in them
reaches every token. A single block's own `proj_out` is quantized. The modulations' layers run once
for a prompt, so their bytes and their time are none of a step's.

`wo` ends T5's feed-forward layers, 1.0 of its 4.8 billion weights. Its inputs have outliers that
overflow in fp16, so transformers keeps it in fp32 (huggingface/transformers#20287), and vllm-omni's
FP8 text encoders leave it out (vllm-project/vllm-omni#7824). In the demo model the two of them
double T5's error in the latents, 0.0019 to 0.0040 (median of 6 pictures, 8 steps).
"""

ENCODERS = (".text_encoder_2", ".image_encoder", ".image_encoder_2", ".subject_projector")
"""T5, SigLIP, DINOv2 and the projector run once for a prompt or a reference: narrower weights save
memory and loading, and hardly any time, so whether they are quantized is for the caller to say."""

SENSITIVE = (
    *ENCODERS,
    ".attn.to_out",
    *(f".transformer_blocks.{block}.attn.to_{part}" for block in range(DEPTH) for part in "qkv"),
)
"""What four-bit schemes leave to a wider one.

Of the layers that steps run, the attention of image tokens in double blocks (7 % of the weights)
costs most for its size. When only one kind of layer is in NVFP4, the latents of the demo model
change by so much (relative L2, median of 5 pictures of 6 steps; the weights of FLUX, billions):
single blocks Q, K, V and MLP 0.125 (2.5), their `proj_out` 0.095 (1.8), double blocks' image MLP
0.056 (1.4), `to_out` 0.051 (0.2), V 0.049, Q 0.019, K 0.017 (0.2 each; merged, so they go
together), text attention 0.031 (0.7), subject K and V 0.018 (1.4), text MLP 0.017 (1.4). The single
blocks cost more, but they are what four bits are to make small.

Encoders run once: in four bits they would save 2.8 GB that no step reads, and their layers have
the largest errors of all, up to 0.20 in DINOv2, which sees the character.
"""

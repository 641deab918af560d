"""Which parts of InstantCharacter stay as they are, whatever the scheme."""

from __future__ import annotations

from export.families.instantcharacter.modulation import LAYERS

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

SENSITIVE: tuple[str, ...] = ()

ENCODERS = (".text_encoder_2", ".image_encoder", ".image_encoder_2", ".subject_projector")
"""T5, SigLIP, DINOv2 and the projector run once for a prompt or a reference: narrower weights save
memory and loading, and hardly any time, so whether they are quantized is for the caller to say."""

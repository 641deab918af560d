"""Which parts of InstantCharacter's denoiser stay as they are, whatever the scheme."""

from __future__ import annotations

from export.families.instantcharacter.modulation import LAYERS

UNQUANTIZED = (".x_embedder", ".context_embedder", "transformer.proj_out", *LAYERS)
"""Parts of layer names for `export.quantization.quantize`.

Embedders and the end of the network, as in NVIDIA's FLUX recipe: few FLOPs, and an error in them
reaches every token. A single block's own `proj_out` is quantized. The modulations' layers run once
for a prompt, so their bytes and their time are none of a step's.
"""

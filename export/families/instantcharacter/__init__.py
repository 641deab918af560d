"""InstantCharacter in torch, on diffusers' and transformers' classes; exported, never served."""

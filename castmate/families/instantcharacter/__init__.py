"""InstantCharacter on FLUX.1: its tensors, its encoders and its schedule."""

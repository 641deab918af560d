"""InstantCharacter on FLUX.1: its tensors, its encoders, its schedule and its transformer."""

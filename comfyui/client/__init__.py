"""A Castmate server as a program calls it; knows nothing of ComfyUI, and imports no torch."""

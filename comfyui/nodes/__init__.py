"""The nodes: what ComfyUI shows, checks and runs."""

"""Keeps a character the same in every picture: reference and prompt in, new pictures out."""

import os

__version__ = "0.1.0"

# ONNX Runtime's wheels send usage events to their maker, and read this when they are first
# imported: so it is set before anything of ours can import them, in every process.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

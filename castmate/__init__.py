"""Keeps a character the same in every picture: reference and prompt in, new pictures out."""

import os

__version__ = "0.1.0"

# ONNX Runtime's wheels send usage events to their maker unless this is set when they are first
# imported, so every process sets it before any of its modules can import them.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

"""Benchmarks that compare side by side in one run: `python -m benchmarks.<name>`. Not packaged."""

import castmate  # noqa: F401  before ONNX Runtime, which it keeps from sending usage events

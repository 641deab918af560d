"""Benchmarks that compare side by side in one run: `python -m benchmarks.<name>`. Not packaged."""

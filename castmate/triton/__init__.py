"""Served by NVIDIA's Triton Inference Server: the wire, the model's inside, the server process."""

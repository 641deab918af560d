"""Generation on Triton servers: discovery, choice, streams."""

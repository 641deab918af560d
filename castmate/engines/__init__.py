"""Loaded graphs: the bundle that holds them and the runtimes that run them."""

"""Model families, one folder each, found by name; see `castmate.engines.family`."""

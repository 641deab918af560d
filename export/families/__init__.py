"""Model families in torch, one folder each, found by name; see `export.family`."""

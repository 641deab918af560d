"""Optional layers of the protocol over the same jobs; every host can do without them."""

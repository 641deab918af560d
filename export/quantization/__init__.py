"""How weights and arithmetic become narrower: one file a scheme, and the registry of them."""

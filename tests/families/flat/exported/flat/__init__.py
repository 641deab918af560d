"""The same family in torch."""

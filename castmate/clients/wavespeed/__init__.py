"""The hosted model as a client: the last resort, paid for."""

"""Keeps a character the same in every picture: reference and prompt in, new pictures out."""

__version__ = "0.1.0"

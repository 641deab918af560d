"""Prompts of the kind that users write, written before any training and never trained on."""

from __future__ import annotations

from pathlib import Path

FREE = Path(__file__).with_name("free.txt")


def free_prompts() -> list[str]:
    """Fifty prompts, one a line of `free.txt`, for judging a model by eye on a sheet."""
    return FREE.read_text().splitlines()

"""A transformers model from its published folder, with every key that does not fit named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from export.errors import ExportError, listed
from export.state_dict import sentences

# The checkpoints hold more than is used: SigLIP's text half and pooling head.
_UNUSED = ("text_model.", "logit_", "vision_model.head.", "head.")


def pretrained(like: Any, folder: Path, **arguments: Any) -> Any:
    """A transformers model of the class and sizes of `like` from its folder.

    Args:
        like: A model; its weights are not used.
        folder: With its safetensors files.
        arguments: Of the class, beside its configuration.

    Raises:
        ExportError: Names every key that does not fit.
    """
    if not folder.is_dir():
        raise ExportError(f"{folder} does not exist.")
    try:
        model, info = type(like).from_pretrained(
            folder,
            config=like.config,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **arguments,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ExportError(f"{folder} cannot be loaded: {error}") from None
    problems = sentences(
        sorted(info["missing_keys"]),
        sorted(key for key in info["unexpected_keys"] if not key.startswith(_UNUSED)),
        sorted(info["mismatched_keys"]),
    )
    refuse(folder, problems)
    return model


def refuse(folder: Path, problems: list[str]) -> None:
    """Refuse a folder that has problems.

    Raises:
        ExportError: It has.
    """
    if problems:
        raise ExportError(f"{folder} does not fit:\n  {listed(problems)}")

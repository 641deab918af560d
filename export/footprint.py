"""Device memory that a builder reported for an engine, on a machine with or without a GPU."""

from __future__ import annotations

import re
from collections.abc import Sequence

from export.errors import ExportError

_WEIGHTS = re.compile(r"Total Weights Memory: (\d+)")
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+)")
_PERSISTENT = re.compile(r"Total Device Persistent Memory: (\d+)")


def reported_bytes(graph: str, lines: Sequence[str]) -> tuple[int, tuple[int, ...]]:
    """Weights and, for each profile, activations; what stays beside the weights counts as such.

    Args:
        graph: Name, for errors.
        lines: The builder's log.

    Raises:
        ExportError: The log does not say it.
    """
    weights, activations, persistent = (
        [int(match[1]) for line in lines if (match := pattern.search(line))]
        for pattern in (_WEIGHTS, _ACTIVATIONS, _PERSISTENT)
    )
    if not weights or not activations:
        raise ExportError(
            f"TensorRT did not say how much memory the engine of {graph!r} takes, so nobody could "
            "tell whether it fits a GPU. Build it with the TensorRT that this version of Castmate "
            "names (pip install '.[tensorrt]' or '.[rtx]')."
        )
    return weights[-1] + max(persistent, default=0), tuple(activations)

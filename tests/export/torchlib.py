"""The exporter's table of operators, read once in a process: it reads it anew for each graph.

That takes 0.4 s of a processor, a third of what a small graph takes in all, since the sources of
500 operators are parsed. Operators of a graph's own are added to its copy.
"""

from __future__ import annotations

import copy
import functools

from torch.onnx._internal.exporter._registration import ONNXRegistry


def read_once() -> None:
    """From now on; a second call changes nothing."""
    read = ONNXRegistry.from_torchlib
    if hasattr(read, "__wrapped__"):
        return
    whole = functools.cache(read)

    @functools.wraps(read)
    def from_torchlib(**versions: int) -> ONNXRegistry:
        found = copy.copy(whole(**versions))
        found.functions = {name: list(metas) for name, metas in found.functions.items()}
        return found

    ONNXRegistry.from_torchlib = staticmethod(from_torchlib)  # type: ignore[assignment, method-assign]

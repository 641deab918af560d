"""The published adapter file, `{"ip_adapter": ..., "image_proj": ...}`: read, never executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from export.errors import ExportError, listed
from export.families.instantcharacter.network import InstantCharacter
from export.state_dict import differences

StateDict = Mapping[str, Tensor]


class AdapterError(ExportError):
    """The file is not an InstantCharacter adapter for this network; says which keys are wrong."""


def adapter_state_dict(network: InstantCharacter) -> dict[str, dict[str, Tensor]]:
    """The adapter's weights in the layout of `instantcharacter_ip-adapter.bin`."""
    resampler = network.subject_resampler.state_dict(prefix="resampler.")
    return {
        "ip_adapter": dict(network.subject_attention.state_dict()),
        "image_proj": dict(network.subject_projector.state_dict()) | resampler,
    }


def load_adapter(network: InstantCharacter, path: Path) -> None:
    """Load the published file into a network of its sizes.

    Args:
        network: Its adapter is overwritten; nothing is written when the file does not fit.
        path: A file as saved by `torch.save`; only tensors and dictionaries are read from it.

    Raises:
        AdapterError: The file is no such file, or names every missing, unknown and misshapen key.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise AdapterError(f"{path} cannot be read as weights: {error}") from error
    expected = adapter_state_dict(network)
    if not isinstance(state, dict) or set(state) != set(expected):
        found = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise AdapterError(f"{path} holds {found}; an adapter holds {' and '.join(expected)}.")
    problems = [
        f"{part}.{problem}"
        for part, tensors in expected.items()
        for problem in differences(tensors, state[part])
    ]
    if problems:
        raise AdapterError(f"{path} does not fit {network.config.name!r}:\n  {listed(problems)}")
    prefix = "resampler."
    image_proj = state["image_proj"]
    parts: list[tuple[nn.Module, StateDict]] = [
        (network.subject_attention, state["ip_adapter"]),
        (
            network.subject_projector,
            {key: value for key, value in image_proj.items() if not key.startswith(prefix)},
        ),
        (
            network.subject_resampler,
            {
                key.removeprefix(prefix): value
                for key, value in image_proj.items()
                if key.startswith(prefix)
            },
        ),
    ]
    for module, tensors in parts:
        module.load_state_dict(tensors, assign=True)

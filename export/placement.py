"""A network that computes on a device which need not hold all of it.

A layer's weights come to the device when the layer runs and leave it afterwards. Layers that run in
every step stay there as long as there is room, then others do. So a card of 24 GB calibrates a
network of 43 GB whose weights are mapped from disk, and the host keeps no copy of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from export.family import Network, family_of
from export.quantization.quantize import is_within

ACTIVATIONS = 4 * 2**30
"""Bytes of a GPU that are left to activations and to CUDA itself. FLUX's activations at 1024 px and
28 steps take 0.9 GB, counted on tensors without memory; the rest is a choice."""


class Placement:
    """A device, and how much of a network may stay on it."""

    def __init__(self, device: torch.device | str, room: int = 0) -> None:
        """Choose them.

        Args:
            device: Where layers compute.
            room: Bytes of weights that stay on it; the largest layer comes on top.
        """
        self.device = torch.device(device)
        self.room = room

    @classmethod
    def best(cls) -> Placement:
        """The GPU and what is free of it, or the CPU: at full size a CPU takes days."""
        if not torch.cuda.is_available():
            return cls("cpu")
        free, _ = torch.cuda.mem_get_info()
        return cls("cuda", max(free - ACTIVATIONS, 0))

    def put(self, tensor: Tensor) -> Tensor:
        """A tensor on the device; on a CPU it is there already and is not copied."""
        return tensor.to(self.device)

    @contextmanager
    def of(self, network: Network) -> Iterator[None]:
        """Let a network compute on the device; its weights are where they were afterwards.

        The hooks are for every module, because views of a network, which hold constants of their
        own, are made as it runs.
        """
        staying = self._staying(network)
        moved: dict[nn.Module, dict[str, Tensor]] = {}

        def come(module: nn.Module, inputs: object) -> None:
            if module not in moved:
                moved[module] = own = _own(module)
                for name, tensor in own.items():
                    here = self.put(tensor.detach())
                    weight = isinstance(tensor, nn.Parameter)
                    setattr(module, name, nn.Parameter(here, False) if weight else here)

        def leave(module: nn.Module) -> None:
            for name, tensor in moved.pop(module).items():
                setattr(module, name, tensor)

        def go(module: nn.Module, inputs: object, output: object) -> None:
            if module not in staying:
                leave(module)

        handles = (
            register_module_forward_pre_hook(come),
            register_module_forward_hook(go, always_call=True),
        )
        home, network.device = network.device, self.device
        try:
            yield
        finally:
            network.device = home
            for handle in handles:
                handle.remove()
            for module in list(moved):
                leave(module)

    def _staying(self, network: Network) -> set[nn.Module]:
        """The layers that are kept once they have come."""
        found: set[nn.Module] = set()
        room, hoisted = self.room, family_of(network.family).hoisted
        layers = network.denoiser.named_modules()
        in_steps = [layer for name, layer in layers if not is_within(name, hoisted)]
        for module in [*in_steps, *network.modules()]:
            size = sum(tensor.nbytes for tensor in _own(module).values())
            if module not in found and size <= room:
                found.add(module)
                room -= size
        return found


def _own(module: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }

"""Proves engines: compares them with the bundle's golden tensors at their first load.

Some kernels silently compute wrong results on some GPUs (NVIDIA/TensorRT #4837, #4822, #4732). A
passed comparison is remembered for this bundle, this GPU, its driver and TensorRT, so that later
loads cost nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from castmate.engines.base import Engine, Runtime, WrappedRuntime
from castmate.engines.bundle import Bundle
from castmate.engines.golden import Difference, Golden, say
from castmate.engines.manifest import MANIFEST
from castmate.engines.plan import Flavour
from castmate.errors import BundleMismatch
from castmate.files import make_private_folder, write_atomically

_BUILD_OTHERWISE = (
    "Update the driver, or build the plans without fused attention: "
    "python -m export.build --no-fused-attention."
)
REPAIR = {
    Flavour.TENSORRT.value: _BUILD_OTHERWISE,
    Flavour.TENSORRT_RTX.value: _BUILD_OTHERWISE,
    "onnxruntime": "Install or export the bundle again, or another version of onnxruntime.",
}
"""What to do about an engine with wrong results, by the name of its runtime."""


class ProvenRuntime(WrappedRuntime):
    """A runtime that loads no engine whose results differ from its graph's."""

    def __init__(self, runtime: Runtime, bundle: Bundle, folder: Path | None) -> None:
        """Prepare to load.

        Args:
            runtime: Loads and runs the engines.
            bundle: Has the graphs.
            folder: Remembers which engines were right, in a file for each bundle and machine; None
                compares at every load.

        Raises:
            BundleCorrupt: The golden tensors are missing or changed.
        """
        super().__init__(runtime)
        self._bundle = bundle
        self._golden = Golden.of(bundle)
        self._remembered = folder and folder / f"{self._identity()}.json"
        self._proven = self._recall()

    def load(self, graph: str) -> Engine:
        """Load a graph and, the first time on this machine, compare it.

        Raises:
            BundleError: It does not load.
            BundleMismatch: Its results differ; says by how much and what to do.
        """
        engine = super().load(graph)
        if self._golden is None or graph in self._proven or graph not in self._golden.graphs:
            return engine
        spec = self._bundle.manifest.graphs[graph]
        found = self._golden.compare(graph, spec, engine, self._runtime)
        if wrong := [difference for difference in found if not difference.is_allowed]:
            raise BundleMismatch(
                f"The engine of graph {graph!r} of bundle {self._bundle.name!r} computes something "
                f"else than the network on {self.machine}:\n  {say(wrong)}\n"
                f"{REPAIR[self.name]}"
            )
        self._proven[graph] = max((each.relative_l2 for each in found), default=0.0)
        self._remember()
        return engine

    def _identity(self) -> str:
        # The manifest holds the hash of every file, the golden tensors' included.
        manifest = (self._bundle.path / MANIFEST).read_bytes()
        return hashlib.sha256(manifest + self.machine.encode()).hexdigest()[:32]

    def _recall(self) -> dict[str, float]:
        if self._remembered is None:
            return {}
        try:
            known = json.loads(self._remembered.read_bytes())["relative_l2"]
            return {str(graph): float(value) for graph, value in known.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _remember(self) -> None:
        if self._remembered is None:
            return
        values = {
            "bundle": self._bundle.name,
            "machine": self.machine,
            "relative_l2": self._proven,
        }
        with suppress(OSError):  # else it is compared again next time
            make_private_folder(self._remembered.parent)
            write_atomically(self._remembered, f"{json.dumps(values, indent=1)}\n".encode())


def differences(bundle: Bundle, runtime: Runtime) -> Iterator[tuple[str, list[Difference]]]:
    """Compare every graph of a bundle, one after the other.

    Yields:
        A graph and the difference of each of its outputs; none if it was not recorded.

    Raises:
        BundleError: A graph cannot be loaded, or the golden tensors are missing or changed.
    """
    golden = Golden.of(bundle)
    for graph, spec in bundle.manifest.graphs.items():
        if golden is None or graph not in golden.graphs:
            yield graph, []
        else:
            yield graph, golden.compare(graph, spec, runtime.load(graph), runtime)

"""Styles by name: low-rank factors that enter the graphs as inputs and can change every call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from castmate.engines.base import Array, Runtime, Tensor
from castmate.engines.bundle import Bundle
from castmate.engines.graphs import TensorSpec
from castmate.families.instantcharacter.graphs import TABLE


class Styles:
    """Keeps every style's factors on the host, and the last used ones on the device."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        """Read the file of every style, so that a request never waits for a disk.

        Raises:
            BundleCorrupt: A file is missing or changed.
        """
        manifest = bundle.manifest
        self._runtime = runtime
        self._inputs: dict[str, TensorSpec] = {
            name: graph.inputs[name]
            for graph_name, graph in manifest.graphs.items()
            for name in TABLE.graphs[graph_name].optional
            if name in graph.inputs
        }
        self._least = manifest.styles.rank.min if manifest.styles else 0
        known = manifest.styles.known if manifest.styles else {}
        self._factors: dict[str, Mapping[str, Array]] = {}
        for style, spec in known.items():
            with np.load(bundle.file(spec), allow_pickle=False) as file:
                self._factors[style] = {name: file[name] for name in self._inputs}
        self._chosen, self._on_device = "", dict[str, Tensor]()

    def factors(self, style: str) -> Mapping[str, Tensor]:
        """The factors of a style by the input that takes them; empty if no graph takes any.

        Args:
            style: One of the bundle's, or empty for none, whose factors change nothing.
        """
        if style != self._chosen or not self._on_device:
            self._on_device = {}  # before uploading: there is room for one style
            self._on_device = {
                name: self._runtime.upload(*self._as(self._values(style, name), spec.dtype))
                for name, spec in self._inputs.items()
            }
            self._chosen = style
        return self._on_device

    def _values(self, style: str, name: str) -> Array:
        if style:
            return self._factors[style][name]
        rows = int(self._inputs[name].shape[0])
        return np.zeros((rows, self._least), np.uint16)  # zeros in every type

    @staticmethod
    def _as(values: Array, dtype: str) -> tuple[Array, str]:
        """The arguments of `Runtime.upload`."""
        return (values, dtype) if dtype == "bfloat16" else (values.astype(dtype), dtype)

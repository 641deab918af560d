"""Puts the double in the place of the real modules, for one test."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.gpu_double import cuda, tensorrt
from tests.gpu_double.card import Card, Machine

VERSIONS = {"tensorrt": "11.4.0.106", "tensorrt_rtx": "1.7.1.116"}


@contextmanager
def install(*cards: Card) -> Iterator[Machine]:
    """A machine with these cards; at the end it fails for whatever was done wrong."""
    machine = Machine(cards)
    with pytest.MonkeyPatch.context() as patch:
        runtime = cuda.Runtime(machine)
        patch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
        for name, version in VERSIONS.items():
            patch.setitem(sys.modules, name, tensorrt.module(name, machine, version))
        yield machine
        gc.collect()
    machine.check()

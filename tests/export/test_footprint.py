"""What an engine takes of the GPU is read from its builder's log."""

from __future__ import annotations

import pytest

from export.errors import ExportError
from export.footprint import reported_bytes
from export.measure_memory import at_full_depth

RTX_1_7 = """\
Total Host Persistent Memory: 80 bytes
Total Device Persistent Memory: 512 bytes
Max Scratch Memory: 9240576 bytes
[BlockAssignment] Algorithm ShiftNTopDown took 0.03ms to assign 1 blocks requiring 9240576 bytes.
Total Activation Memory: 9240576 bytes
Total Device Persistent Memory: 0 bytes
Total Activation Memory: 18874368 bytes
Total Weights Memory: 262400 bytes
[MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 0 MiB, GPU 0 MiB
"""


def test_weights_and_the_activations_of_each_profile_are_read() -> None:
    assert reported_bytes("x", RTX_1_7.splitlines()) == (262400 + 512, (9240576, 18874368))


def test_a_log_that_does_not_say_it_is_refused() -> None:
    with pytest.raises(ExportError, match="did not say how much memory the engine of 'x' takes"):
        reported_bytes("x", ["Total Weights Memory: 5 bytes"])


def test_activations_that_grow_with_the_blocks_are_followed_to_the_published_depth() -> None:
    assert at_full_depth({"1": 100, "2": 110, "3": 120}, 19) == 280
    assert at_full_depth({"1": 120, "2": 100, "3": 100}, 19) == 120
    assert at_full_depth({"1": 120, "2": 100, "3": 90}, 19) == 120
    assert at_full_depth({"1": 100}, 19) == 100

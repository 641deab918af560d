"""A machine with GPUs that are not there: CUDA and both TensorRT flavours, as Castmate uses them.

Engines compute with ONNX Runtime, so a whole picture can be drawn. What a real GPU would answer
with silence, a crash or wrong pixels fails the test: memory that is used after it was given back or
never given back, a thread that has not chosen its GPU, another GPU's stream, weights freed under a
running engine, activations outside the block. A card has the size that the test chooses.
"""

from tests.gpu_double.card import Card, Machine
from tests.gpu_double.install import install
from tests.gpu_double.plans import plan_bundle_of

__all__ = ["Card", "Machine", "install", "plan_bundle_of"]

"""A small module of linear layers, quantized and exported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from castmate.engines.onnxruntime import session_options
from export.graphs import ExportGraph
from export.precision import Precision, convert
from export.quantization.quantize import quantize, recording
from export.quantization.scheme import Scheme
from export.to_onnx import to_onnx

IN, HIDDEN, OUT = 256, 256, 32


def mlp(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two layers, the same random weights every time; an input channel is far wider than others."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(IN, HIDDEN), nn.GELU(approximate="tanh"), nn.Linear(HIDDEN, OUT))
    return made.to(dtype).eval()


def inputs() -> Tensor:
    """`[1, 24, IN]`, one channel twenty times as wide as the others."""
    x = torch.randn(1, 24, IN, generator=torch.Generator().manual_seed(1))
    x[..., 3] *= 20
    return x


def quantized(scheme: Scheme, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """`mlp`, calibrated on `inputs`."""
    made = mlp(dtype)
    with torch.no_grad(), recording(made, ()) as ranges:
        made(inputs().to(dtype))
    quantize(made, ranges, scheme, ())
    convert(made, dtype)
    return made


def exported(scheme: Scheme, path: Path, precision: Precision = Precision.FP32) -> ExportGraph:
    """Write the module to a path, with any number of rows."""
    made = quantized(scheme, precision.dtype)
    axes: Mapping[str, Mapping[int, str]] = {"x": {1: "rows"}}
    graph = ExportGraph(made, {"x": inputs().to(precision.dtype)}, axes, ("y",))
    to_onnx(graph, path, precision=precision)
    return graph


def run(path: Path, x: Tensor) -> Tensor:
    """What ONNX Runtime makes of the file."""
    session = onnxruntime.InferenceSession(
        path, session_options(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": x.numpy()})
    return torch.from_numpy(np.asarray(y))


def relative_l2(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference by that of what is expected."""
    return float((found - expected).norm() / expected.norm())

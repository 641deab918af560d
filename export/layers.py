"""What TensorRT made of a graph: FP8 GEMMs, fused attentions, fp32 fallbacks; from its build log.

The engine inspector needs a GPU; the builder's verbose log does not. With detailed profiling
verbosity it ends with one line a layer: name, type, tensors with dtypes, tactic, ONNX origin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx
from onnx import TensorProto

from castmate.engines.plan import LayerCounts
from export.errors import SilentFallback

_TENSOR = re.compile(
    r"\{ Name: (?P<name>[^,]*), Dimensions: \[(?P<dims>[^\]]*)\].*?Datatype: (?P<type>\w+)"
)
_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<type>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: (?P<tactic>[^,]*), StreamId: .*?Metadata:(?P<metadata>.*)"
)
_PRODUCTS = {"gemm", "correlation"}  # the latter are convolutions
_LONE_CAST = re.compile(r"^__myl_(?:Cast|Resh|Move|Tran)*Cast(?:Cast|Resh|Move|Tran)*_(?:0x|myl)")


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: Its ONNX nodes, joined by `+`, where it is a GEMM.
        kind: TensorRT's `LayerType`.
        inputs: Datatypes of the tensors and weights that it reads; scalars are left out.
        outputs: Datatypes of what it writes.
        tactic: Its kernel, where it was chosen at build time.
        origins: Names of the ONNX nodes in its metadata and its name.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tactic: str
    origins: frozenset[str]

    @cached_property
    def is_attention(self) -> bool:
        """A fused attention, whatever its types."""
        return "_mha" in self.tactic or "_mha" in self.name or "fmha" in self.tactic

    @cached_property
    def is_gemm(self) -> bool:
        """A matrix product or convolution that is no attention."""
        if self.is_attention:
            return False
        fused = self.kind == "runtime_fusion" and "Fc" in self.name
        return self.kind in _PRODUCTS or fused


@dataclass(frozen=True)
class Expected:
    """What an ONNX graph asks for.

    Attributes:
        fp8_products: MatMul nodes whose weight is stored in FP8.
        attentions: Attention nodes, and softmaxes over FP8 products.
        fp8_attentions: Of those, the ones over FP8 products.
        wide_products: Matrix products and convolutions that the graph itself has in fp32.
    """

    fp8_products: frozenset[str]
    attentions: int
    fp8_attentions: int
    wide_products: int

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Expected:
        """Read a graph; weights need not be loaded."""
        types = {weight.name: weight.data_type for weight in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model).graph
        kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
        kinds |= {value.name: value.type.tensor_type.elem_type for value in inferred.output}
        makers = {name: node for node in model.graph.node for name in node.output}
        fp8, attentions, quantized, wide = set(), 0, 0, 0
        for node in model.graph.node:
            if node.op_type == "Attention":
                attentions += 1
            if node.op_type == "Softmax":
                product = makers.get(node.input[0])
                operands = [makers.get(name) for name in product.input] if product else []
                if len(operands) == 2 and all(
                    operand is not None and operand.op_type == "DequantizeLinear"
                    for operand in operands
                ):
                    attentions, quantized = attentions + 1, quantized + 1
            if node.op_type in ("MatMul", "Gemm", "Conv"):
                weight = makers.get(node.input[1])
                if weight is not None and weight.op_type == "DequantizeLinear":
                    if types.get(weight.input[0]) == TensorProto.FLOAT8E4M3FN:
                        fp8.add(node.name)
                elif kinds.get(node.output[0]) == TensorProto.FLOAT:
                    wide += 1
        return cls(frozenset(fp8), attentions, quantized, wide)


def parse(messages: Iterable[str]) -> list[Layer]:
    """The layers in a builder's log; empty where it lists none."""
    for message in messages:
        if message.startswith("Layers:"):
            lines = [_LINE.match(line) for line in message.splitlines()[1:]]
            return [_layer(line) for line in lines if line]
    return []


def counts(layers: Sequence[Layer]) -> LayerCounts:
    """Count what matters for speed."""
    gemms = [layer for layer in layers if layer.is_gemm]
    attentions = [layer for layer in layers if layer.is_attention]
    return LayerCounts(
        layers=len(layers),
        gemms=len(gemms),
        fp8_gemms=sum("FP8" in layer.inputs for layer in gemms),
        fp32_gemms=sum("Float" in layer.inputs for layer in gemms),
        fused_attentions=len(attentions),
        fp8_attentions=sum("FP8" in layer.inputs for layer in attentions),
        lone_casts=sum(bool(_LONE_CAST.match(layer.name)) for layer in layers),
    )


def check(layers: Sequence[Layer], expected: Expected, graph: str) -> LayerCounts:
    """Count, and refuse an engine that is slower than its graph says.

    Raises:
        SilentFallback: Names each thing that fell back.
    """
    found, problems = counts(layers), []
    done = {
        name
        for layer in layers
        if layer.is_gemm and "FP8" in layer.inputs
        for name in layer.origins
    }
    if missing := sorted(expected.fp8_products - done):
        problems.append(
            f"{len(missing)} of {len(expected.fp8_products)} FP8 products do not run in FP8: "
            f"{', '.join(missing[:8])}{' ...' if len(missing) > 8 else ''}"
        )
    if found.fused_attentions < expected.attentions:
        problems.append(
            f"{found.fused_attentions} of {expected.attentions} attentions are fused into a kernel"
        )
    if found.fp8_attentions < expected.fp8_attentions:
        problems.append(
            f"{found.fp8_attentions} of {expected.fp8_attentions} attentions run in FP8"
        )
    if found.fp32_gemms > expected.wide_products:
        names = [layer.name for layer in layers if layer.is_gemm and "Float" in layer.inputs]
        problems.append(f"{len(names)} products run in fp32: {', '.join(names[:4])}")
    if problems:
        raise SilentFallback(
            f"The engine of {graph!r} would be slower than asked for:\n  " + "\n  ".join(problems)
        )
    return found


def _layer(line: re.Match[str]) -> Layer:
    def types(text: str) -> tuple[str, ...]:
        tensors = _TENSOR.finditer(text)
        return tuple(tensor["type"] for tensor in tensors if tensor["dims"] not in ("", "1"))

    origins = re.findall(r"\[ONNX Layer: ([^\]]+)\]", line["metadata"])
    named = re.sub(r"_myl\d+_\d+$", "", line["name"]).split("+")
    return Layer(
        line["name"],
        line["type"],
        types(line["inputs"]) + types(line["constants"]),
        types(line["outputs"]),
        line["tactic"],
        frozenset([*origins, *named]),
    )

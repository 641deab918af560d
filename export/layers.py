"""What TensorRT made of a graph: quantized GEMMs, fused attentions, fp32 fallbacks.

The engine inspector needs a GPU; the builder's verbose log does not. With detailed profiling
verbosity it ends with one line a layer: name, type, tensors with dtypes, tactic, ONNX origin. Where
it has none, `export.builder` asks the inspector.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx
from onnx import TensorProto

from castmate.engines.plan import LayerCounts
from export.errors import SilentFallback, listed
from export.quantization.registry import kernel_for
from export.quantization.scheme import Kernel

_LISTING = "Layers:"
_TENSOR = re.compile(
    r"\{ Name: (?P<name>[^,]*),.*?Dimensions: \[(?P<dims>[^\]]*)\].*?Datatype: (?P<type>[^,}]+)"
)
_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    # Only TensorRT-RTX lists constants, as of 1.7.
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[(?P<outputs>.*?)\], "
    # What lies in between differs from layer to layer.
    r"(?:.*?\bTacticName: (?P<tactic>[^,]*), )?.*?\bMetadata:(?P<metadata>.*)"
)
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_IN_WORDS = re.compile(r"\b(?:FP|BF|U?Int)\d\w*")
_TYPES = {"FP32": "Float", "FP16": "Half", "BF16": "BFloat16"}
"""What the engine inspector calls types in its sentences, in the listing's words."""
_SAME_VALUES = ("Cast", "Reshape", "Transpose")
# Convolutions are called correlation, or by what computes them, such as CaskGemmConvolution.
_PRODUCT = re.compile(r"gemm|correlation|convolution|MatrixMultiply", re.IGNORECASE)
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
        return _PRODUCT.search(self.kind) is not None or fused


@dataclass(frozen=True)
class Expected:
    """What an ONNX graph asks for.

    Attributes:
        products: MatMul nodes whose weight is stored quantized, and the kernel that each needs.
        attentions: Attention nodes, and softmaxes over quantized products.
        quantized_attentions: Of those, the ones over quantized products, by the kernel they need.
        wide_products: Matrix products and convolutions that the graph itself has in fp32.
    """

    products: Mapping[str, Kernel]
    attentions: int
    quantized_attentions: Mapping[Kernel, int]
    wide_products: int

    @property
    def kernels(self) -> frozenset[Kernel]:
        """Every quantized kernel that the graph needs."""
        return frozenset([*self.products.values(), *self.quantized_attentions])

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Expected:
        """Read a graph; weights need not be loaded."""
        types = {weight.name: weight.data_type for weight in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model).graph
        kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
        kinds |= {value.name: value.type.tensor_type.elem_type for value in inferred.output}
        makers = {name: node for node in model.graph.node for name in node.output}

        def dequantized(name: str) -> onnx.NodeProto | None:
            """What makes an operand of quantized values, where something does."""
            node = makers.get(name)
            while node is not None and node.op_type in _SAME_VALUES:
                node = makers.get(node.input[0])
            return node if node is not None and node.op_type == "DequantizeLinear" else None

        products: dict[str, Kernel] = {}
        attentions, quantized, wide = 0, Counter[Kernel](), 0
        for node in model.graph.node:
            if node.op_type == "Attention":
                attentions += 1
            elif node.op_type == "Softmax" and (product := makers.get(node.input[0])) is not None:
                operands = [dequantized(name) for name in product.input]
                # An activation's type is that of its zero point.
                stored = {types.get(operand.input[-1]) for operand in operands if operand}
                if all(operands) and len(stored) == 1 and (kind := stored.pop()) is not None:
                    attentions += 1
                    if needed := kernel_for(kind, attention=True):
                        quantized[needed] += 1
            elif node.op_type == "LogSoftmax":
                wide += 1  # an attention that is not to be fused: its weights come in fp32
            elif node.op_type in ("MatMul", "Gemm", "Conv"):
                if weight := dequantized(node.input[1]):
                    kind = types.get(weight.input[0])
                    if kind is not None and (needed := kernel_for(kind, attention=False)):
                        products[node.name] = needed
                elif kinds.get(node.output[0]) == TensorProto.FLOAT:
                    wide += 1
        return cls(products, attentions, quantized, wide)


def parse(messages: Iterable[str]) -> list[Layer]:
    """The layers of an engine.

    Args:
        messages: The builder's; its listing, or what the engine inspector says in JSON.

    Returns:
        Empty where neither is among them.

    Raises:
        SilentFallback: There is a listing in words that are not known here; shows a line of it.
    """
    for message in messages:
        if message.startswith(_LISTING):
            # Behind the layers may follow the tensors.
            return [_of_line(line) for line in message.splitlines() if ", LayerType: " in line]
        if message.startswith("{"):
            return [_of_json(layer) for layer in json.loads(message).get("Layers", ())]
    return []


def counts(layers: Sequence[Layer]) -> LayerCounts:
    """Count what matters for speed."""
    gemms = [layer for layer in layers if layer.is_gemm]
    attentions = [layer for layer in layers if layer.is_attention]
    return LayerCounts(
        layers=len(layers),
        gemms=len(gemms),
        gemms_reading=Counter(kind for layer in gemms for kind in set(layer.inputs)),
        fused_attentions=len(attentions),
        attentions_reading=Counter(kind for layer in attentions for kind in set(layer.inputs)),
        lone_casts=sum(bool(_LONE_CAST.match(layer.name)) for layer in layers),
    )


def check(layers: Sequence[Layer], expected: Expected, graph: str) -> LayerCounts:
    """Count, and refuse an engine that is slower than its graph says.

    Raises:
        SilentFallback: Names each thing that fell back.
    """
    found, problems = counts(layers), []
    for datatype in sorted({kernel.datatype for kernel in expected.products.values()}):
        asked = {name: k for name, k in expected.products.items() if k.datatype == datatype}
        done = {
            name
            for layer in layers
            if layer.is_gemm
            for name in layer.origins & asked.keys()
            if layer.inputs.count(datatype) >= asked[name].operands
        }
        if missing := sorted(asked.keys() - done):
            problems.append(
                f"{len(missing)} of {len(asked)} {datatype} products do not run in {datatype}: "
                f"{listed(missing, 8, ', ')}"
            )
    if found.fused_attentions < expected.attentions:
        problems.append(
            f"{found.fused_attentions} of {expected.attentions} attentions are fused into a kernel"
        )
    for kernel, count in expected.quantized_attentions.items():
        if (run := found.attentions_reading.get(kernel.datatype, 0)) < count:
            problems.append(f"{run} of {count} attentions run in {kernel.datatype}")
    if found.gemms_reading.get("Float", 0) > expected.wide_products:
        names = [layer.name for layer in layers if layer.is_gemm and "Float" in layer.inputs]
        problems.append(f"{len(names)} products run in fp32: {listed(names, 4, ', ')}")
    if problems:
        raise SilentFallback(
            f"The engine of {graph!r} would be slower than asked for:\n  " + "\n  ".join(problems)
        )
    return found


def _of_line(text: str) -> Layer:
    if (line := _LINE.match(text)) is None:
        raise SilentFallback(
            "This TensorRT lists layers in words that are not known here, so nobody knows whether "
            f"the engine is fast: {text[:200]}"
        )

    def types(tensors: str | None) -> tuple[str, ...]:
        found = _TENSOR.finditer(tensors or "")
        return tuple(_type(tensor["type"]) for tensor in found if tensor["dims"] not in ("", "1"))

    return Layer(
        line["name"],
        line["kind"],
        types(line["inputs"]) + types(line["constants"]),
        types(line["outputs"]),
        line["tactic"] or "",
        _origins(line["name"], line["metadata"]),
    )


def _of_json(layer: Mapping[str, Any]) -> Layer:
    def types(*keys: str) -> tuple[str, ...]:
        tensors = [tensor for key in keys for tensor in layer.get(key, ())]
        # TensorRT 11 splits the field of TensorRT 10.
        kinds = [tensor.get("Datatype") or tensor["Format/Datatype"] for tensor in tensors]
        return tuple(
            _type(kind)
            for kind, tensor in zip(kinds, tensors, strict=True)
            if tensor["Dimensions"] not in ([], [1])
        )

    return Layer(
        layer["Name"],
        layer["LayerType"],
        types("Inputs", "Constants"),
        types("Outputs"),
        layer.get("TacticName", ""),
        _origins(layer["Name"], layer.get("Metadata", "")),
    )


def _type(words: str) -> str:
    """A type, alone or in a sentence such as 'Row major linear FP32'."""
    found = _IN_WORDS.search(words)
    return _TYPES.get(found[0], found[0]) if found else words.strip()


def _origins(name: str, metadata: str) -> frozenset[str]:
    named = re.sub(r"_myl\d+_\d+$", "", name)
    return frozenset([*_ORIGIN.findall(metadata), *re.split(r" ?\+ ?", named)])

"""Two graphs as one, for ONNX Runtime: that with an optional input, and that without it.

An optional input that holds nothing (its last axis is 0 long) chooses the graph that does not know
it, so it costs no time and no bit of the result. The weights are there once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import onnx
from onnx import TensorProto, helper

_WITH, _WITHOUT = "with.", "without."
_CONDITION: Final = "has_optional"


def either(with_it: onnx.ModelProto, without_it: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A model that is the first where the input `name` holds something, and else the second.

    Args:
        with_it: Exported with the optional input.
        without_it: The same network without it; its weights have the same names and values.
        name: Of the optional input.
    """
    weights = {weight.name: weight for weight in with_it.graph.initializer}
    own, renamed = [], {}
    for weight in without_it.graph.initializer:
        if _same(weight, weights.get(weight.name)):
            renamed[weight.name] = weight.name
            continue
        own.append(_renamed(weight, f"{_WITHOUT}{weight.name}"))
        renamed[weight.name] = own[-1].name
    first = _branch(with_it.graph, _WITH, {weight: weight for weight in weights})
    second = _branch(without_it.graph, _WITHOUT, renamed)
    nodes = [
        helper.make_node("Shape", [name], [f"{_CONDITION}.length"], start=-1),
        helper.make_node(
            "Cast", [f"{_CONDITION}.length"], [f"{_CONDITION}.all"], to=TensorProto.BOOL
        ),
        helper.make_node("Squeeze", [f"{_CONDITION}.all"], [_CONDITION]),
        helper.make_node(
            "If",
            [_CONDITION],
            [output.name for output in with_it.graph.output],
            then_branch=first,
            else_branch=second,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        with_it.graph.name,
        list(with_it.graph.input),
        list(with_it.graph.output),
        [*weights.values(), *own],
    )
    return helper.make_model(
        graph,
        opset_imports=list(with_it.opset_import),
        ir_version=with_it.ir_version,
        producer_name=with_it.producer_name,
        producer_version=with_it.producer_version,
    )


def _branch(graph: onnx.GraphProto, prefix: str, weights: Mapping[str, str]) -> onnx.GraphProto:
    """A graph as part of another: its values get a prefix, its weights the names that they have."""
    made = {name for node in graph.node for name in node.output}

    def renamed(names: Iterable[str]) -> list[str]:
        return [f"{prefix}{name}" if name in made else weights.get(name, name) for name in names]

    nodes = []
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:]
        copy.input.extend(renamed(node.input))
        copy.output.extend(renamed(node.output))
        nodes.append(copy)
    outputs = []
    for output in graph.output:
        value = onnx.ValueInfoProto()
        value.CopyFrom(output)
        value.name = f"{prefix}{output.name}"
        outputs.append(value)
    return helper.make_graph(nodes, f"{prefix}graph", [], outputs)


def _same(one: onnx.TensorProto, other: onnx.TensorProto | None) -> bool:
    if other is None:
        return False
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def _renamed(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(weight)
    copy.name = name
    return copy

"""What follows from a table of tensors, so that a parameter is named in one place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from castmate.engines.bundle import Bundle
from castmate.engines.graphs import (
    Graph,
    Range,
    Table,
    Tensor,
    TensorSpec,
    evaluate,
    shape_ranges,
)
from castmate.families.instantcharacter.graphs import TABLE, TENSORS, WHOLE

TABLE_OF_ONE = Table(
    graphs={
        "mix": Graph(
            {"latents": Tensor("B h w 4C", "float32"), "tokens": Tensor("S 2", "network")},
            {"mixed": Tensor("B h w 4C", "float32")},
        )
    },
    dynamic={"B": 2, "L": 5, "h": 4, "w": 6},
    derived={"N": "h*w", "S": "L+N"},
)
SHAPES = {
    "latents": TensorSpec(dtype="float32", shape=("B", "h", "w", 64)),
    "tokens": TensorSpec(dtype="bfloat16", shape=("S", 2)),
}
MIXED = {"mixed": TensorSpec(dtype="float32", shape=("s1", "s2", "s3", 64))}


@pytest.mark.parametrize(
    ("expression", "value"), [("7", 7), ("4C", 64), ("h*w", 24), ("L+h*w", 29), ("2n+1", 21)]
)
def test_an_axis_is_a_sum_of_products(expression: str, value: int) -> None:
    assert evaluate(expression, {"C": 16, "L": 5, "h": 4, "w": 6, "n": 10}) == value


@pytest.mark.parametrize("expression", ["", "h-w", "h*", "2 3"])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="neither a number nor the name of a dimension"):
        evaluate(expression, {"h": 4, "w": 6})


def test_examples_axes_and_profiles_follow_from_the_table() -> None:
    example = TABLE_OF_ONE.example("mix", {"C": 16})
    assert {name: values.shape for name, values in example.items()} == {
        "latents": (2, 4, 6, 64),
        "tokens": (29, 2),
    }
    again = TABLE_OF_ONE.example("mix", {"C": 16})
    assert all(np.array_equal(example[name], again[name]) for name in example)
    assert TABLE_OF_ONE.dynamic_axes("mix") == {
        "latents": {0: "B", 1: "h", 2: "w"},
        "tokens": {0: "S"},
    }
    sides = Range(min=8, opt=16, max=24)
    one = Range(min=1, opt=1, max=4)
    ranges = TABLE_OF_ONE.ranges(
        {"B": one, "L": Range(min=5, opt=5, max=5), "h": sides, "w": sides}
    )
    profile = shape_ranges(SHAPES, ranges)
    assert profile["tokens"].opt == (5 + 256, 2)
    assert profile["latents"].max == (4, 24, 24, 64)


def test_a_graph_that_fits_has_no_differences_and_gives_the_sizes_of_its_network() -> None:
    assert TABLE_OF_ONE.differences("mix", SHAPES, MIXED) == []
    assert TABLE_OF_ONE.sizes({"mix": SHAPES}) == {"C": 16}


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec(dtype="int64", shape=("S", 2)),
        TensorSpec(dtype="float32", shape=("S",)),
        TensorSpec(dtype="float32", shape=("N", 2)),
        TensorSpec(dtype="float32", shape=(29, 2)),
        TensorSpec(dtype="float32", shape=("S", 3)),
    ],
)
def test_a_tensor_of_another_dtype_rank_or_axis_is_named(spec: TensorSpec) -> None:
    (difference,) = TABLE_OF_ONE.differences("mix", SHAPES | {"tokens": spec}, MIXED)
    assert difference.startswith(f"`tokens` is {spec.dtype}")
    assert difference.endswith("binds network [S, 2]")


def test_a_width_that_no_channels_make_is_refused() -> None:
    odd = SHAPES | {"latents": TensorSpec(dtype="float32", shape=("B", "h", "w", 63))}
    with pytest.raises(ValueError, match=r"axis 4C of `latents`.*is 63"):
        TABLE_OF_ONE.sizes({"mix": odd})


def test_a_new_parameter_needs_its_row_and_the_bundles_without_it_are_refused() -> None:
    graph = TABLE.graphs[WHOLE]
    gain = Tensor("T 1", "float32", values=(0, 1))
    wider = Graph.of({**TENSORS, "gain": gain}, " ".join([*graph.inputs, "gain"]), "next_latents")
    table = replace(TABLE, graphs={**TABLE.graphs, WHOLE: wider})
    toon = Bundle.open("toon").manifest.graphs
    sizes = TABLE.sizes({name: spec.inputs for name, spec in toon.items()})
    assert table.example(WHOLE, sizes)["gain"].shape == (3, 1)
    assert table.dynamic_axes(WHOLE)["gain"] == {0: "T"}
    old = {
        name: TensorSpec(dtype="float32", shape=tensor.axes)
        for name, tensor in graph.inputs.items()
    }
    (difference,) = table.differences(WHOLE, old, {"next_latents": old["latents"]})
    assert difference.endswith(
        "subject_scale, rotary_emb_cos, rotary_emb_sin, gain and next_latents"
    )

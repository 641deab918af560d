"""The layer report on a builder's own words."""

from __future__ import annotations

import pytest

from export.errors import SilentFallback
from export.layers import Expected, check, counts, parse


def tensor(kind: str, dims: str = "-1,256") -> str:
    return (
        f"{{ Name: t, Dimensions: [{dims}], Strides: [1], StrideOrder: [0], Datatype: {kind}, "
        "Format: (Linear) x }"
    )


def line(name: str, kind: str, reads: str, writes: str, tactic: str, origins: str = "") -> str:
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {tensor(reads)}], "
        f"Constants: [ {tensor(reads)}, {tensor('Float', '1')}], Outputs: [ {tensor(writes)}], "
        f"TacticName: {tactic}, StreamId: 0, Metadata: {origins}"
    )


LOG = "\n".join(
    [
        "Layers:",
        line("a+b_myl0_3", "gemm", "FP8", "BFloat16", "__myelin_CASK_STUB"),
        line("_gemm_mha_v2_myl0_4", "kgen", "FP8", "BFloat16", "_gemm_mha_v2_0x1f"),
        line("__myl_FcAdd_myl0_5", "runtime_fusion", "BFloat16", "BFloat16", ""),
        line("__myl_Cast_0x2a_myl0_6", "kgen", "BFloat16", "Float", "__myl_Cast_0x2a"),
        line("__myl_CastMulAdd_myl0_7", "kgen", "Float", "BFloat16", "__myl_CastMulAdd_0xfc"),
    ]
)


def test_products_attentions_and_lone_casts_are_counted_and_scalars_are_not_fp32() -> None:
    found = counts(parse(["something else", LOG]))
    assert found.model_dump() == {
        "layers": 5,
        "gemms": 2,
        "fp8_gemms": 1,
        "fp32_gemms": 0,
        "fused_attentions": 1,
        "fp8_attentions": 1,
        "lone_casts": 1,
    }


def test_a_merged_product_stands_for_each_of_its_nodes() -> None:
    check(parse([LOG]), Expected(frozenset({"a", "b"}), 1, 1, 0), "transformer")


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        (Expected(frozenset({"a", "c"}), 1, 1, 0), "1 of 2 FP8 products do not run in FP8: c"),
        (Expected(frozenset(), 2, 1, 0), "1 of 2 attentions are fused"),
        (Expected(frozenset(), 1, 2, 0), "1 of 2 attentions run in FP8"),
    ],
)
def test_a_fallback_is_an_error_that_names_it(expected: Expected, says: str) -> None:
    with pytest.raises(SilentFallback, match=says):
        check(parse([LOG]), expected, "transformer")


def test_a_product_in_fp32_is_an_error_unless_the_graph_has_it() -> None:
    wide = LOG + "\n" + line("c_myl0_8", "gemm", "Float", "Float", "__myelin_CASK_STUB")
    with pytest.raises(SilentFallback, match="1 products run in fp32: c_myl0_8"):
        check(parse([wide]), Expected(frozenset(), 1, 1, 0), "transformer")
    check(parse([wide]), Expected(frozenset(), 1, 1, 1), "transformer")


def test_a_log_without_a_table_gives_no_layers() -> None:
    assert parse(["nothing", "here"]) == []

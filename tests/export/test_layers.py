"""The layer report on a builder's own words.

In `listings` lie recorded ones, with where they are from. There is none of TensorRT 11: no public
one was found, and building with it takes a GPU. Its migration guide says that it has the layout of
TensorRT-RTX 1.7: types and formats in fields of their own, and the tensors listed behind.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from export.errors import SilentFallback
from export.layers import Expected, check, counts, parse
from export.quantization.fp8 import ATTENTION, PRODUCTS


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


def asked(*products: str, attentions: int = 1, fp8_attentions: int = 1, wide: int = 0) -> Expected:
    return Expected(
        dict.fromkeys(products, PRODUCTS), attentions, {ATTENTION: fp8_attentions}, wide
    )


def test_products_attentions_and_lone_casts_are_counted_and_scalars_are_not_fp32() -> None:
    found = counts(parse(["something else", LOG]))
    assert found.model_dump() == {
        "layers": 5,
        "gemms": 2,
        "gemms_reading": {"FP8": 1, "BFloat16": 1},
        "fused_attentions": 1,
        "attentions_reading": {"FP8": 1},
        "lone_casts": 1,
    }


def test_a_merged_product_stands_for_each_of_its_nodes() -> None:
    check(parse([LOG]), asked("a", "b"), "transformer")


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        (asked("a", "c"), "1 of 2 FP8 products do not run in FP8: c"),
        (asked(attentions=2), "1 of 2 attentions are fused"),
        (asked(fp8_attentions=2), "1 of 2 attentions run in FP8"),
    ],
)
def test_a_fallback_is_an_error_that_names_it(expected: Expected, says: str) -> None:
    with pytest.raises(SilentFallback, match=says):
        check(parse([LOG]), expected, "transformer")


def test_a_product_in_fp32_is_an_error_unless_the_graph_has_it() -> None:
    wide = LOG + "\n" + line("c_myl0_8", "gemm", "Float", "Float", "__myelin_CASK_STUB")
    with pytest.raises(SilentFallback, match="1 products run in fp32: c_myl0_8"):
        check(parse([wide]), asked(), "transformer")
    check(parse([wide]), asked(wide=1), "transformer")


def test_a_log_without_a_table_gives_no_layers() -> None:
    assert parse(["nothing", "here"]) == []


LISTINGS = Path(__file__).parent / "listings"


def recorded(name: str) -> str:
    """A recorded listing without the lines on where it is from."""
    text = (LISTINGS / f"{name}.txt").read_text().splitlines(keepends=True)
    return "".join(line for line in text if not line.startswith("#"))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "tensorrt-10.10",
            {
                "layers": 5,
                "gemms": 3,
                "gemms_reading": {"Half": 3},
                "fused_attentions": 1,
                "attentions_reading": {"Half": 1},
                "lone_casts": 0,
            },
        ),
        (
            "tensorrt-10-convolution",
            {
                "layers": 3,
                "gemms": 2,
                "gemms_reading": {"Half": 2},
                "fused_attentions": 0,
                "attentions_reading": {},
                "lone_casts": 0,
            },
        ),
        (
            "tensorrt-10.1-inspector",
            {
                "layers": 2,
                "gemms": 1,
                "gemms_reading": {"Int8": 1},
                "fused_attentions": 0,
                "attentions_reading": {},
                "lone_casts": 0,
            },
        ),
        (
            "tensorrt_rtx-1.7",
            {
                "layers": 12,
                "gemms": 5,
                "gemms_reading": {"BFloat16": 2, "FP8": 3},
                "fused_attentions": 2,
                "attentions_reading": {"FP8": 2},
                "lone_casts": 0,
            },
        ),
    ],
)
def test_recorded_listings_are_read_whatever_they_leave_out(
    name: str, found: dict[str, object]
) -> None:
    assert counts(parse(["before", recorded(name), "after"])).model_dump() == found


def test_the_nodes_of_a_merged_product_are_found_without_constants() -> None:
    merged, attention, *_ = parse([recorded("tensorrt-10.10")])
    assert merged.tactic.startswith("sm80_xmma_gemm")
    for name in ("mha_prob/key", "mha_prob/query", "value"):
        assert f"/encoder/layers.2/mha/attn/{name}/MatMul" in merged.origins
    assert attention.is_attention
    assert "/encoder/layers.3/mha/attn/mha_prob/Softmax" in attention.origins
    convolution = parse([recorded("tensorrt-10-convolution")])[1]
    assert {"/features/features.0/Conv", "/features/features.1/Relu"} == convolution.origins
    assert convolution.tactic.startswith("sm80_xmma_fprop")


def test_a_listing_in_unknown_words_is_an_error_that_shows_them() -> None:
    with pytest.raises(SilentFallback, match=r"not known here.*Name: x, LayerType: gemm, In"):
        parse(["Layers:\nName: x, LayerType: gemm, In: []"])

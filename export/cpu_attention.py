"""Attention in the operators that ONNX Runtime is quick with on a CPU: no head is ever moved.

torch puts heads before tokens for every attention, and back after it. The operators below take
tokens as the projections leave them and find the heads themselves. For graphs in fp32 only, as
`export.cpu`, which applies the rules.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

HEADS_FIRST = [0, 2, 1, 3]
FLAT = [0, 0, -1]
"""`[B, S, heads, d]` to `[B, S, heads * d]`."""
KEPT = ("is_causal", "scale")


def attention(op: Any, query: Any, key: Any, value: Any, shape: Any) -> Any:
    """What becomes `attention_of_tokens`: each `[B, S, heads, d]`, the result without heads."""
    turned = [op.Transpose(x, perm=HEADS_FIRST) for x in (query, key, value)]
    attended = op.Attention(*turned, _outputs=["attended"])
    return op.Reshape(op.Transpose(attended, perm=HEADS_FIRST), shape, _outputs=["flat"])


def attention_to_one(
    op: Any, query: Any, key: Any, value: Any, keys: Any, values: Any, shape: Any
) -> Any:
    """Likewise, with keys and values that a whole batch shares."""
    turned = op.Transpose(query, perm=HEADS_FIRST)
    shared = [
        op.Expand(op.Transpose(x, perm=HEADS_FIRST), size)
        for x, size in ((key, keys), (value, values))
    ]
    attended = op.Attention(turned, *shared, _outputs=["attended"])
    return op.Reshape(op.Transpose(attended, perm=HEADS_FIRST), shape, _outputs=["flat"])


def forgets_heads(_: Any, query: ir.Value, flat: ir.Value, **others: ir.Value) -> bool:
    """Whether the number of heads is known, and the result has them in one axis."""
    if query.shape is None or flat.shape is None or len(flat.shape) != 3:
        return False
    heads, dim = query.shape[2], query.shape[3]
    return isinstance(heads, int) and isinstance(dim, int) and flat.shape[2] == heads * dim


def attention_of_tokens(
    op: Any, query: ir.Value, key: ir.Value, value: ir.Value, attended: ir.Value, **_: ir.Value
) -> Any:
    """Without a transposition."""
    return _attention(op, query, [tokens(op, x) for x in (query, key, value)], attended)


def attention_of_tokens_to_one(
    op: Any,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    keys: ir.Value,
    values: ir.Value,
    attended: ir.Value,
    **_: ir.Value,
) -> Any:
    """Likewise; what is shared is repeated without heads."""

    def repeated(x: ir.Value, size: ir.Value) -> Any:
        three = op.Slice(size, op.Constant(value_ints=[0]), op.Constant(value_ints=[3]))
        return op.Expand(tokens(op, x), three)

    parts = [tokens(op, query), repeated(key, keys), repeated(value, values)]
    return _attention(op, query, parts, attended)


def _attention(op: Any, query: ir.Value, parts: list[Any], attended: ir.Value) -> Any:
    node = attended.producer()
    assert node is not None
    assert query.shape is not None
    heads = query.shape[2]
    kept = {name: node.attributes[name] for name in KEPT if name in node.attributes}
    return op.Attention(*parts, q_num_heads=heads, kv_num_heads=heads, **kept)


def tokens(op: Any, x: ir.Value) -> Any:
    """`[B, S, heads, d]` to `[B, S, heads * d]`; what it was made from, where that is so shaped."""
    node = x.producer()
    if node is not None and node.op_type == "Reshape":
        before = node.inputs[0]
        assert before is not None
        maker = before.producer()
        turned = maker is not None and maker.op_type == "RotaryEmbedding"
        if turned or (before.shape is not None and len(before.shape) == 3):
            return before
    return op.Reshape(x, op.Constant(value_ints=FLAT))


def rotary(op: Any, x: Any, pairs: Any, shape: Any, cos: Any, sin: Any) -> Any:
    """What becomes `rotary_embedding`: the last axis has pairs `(a, b)`, turned to `(-b, a)`."""
    apart = op.Reshape(x, pairs)
    a = op.Squeeze(op.Slice(apart, [0], [1], [-1]), [-1])
    b = op.Squeeze(op.Slice(apart, [1], [2], [-1]), [-1])
    turned = op.Concat(op.Unsqueeze(op.Neg(b), [-1]), op.Unsqueeze(a, [-1]), axis=-1)
    return op.Add(op.Mul(x, cos), op.Mul(op.Reshape(turned, shape), sin))


def is_of_heads(_: Any, x: ir.Value, cos: ir.Value, **others: ir.Value) -> bool:
    """Whether x is `[B, S, heads, d]`, and the table `[1, S, 1, d]`."""
    if x.shape is None or cos.shape is None or not len(x.shape) == len(cos.shape) == 4:
        return False
    return cos.shape[0] == cos.shape[2] == 1 and all(isinstance(x.shape[i], int) for i in (2, 3))


def rotary_embedding(
    op: Any, x: ir.Value, shape: ir.Value, cos: ir.Value, sin: ir.Value, **_: ir.Value
) -> Any:
    """One operator. Its tables have one value for each pair; FLUX's have it twice."""
    assert x.shape is not None
    heads, dim = x.shape[2], x.shape[3]
    first, second = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    # From the shape that torch wrote: the same for every x, so that the tables are repeated once.
    batch = op.Concat(op.Slice(shape, first, second), op.Constant(value_ints=[1, 1]), axis=0)

    def once(table: ir.Value) -> Any:
        from_first, to_last = op.Constant(value_ints=[0]), op.Constant(value_ints=[2**31 - 1])
        last, every_second = op.Constant(value_ints=[3]), op.Constant(value_ints=[2])
        half = op.Slice(table, from_first, to_last, last, every_second)
        return op.Expand(op.Squeeze(half, op.Constant(value_ints=[2])), batch)

    flat = op.Reshape(x, op.Constant(value_ints=FLAT))
    turned = op.RotaryEmbedding(flat, once(cos), once(sin), interleaved=1, num_heads=heads)
    return op.Reshape(turned, op.Constant(value_ints=[0, 0, heads, dim]))


def rms_norm(op: Any, x: Any, two: Any, axes: Any, epsilon: Any, scale: Any) -> Any:
    """What becomes `rms_normalization`: epsilon outside the root."""
    rms = op.Sqrt(op.ReduceMean(op.Pow(x, two), axes, keepdims=1))
    return op.Mul(op.Div(x, op.Add(rms, epsilon)), scale)


def is_of_last_axis(
    _: Any, two: ir.Value, axes: ir.Value, epsilon: ir.Value, scale: ir.Value, **others: ir.Value
) -> bool:
    """Whether it normalizes the last axis, and a vector scales it."""
    known = [value.const_value for value in (two, axes, epsilon)]
    if any(value is None for value in known) or scale.shape is None or len(scale.shape) != 1:
        return False
    power, axis, _epsilon = (value.numpy() for value in known if value is not None)
    return float(power) == 2 and axis.tolist() == [-1]


def rms_normalization(
    op: Any, x: ir.Value, epsilon: ir.Value, scale: ir.Value, **_: ir.Value
) -> Any:
    """Epsilon squared inside the root: the same for zero, and but for rounding for what is not."""
    assert epsilon.const_value is not None
    inside = float(epsilon.const_value.numpy()) ** 2
    return op.RMSNormalization(x, scale, axis=-1, epsilon=inside)


ATTENTION_RULES = (
    RewriteRule(rotary, rotary_embedding, is_of_heads),
    RewriteRule(rms_norm, rms_normalization, is_of_last_axis),
    RewriteRule(attention, attention_of_tokens, forgets_heads),
    RewriteRule(attention_to_one, attention_of_tokens_to_one, forgets_heads),
)

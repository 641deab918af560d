"""Every tensor of InstantCharacter's graphs: export writes these, the pipeline binds these.

What crosses between host and device is fp32 or an integer; what passes between two graphs has the
dtype of the network.

Dynamic dimensions: B pictures, G guidance passes (1, or 2 with the negative prompt first), L tokens
of `text_encoder_2`, T denoise steps, U steps of one call of the resampler, k pictures of one
character, (h, w) the grid of packed latents, r the rank of a style; P rows of the transformer,
N image tokens, S tokens in all, (H, W) pixels. Sizes of a network: C latent channels before
packing, D and E widths of the prompt's embeddings, K tokens of `text_encoder`, M width and R head
width of the transformer, A modulations of all its blocks, Q subject tokens of width V, F and Z
inputs and outputs of all layers that styles change, in a step and in the modulations, c and d
widths of the image encoders, n tokens of a crop of side s, p pixels of a packed latent's side, v
side of the safety checker's view, m side of the matte's, i side of the identity graph's and e its
features.
"""

from __future__ import annotations

from collections.abc import Container

from castmate.engines.graphs import NETWORK, Graph, Table, Tensor

WHOLE = "transformer"
MATTE = "matte"
"""Finds the character in a picture."""
IDENTITY = "identity"
"""Says whom a picture shows."""
OPTIONAL = (MATTE, IDENTITY)
"""Bundles need not have these."""
PARTS = ("transformer_head", "transformer_tail", "transformer_finish")
"""The transformer in a bundle with step caching, which holds no `WHOLE`, so that no weight is there
twice: a step whose head reports a small `change` may skip the tail and reuse the last
`tail_residual`; one that runs all three is a whole step."""

STEPS_AT_ONCE = 8
"""The most steps whose subject tokens are made in one call: each more takes 37 MB of activations at
full size, with four pictures of the character 94 MB, and so few fill a GPU."""

TENSORS = {
    "crops": Tensor("B 5 s s 3", "uint8"),
    "low_res_deep": Tensor("B n c", NETWORK),
    "low_res_shallow": Tensor("B 3n c", NETWORK),
    "high_res_deep": Tensor("B 4n c", NETWORK),
    "low_res_deep_2": Tensor("B n d", NETWORK),
    "low_res_shallow_2": Tensor("B 3n d", NETWORK),
    "high_res_deep_2": Tensor("B 4n d", NETWORK),
    "subject_features": Tensor("B 2n c+d", NETWORK),
    "timesteps": Tensor("T", "float32", values=(0, 1000)),
    "latents": Tensor("B h w 4C", "float32"),
    "step": Tensor("1", "int64", values=(0, 2)),
    "sigmas": Tensor("T1", "float32", values=(0, 1)),
    "guidance": Tensor("1", "float32", values=(1, 5)),
    "true_cfg_scale": Tensor("1", "float32", values=(3, 5)),
    "prompt_embeds": Tensor("G L D", NETWORK),
    "pooled_projections": Tensor("G E", NETWORK),
    "modulation": Tensor("T G A", NETWORK, values=(-0.5, 0.5)),
    "subject_embeds": Tensor("T Q V", NETWORK),
    "subject_scale": Tensor("1", "float32", values=(0.5, 1)),
    "rotary_emb_cos": Tensor("S R", "float32", values=(0.5, 0.9), repeats=2),
    "rotary_emb_sin": Tensor("S R", "float32", values=(0.5, 0.9), repeats=2),
    "next_latents": Tensor("B h w 4C", "float32", changes="latents"),
    "hidden_states": Tensor("P N M", NETWORK),
    "encoder_hidden_states": Tensor("P L M", NETWORK),
    "previous_head_residual": Tensor("P N M", "float32"),
    "head_residual": Tensor("P N M", "float32"),
    "change": Tensor("1", "float32"),
    "tail_residual": Tensor("P N M", NETWORK),
    "style_factors": Tensor("F r", NETWORK, values=(-0.1, 0.1)),
    "style_modulation_factors": Tensor("Z r", NETWORK, values=(-0.1, 0.1)),
    "images": Tensor("B H W 3", "uint8"),
    "scores": Tensor("B 17", "float32"),
    "has_nsfw": Tensor("B", "bool"),
    "alpha": Tensor("B m m", "float32"),
    "identity_embeds": Tensor("B e", "float32"),
}


def _graph(inputs: str, outputs: str, optional: str = "", **own: Tensor) -> Graph:
    return Graph.of(TENSORS, inputs, outputs, optional, **own)


TABLE = Table(
    graphs={
        "text_encoder": _graph("input_ids", "pooled_projections", input_ids=Tensor("G K", "int64")),
        "text_encoder_2": _graph("input_ids", "prompt_embeds", input_ids=Tensor("G L", "int64")),
        "image_encoder": _graph("crops", "low_res_deep low_res_shallow high_res_deep"),
        "image_encoder_2": _graph("crops", "low_res_deep_2 low_res_shallow_2 high_res_deep_2"),
        "subject_projector": _graph(
            "low_res_deep low_res_shallow high_res_deep "
            "low_res_deep_2 low_res_shallow_2 high_res_deep_2",
            "subject_features",
        ),
        "subject_resampler": _graph(
            "subject_features timesteps",
            "subject_embeds",
            subject_features=Tensor("k 2n c+d", NETWORK),
            timesteps=Tensor("U", "float32", values=(0, 1000)),
            subject_embeds=Tensor("U Q V", NETWORK),
        ),
        "modulation": _graph(
            "pooled_projections guidance timesteps", "modulation", "style_modulation_factors"
        ),
        WHOLE: _graph(
            "latents step sigmas true_cfg_scale prompt_embeds modulation "
            "subject_embeds subject_scale rotary_emb_cos rotary_emb_sin",
            "next_latents",
            "style_factors",
        ),
        "vae_decoder": _graph("latents", "images"),
        "safety_checker": _graph("images", "scores has_nsfw", images=Tensor("B v v 3", "uint8")),
        MATTE: _graph("images", "alpha", images=Tensor("B m m 3", "uint8")),
        IDENTITY: _graph("images", "identity_embeds", images=Tensor("B i i 3", "uint8")),
        "transformer_head": _graph(
            "latents step prompt_embeds modulation "
            "subject_embeds subject_scale rotary_emb_cos rotary_emb_sin previous_head_residual",
            "hidden_states encoder_hidden_states head_residual change",
            "style_factors",
        ),
        "transformer_tail": _graph(
            "hidden_states encoder_hidden_states step modulation "
            "subject_embeds subject_scale rotary_emb_cos rotary_emb_sin",
            "tail_residual",
            "style_factors",
        ),
        "transformer_finish": _graph(
            "latents step sigmas true_cfg_scale hidden_states tail_residual modulation",
            "next_latents",
            "style_factors",
        ),
    },
    dynamic={"B": 2, "G": 2, "L": 40, "T": 3, "U": 3, "k": 2, "h": 4, "w": 6, "r": 8},
    derived={"P": "G*B", "N": "h*w", "S": "L+N", "T1": "T+1", "H": "p*h", "W": "p*w"},
    once_one=frozenset({"k"}),
)


def graph_names(*, step_caching: bool, optional: Container[str] = ()) -> tuple[str, ...]:
    """The graphs of a bundle.

    Args:
        step_caching: With the transformer in its parts, else whole.
        optional: Which of `OPTIONAL` it has.
    """
    left_out = {WHOLE} if step_caching else set(PARTS)
    left_out |= {name for name in OPTIONAL if name not in optional}
    return tuple(name for name in TABLE.graphs if name not in left_out)

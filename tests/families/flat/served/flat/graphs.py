"""Its tensors: two graphs, no prompt, no safety checker."""

from __future__ import annotations

from castmate.engines.graphs import NETWORK, Graph, Table, Tensor

TENSORS = {
    "latents": Tensor("B h w c", "float32"),
    "step": Tensor("1", "int64", values=(0, 4)),
    "colour": Tensor("c", NETWORK),
    "next_latents": Tensor("B h w c", "float32", changes="latents"),
    "images": Tensor("B H W c", "uint8"),
}
TABLE = Table(
    graphs={
        "transformer": Graph.of(TENSORS, "latents step colour", "next_latents"),
        "vae_decoder": Graph.of(TENSORS, "latents", "images"),
    },
    dynamic={"B": 2, "h": 4, "w": 6},
    derived={"H": "p*h", "W": "p*w"},
)

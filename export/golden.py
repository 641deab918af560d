"""Golden tensors of a network: its graphs in torch, recorded while the pipeline draws with them.

The inputs are those of a real picture, since random ones lie outside of what a network was trained
on and make rounding look larger than it is. The arithmetic is fp32 whatever the weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from castmate.engines.base import Array
from castmate.engines.bundle import Bundle
from castmate.engines.cuda import widen
from castmate.engines.family import family_of as served_family
from castmate.engines.golden import Call
from castmate.engines.graphs import TensorSpec
from castmate.engines.manifest import (
    FORMAT,
    MANIFEST,
    GraphSpec,
    IdentitySpec,
    LoraSpec,
    Manifest,
    StepCachingSpec,
    StylesSpec,
)
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import Cache, GenerateRequest
from export.bundle import styles_spec, tokenizer_spec
from export.family import Network, bundle_graphs, family_of
from export.graphs import ExportGraph, Makers
from export.lora.styles import Styles, probe
from export.samples import TokenizerFile, samples

PROBE = "probe"
"""Style of the recorded picture, where there are any: one of the bundle's may fill a disk."""
STEPS = 2
"""The last one is recorded: its latents are half noise and half picture."""
ANY_IDENTITY = IdentitySpec(same=1, another=0, chosen_on="nothing: the graph is run")
EVERY_STEP = StepCachingSpec(balanced=1e-9, fast=1e-9, chosen_on="nothing: all are computed")


@torch.no_grad()
def record(
    network: Network, tokenizers: Mapping[str, TokenizerFile], *, step_caching: bool
) -> dict[str, Call]:
    """Draw the smallest picture of the profile and keep the last call of each graph.

    Args:
        network: On the CPU, not quantized.
        tokenizers: Those of its encoders.
        step_caching: Whether its bundle has the transformer in parts.

    Returns:
        Calls by graph; a graph that the picture does not need has none.
    """
    makers = bundle_graphs(network, step_caching=step_caching)
    profile = family_of(network.family).profile
    (sample,) = samples(1, profile.side.min)
    request = GenerateRequest.parse(
        {
            "prompt": sample.prompt,
            "negative_prompt": "blurry" if profile.guidance_passes.max > 1 else "",
            "true_cfg_scale": 4.0,
            "image": sample.reference.name,
            "enable_matting": True,  # by the bundle's own graph, where it has one
            # Not square, so that a swapped axis shows.
            "size": f"{min(sample.width + 64, profile.side.max)}*{sample.height}",
            "seed": sample.seed,
            "style": PROBE if network.style_slots else "",
            "num_inference_steps": min(STEPS, profile.steps.max),
            "cache": Cache.BALANCED if step_caching else Cache.OFF,
        }
    )
    reference = Reference.from_bytes(sample.reference.read_bytes(), sample.reference.name)
    with tempfile.TemporaryDirectory() as scratch, in_fp32(network):
        bundle = _bundle(network, makers, tokenizers, Path(scratch), step_caching=step_caching)
        runtime = RecordingRuntime(network.family, makers)
        Pipeline(bundle, runtime).generate(request, reference, lambda done, total: None)
    return runtime.calls


class RecordingRuntime:
    """Runs the torch module of each graph; see `castmate.engines.base.Runtime`."""

    name = "torch"
    machine = f"torch {torch.__version__}"

    def __init__(self, family: str, makers: Makers) -> None:
        self._table, self._makers = served_family(family).table, makers
        self.calls: dict[str, Call] = {}

    def load(self, graph: str) -> Any:
        """A graph whose inputs are rounded as they are recorded."""
        made = self._makers[graph]()

        def run(**inputs: Tensor) -> Mapping[str, Tensor]:
            given = {name: _rounded(inputs[name]) for name in made.inputs}
            found = made.module(*given.values())
            tensors = (found,) if isinstance(found, Tensor) else found
            outputs = {
                name: tensor.float() if tensor.is_floating_point() else tensor
                for name, tensor in zip(made.outputs, tensors, strict=True)
            }
            self.calls[graph] = Call(self._table.graphs[graph], _arrays(given), _arrays(outputs))
            return outputs

        return run

    def upload(self, array: Array, dtype: str | None = None) -> Tensor:
        """A tensor of the values."""
        return torch.from_numpy(widen(array) if dtype == "bfloat16" else np.array(array))

    def download(self, tensor: Tensor) -> Array:
        """The values."""
        values: Array = tensor.numpy()
        return values

    def concatenate(self, tensors: Sequence[Tensor]) -> Tensor:
        """Join tensors along their first axis."""
        return torch.cat(list(tensors))

    def num_bytes(self, tensor: Tensor) -> int:
        """Memory of a tensor."""
        return tensor.nbytes


@contextmanager
def in_fp32(network: nn.Module) -> Iterator[None]:
    """Let every layer compute in fp32, one widened at a time: a whole network would not fit."""
    narrow: dict[nn.Module, list[tuple[nn.Parameter, Tensor]]] = {}

    def widen(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        narrow[module] = [(weight, weight.data) for weight in module.parameters(recurse=False)]
        for weight, data in narrow[module]:
            weight.data = data.float()
        return tuple(map(_widened, args)), {name: _widened(arg) for name, arg in kwargs.items()}

    def restore(module: nn.Module, args: Any, output: Any) -> None:
        for weight, data in narrow.pop(module):
            weight.data = data

    handles = []
    for module in network.modules():
        own = [w for w in module.parameters(recurse=False) if w.is_floating_point()]
        if any(weight.dtype != torch.float32 for weight in own):
            handles.append(module.register_forward_pre_hook(widen, with_kwargs=True))
            handles.append(module.register_forward_hook(restore, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _widened(value: Any) -> Any:
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.float() if is_float else value


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.bfloat16().float() if tensor.is_floating_point() else tensor


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _bundle(
    network: Network,
    makers: Makers,
    tokenizers: Mapping[str, TokenizerFile],
    folder: Path,
    *,
    step_caching: bool,
) -> Bundle:
    """As much of a bundle as the pipeline needs."""
    family = family_of(network.family)
    manifest = Manifest(
        format=FORMAT,
        family=network.family,
        name=network.config.name,
        description="",
        engine=RecordingRuntime.name,
        precision="fp32",
        gpu=None,
        licences={},
        created_with={},
        graphs={name: _spec(make()) for name, make in makers.items()},
        tokenizers={
            name: tokenizer_spec(file, folder / f"{name}.json") for name, file in tokenizers.items()
        },
        profile=family.profile,
        constants=family.constants(network),
        defaults=family.defaults,
        step_caching=EVERY_STEP if step_caching else None,
        identity=ANY_IDENTITY,
        styles=_probe_style(network, folder) if network.style_slots else None,
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())  # pictures carry its hash
    return Bundle(folder, manifest)


def _probe_style(network: Network, folder: Path) -> StylesSpec:
    """One style, which changes every layer that any can change."""
    lora = LoraSpec(file="", sha256="", scale=1.0)
    dtype = next(w.dtype for w in network.denoiser.parameters() if w.is_floating_point())
    return styles_spec(Styles({PROBE: lora}, {PROBE: probe(network)}), folder, dtype)


def _spec(graph: ExportGraph) -> GraphSpec:
    inputs = {
        name: TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(
                graph.dynamic[name].get(axis, size) for axis, size in enumerate(tensor.shape)
            ),
        )
        for name, tensor in graph.inputs.items()
    }
    return GraphSpec(files=(), inputs=inputs, outputs={})

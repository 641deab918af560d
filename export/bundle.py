"""The last step: every graph, the tokenizers and the manifest, in one folder that appears whole."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import onnx
import torch
from onnx import TensorProto
from rich.progress import track

import castmate
from castmate.defaults import Defaults, Limits
from castmate.engines.family import family_of as served_family
from castmate.engines.golden import GOLDEN, Call, save
from castmate.engines.graphs import TensorSpec
from castmate.engines.licences import Licence
from castmate.engines.manifest import (
    FORMAT,
    MANIFEST,
    FileSpec,
    GoldenSpec,
    GraphSpec,
    IdentitySpec,
    LoraSpec,
    Manifest,
    ScaleLayout,
    StepCachingSpec,
    StyleSpec,
    StylesSpec,
    TokenizerSpec,
)
from export.family import Network, bundle_graphs, family_of
from export.golden_limits import golden_limits
from export.graphs import Makers
from export.lora.styles import Styles
from export.lora.styles import write as write_factors
from export.precision import Precision, convert
from export.quantization.none import NONE
from export.quantization.scheme import Scheme
from export.samples import TokenizerFile
from export.to_onnx import to_onnx

DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.BOOL: "bool",
}


def write_bundle(
    network: Network,
    folder: Path,
    *,
    description: str,
    licences: Mapping[str, Licence],
    tokenizers: Mapping[str, TokenizerFile],
    golden: Mapping[str, Call],
    precision: Precision = Precision.FP32,
    quantization: Scheme = NONE,
    encoders: bool = False,
    step_caching: StepCachingSpec | None = None,
    identity: IdentitySpec | None = None,
    loras: Sequence[LoraSpec] = (),
    defaults: Defaults | None = None,
    limits: Limits | None = None,
    styles: Styles | None = None,
) -> None:
    """Export every graph of `network` and write the bundle; a failure leaves `folder` as it was.

    Other files in `folder` (such as references) are kept.

    Args:
        network: In evaluation mode, already quantized if it is to be. Its weights are brought into
            the dtype of `precision` in place; with `FP16_WEIGHTS` they should hold fp16 values, or
            the bundle differs from it by their rounding.
        folder: Made if absent.
        description: One sentence for people, in the manifest.
        licences: Of each part of the weights.
        tokenizers: Those of its encoders, by the names that the family gives them.
        golden: From `export.golden.record`, of the network before it was quantized.
        precision: Of weights and arithmetic.
        quantization: The scheme of the transformer, for the manifest.
        encoders: Whether the encoders were quantized as well, for the manifest.
        step_caching: Write the transformer in parts, so that steps may be skipped at these
            thresholds.
        identity: What a cosine of the identity graph means, where that is known.
        loras: What was fused into the network, for the manifest.
        defaults: What a request gets for what it leaves out; the family's by default.
        limits: Of what the network was made for.
        styles: From `export.lora.styles.prepare`, of this network.
    """
    family = family_of(network.family)
    defaults = defaults or family.defaults
    steps = family.profile.steps.model_copy(update={"opt": defaults.num_inference_steps})
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".bundle-") as scratch:
        made = Path(scratch)
        convert(network, precision.dtype)
        makers = bundle_graphs(network, step_caching=step_caching is not None)
        graphs = {
            name: graph_spec(to_onnx(make(), made / f"{name}.onnx", precision=precision))
            for name, make in track(makers.items(), "Exporting graphs")
        }
        manifest = Manifest(
            format=FORMAT,
            family=network.family,
            name=network.config.name,
            description=description,
            engine="onnxruntime",
            precision=describe(precision, quantization, encoders=encoders),
            gpu=None,
            licences=licences,
            created_with={
                "castmate": castmate.__version__,
                **{name: version(name) for name in ("torch", "diffusers", "transformers", "onnx")},
            },
            graphs=graphs,
            tokenizers={
                name: tokenizer_spec(file, made / f"{name}.json")
                for name, file in tokenizers.items()
            },
            golden=write_golden(golden, made, precision, makers),
            profile=family.profile.model_copy(update={"steps": steps}),
            constants=family.constants(network),
            defaults=defaults,
            limits=limits or {},
            step_caching=step_caching,
            quantization=layouts(quantization),
            identity=identity,
            loras=tuple(loras),
            styles=None if styles is None else styles_spec(styles, made, precision.dtype),
        )
        (made / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        # The manifest goes last: until it is there, what the old one says no longer fits and the
        # bundle is refused.
        for path in sorted(made.iterdir(), key=lambda path: path.name == MANIFEST):
            path.replace(folder / path.name)
        # What an earlier bundle of the other kind had: the transformer whole, or in parts.
        for name in set(served_family(network.family).table.graphs) - set(graphs):
            for suffix in (".onnx", ".onnx.data"):
                (folder / f"{name}{suffix}").unlink(missing_ok=True)


def styles_spec(styles: Styles, folder: Path, dtype: torch.dtype) -> StylesSpec:
    """Write the factors of styles to a folder, and describe them."""
    known = {}
    for name, factors in styles.factors.items():
        write_factors(path := folder / f"style-{name}.npz", factors, dtype)
        known[name] = StyleSpec(**file_spec(path).model_dump(), lora=styles.loras[name])
    return StylesSpec(rank=styles.rank, known=known)


def write_golden(
    calls: Mapping[str, Call], folder: Path, precision: Precision, makers: Makers
) -> GoldenSpec:
    """Write golden tensors, and what graphs may differ from them: see `golden_limits`.

    Raises:
        ExportError: A graph's rounding costs so much that no limit could tell a wrong engine.
    """
    limits = golden_limits(calls, precision, makers)
    save(path := folder / GOLDEN, calls)
    return GoldenSpec(**file_spec(path).model_dump(), limits=limits)


def describe(precision: Precision, quantization: Scheme, *, encoders: bool = False) -> str:
    """For the manifest, such as 'bf16, transformer fp8'."""
    if quantization is NONE:
        return precision.description
    parts = "transformer and encoders" if encoders else "transformer"
    return f"{precision.description}, {parts} {quantization}"


def layouts(quantization: Scheme) -> dict[str, ScaleLayout]:
    """How a scheme, and the wider one that takes sensitive layers, store theirs."""
    schemes = dict.fromkeys((quantization, quantization.wider))
    return {str(scheme): scheme.layout for scheme in schemes if scheme.layout is not None}


def graph_spec(paths: Sequence[Path]) -> GraphSpec:
    """Describe a written graph: its file, then external data."""
    graph = onnx.load(paths[0], load_external_data=False).graph

    def specs(values: list[onnx.ValueInfoProto]) -> dict[str, TensorSpec]:
        return {
            value.name: TensorSpec(
                dtype=DTYPES[value.type.tensor_type.elem_type],
                shape=tuple(
                    dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim
                ),
            )
            for value in values
        }

    return GraphSpec(
        files=tuple(map(file_spec, paths)),
        inputs=specs(list(graph.input)),
        outputs=specs(list(graph.output)),
    )


def file_spec(path: Path) -> FileSpec:
    """Name, hash and size of a file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileSpec(file=path.name, sha256=digest, num_bytes=path.stat().st_size)


def tokenizer_spec(source: TokenizerFile, target: Path) -> TokenizerSpec:
    """Copy a tokenizer into a bundle and describe it."""
    shutil.copyfile(source.path, target)
    return TokenizerSpec(
        **file_spec(target).model_dump(),
        max_length=source.max_length,
        pad_id=source.pad_id,
        unk_id=source.unk_id,
    )

"""FLUX.1-dev, InstantCharacter's adapter and both image encoders from folders or the hub.

Only tensors are read: safetensors, and the adapter's file with weights-only loading. Keys and
shapes are compared with the network's, and every one that is missing or unknown is named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from export.errors import ExportError, listed
from export.families.instantcharacter.adapter import load_adapter
from export.families.instantcharacter.config import FLUX, GUIDANCE_EMBEDDER, ModelConfig
from export.families.instantcharacter.dino import FILES as DINO_FILES
from export.families.instantcharacter.dino import load_dino
from export.families.instantcharacter.isnet import load_isnet
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.pretrained import pretrained, refuse
from export.precision import convert
from export.samples import TokenizerFile
from export.state_dict import differences

ADAPTER_FILE = "instantcharacter_ip-adapter.bin"


@dataclass(frozen=True)
class Sources:
    """Where each part comes from: a folder here, or a repository on the hub.

    Attributes:
        flux: In diffusers' layout. Its licence is non-commercial.
        adapter: A folder or repository with the published file, or the file itself.
        image_encoder: SigLIP.
        image_encoder_2: DINOv2.
        safety_checker: diffusers' Stable Diffusion safety checker; FLUX ships none.
        matte: A file of IS-Net's weights, such as `isnet-general-use.pth`; empty for no matte.
        identity: DINO ViT-S/16, such as `facebook/dino-vits16`; empty for no identity graph.
    """

    flux: str = "black-forest-labs/FLUX.1-dev"
    adapter: str = "tencent/InstantCharacter"
    image_encoder: str = "google/siglip-so400m-patch14-384"
    image_encoder_2: str = "facebook/dinov2-giant"
    safety_checker: str = "CompVis/stable-diffusion-safety-checker"
    matte: str = ""
    identity: str = ""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Flags for every source."""
        for one in fields(cls):
            flag = f"--{one.name.replace('_', '-')}"
            help_text = str(one.default) or _OPTIONAL[one.name]
            parser.add_argument(flag, default=one.default, help=help_text)

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Sources:
        """From parsed flags."""
        return cls(**{one.name: getattr(arguments, one.name) for one in fields(cls)})


def load_network(
    sources: Sources, dtype: torch.dtype, config: ModelConfig = FLUX
) -> InstantCharacter:
    """Load everything; large weights stay mapped from their files.

    Args:
        sources: Where from.
        dtype: What weights are brought to.
        config: The sizes that the files must have.

    Raises:
        ExportError: Something is missing, unreadable or of other sizes.
    """
    folders = {name: locate(getattr(sources, name), files) for name, files in _WEIGHTS.items()}
    with torch.device("meta"):
        network = InstantCharacter(config)
    flux = folders["flux"]
    _check_guidance(flux / "transformer", config)
    absent = () if config.has_guidance else (GUIDANCE_EMBEDDER,)
    assign(network.transformer, flux / "transformer", zero=absent)
    assign(network.vae, flux / "vae")
    adapter = folders["adapter"]
    load_adapter(network, adapter / ADAPTER_FILE if adapter.is_dir() else adapter)
    for name, folder in {
        "text_encoder": flux / "text_encoder",
        "text_encoder_2": flux / "text_encoder_2",
        "image_encoder": folders["image_encoder"],
        "image_encoder_2": folders["image_encoder_2"],
        "safety_checker": folders["safety_checker"],
    }.items():
        setattr(network, name, pretrained(getattr(network, name), folder))
    network.matte = load_isnet(Path(sources.matte).expanduser()) if sources.matte else None
    network.identity = None
    if sources.identity:
        found = locate(sources.identity, DINO_FILES)
        network.identity = load_dino(config.identity["vit"], found)
    convert(network, dtype)
    unset = [name for name, tensor in _tensors(network).items() if tensor.is_meta]
    if unset:
        raise ExportError(f"No weights were found for {listed(unset, 10, ', ')}.")
    return network.eval()


_OPTIONAL = {
    "matte": "isnet-general-use.pth; by default the bundle has no matte",
    "identity": "facebook/dino-vits16; by default the bundle does not judge who is in its pictures",
}
# Exactly what is read: FLUX's repository holds its weights a second time, in two single files.
_MODEL = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "flux": (
        "transformer/*.safetensors",
        "vae/*.safetensors",
        *(f"text_encoder/{name}" for name in _MODEL),
        *(f"text_encoder_2/{name}" for name in _MODEL),
    ),
    "adapter": (ADAPTER_FILE,),
    "image_encoder": _MODEL,
    "image_encoder_2": _MODEL,
    "safety_checker": _MODEL,
}
_TOKENIZERS = ("tokenizer/*", "tokenizer_2/*")


def locate(source: str, files: Sequence[str]) -> Path:
    """A path here, or a snapshot of a repository on the hub.

    Args:
        source: A folder, or `owner/name` on the hub.
        files: Patterns of the files that are read; nothing else is downloaded.

    Raises:
        ExportError: Neither; says what to do about a gated repository.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise ExportError(f"{source} does not exist; name a folder, or a repository as owner/name.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(source, allow_patterns=list(files))  # it reads HF_TOKEN itself
    except GatedRepoError:
        raise ExportError(
            f"{source} is gated: accept its licence on its page and set HF_TOKEN to your token."
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ExportError(
            f"{source} is no folder here and cannot be fetched from the hub: {error}"
        ) from None
    return Path(found)


def load_tokenizers(
    sources: Sources, config: ModelConfig, folder: Path
) -> dict[str, TokenizerFile]:
    """CLIP's and T5's tokenizers as `tokenizers` files, written to a folder.

    Raises:
        ExportError: One is missing.
    """
    flux, made = locate(sources.flux, _TOKENIZERS), {}
    lengths = (config.text_encoder["max_position_embeddings"], config.max_sequence_length)
    for name, length in zip(("tokenizer", "tokenizer_2"), lengths, strict=True):
        try:
            tokenizer = AutoTokenizer.from_pretrained(flux / name, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ExportError(f"{flux / name} holds no tokenizer: {error}") from None
        path = folder / f"{name}.json"
        tokenizer.backend_tokenizer.save(str(path))
        pad, unknown = tokenizer.pad_token_id, tokenizer.unk_token_id
        made[name] = TokenizerFile(path, length, pad, unknown)
    return made


def _check_guidance(folder: Path, config: ModelConfig) -> None:
    """Refuse a base of another kind: its keys would be said to be missing or unknown.

    Raises:
        ExportError: Says which flags do not belong together.
    """
    with contextlib.suppress(OSError, ValueError):
        embeds = json.loads((folder / "config.json").read_text()).get("guidance_embeds")
        if embeds is not None and embeds is not config.has_guidance:
            has, wants = (("no ", "one"), ("a ", "none"))[embeds]
            raise ExportError(
                f"{folder} has {has}guidance embedder, and this recipe is for a base with {wants}. "
                "FLUX.1-dev has one, FLUX.1-schnell has none. Name another --flux or another "
                "--steps-preset."
            )


def assign(module: nn.Module, folder: Path, *, zero: tuple[str, ...] = ()) -> None:
    """Give `module` the weights in a diffusers folder, without copying them.

    Args:
        module: What gets them.
        folder: With .safetensors files.
        zero: Beginnings of keys that the folder does not hold; these weights become zero.

    Raises:
        ExportError: Names every missing, unknown and misshapen key; nothing is then assigned.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ExportError(f"{folder} holds no .safetensors file.")
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise ExportError(f"{file} cannot be read: {error}. Download it again.") from None
    expected = module.state_dict()
    absent = {key: tensor.shape for key, tensor in expected.items() if key.startswith(zero)}
    held = {key: tensor for key, tensor in expected.items() if key not in absent}
    refuse(folder, differences(held, state))
    dtype = next(iter(state.values())).dtype
    state |= {key: torch.zeros(shape, dtype=dtype) for key, shape in absent.items()}
    module.load_state_dict({key: state[key] for key in expected}, assign=True)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())

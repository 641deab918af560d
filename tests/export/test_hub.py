"""What is fetched from the hub, seen at the wire: the files that are read, and no others."""

from __future__ import annotations

import asyncio
import hashlib
import json
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from export.errors import ExportError
from export.families.instantcharacter.load import (
    ADAPTER_FILE,
    Sources,
    load_network,
    load_tokenizers,
)
from export.families.instantcharacter.network import InstantCharacter
from export.lora.fuse import Lora
from export.presets.preset import Preset
from tests.fakes.http import Answer, Call, serving

COMMIT = "0" * 40
REPOSITORIES = {
    "flux": Sources.flux,
    "adapter": Sources.adapter,
    "image_encoder": Sources.image_encoder,
    "image_encoder_2": Sources.image_encoder_2,
    "safety_checker": Sources.safety_checker,
}
NOT_READ: Mapping[str, tuple[str, ...]] = {
    Sources.flux: (
        "flux1-dev.safetensors",
        "ae.safetensors",
        "dev_grid.jpg",
        "model_index.json",
        "README.md",
        "scheduler/scheduler_config.json",
    ),
    Sources.adapter: ("README.md", "assets/demo.png"),
    Sources.image_encoder: ("spiece.model", "tokenizer.json", "preprocessor_config.json"),
    Sources.image_encoder_2: ("pytorch_model.bin", "preprocessor_config.json"),
    Sources.safety_checker: ("pytorch_model.bin", "preprocessor_config.json"),
}
"""What the repositories hold besides, as their pages list it."""


class Hub:
    """The part of the hub's API that a snapshot needs, over folders."""

    def __init__(self, folder: Path) -> None:
        self.files = {
            owner: {
                str(path.relative_to(folder / part)): path.read_bytes()
                for path in (folder / part).rglob("*")
                if path.is_file()
            }
            | dict.fromkeys(NOT_READ[owner], b"not read")
            for part, owner in REPOSITORIES.items()
        }
        self.fetched: set[tuple[str, str]] = set()

    async def answer(self, call: Call) -> Answer:
        path = urllib.parse.unquote(call.path).lstrip("/")
        if path.startswith("api/models/"):
            owner = "/".join(path.split("/")[2:4])
            if f"{owner}/tree/" in path:
                return as_json([entry(name, data) for name, data in self.files[owner].items()])
            siblings = [{"rfilename": name} for name in self.files[owner]]
            return as_json({"id": owner, "sha": COMMIT, "siblings": siblings})
        path = path.replace("/resolve/main/", f"/resolve/{COMMIT}/")
        owner, _, name = path.partition(f"/resolve/{COMMIT}/")
        data = self.files.get(owner, {}).get(name)
        if data is None:
            return Answer(404)
        if call.method == "GET":
            self.fetched.add((owner, name))
        headers = {"etag": f'"{blob(data)}"', "x-repo-commit": COMMIT}
        if call.method == "HEAD":
            return Answer(headers=headers | {"content-length": str(len(data))})
        return Answer(body=data, headers=headers)


def entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": blob(data)}


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def as_json(value: object) -> Answer:
    return Answer(body=json.dumps(value).encode(), headers={"content-type": "application/json"})


def use(monkeypatch: pytest.MonkeyPatch, port: int, folder: Path) -> None:
    """Let the hub's client ask a server here, and keep what it fetches in a folder."""
    constants, url = "huggingface_hub.constants", f"http://127.0.0.1:{port}"
    monkeypatch.setattr(f"{constants}.ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(folder / "hub"))


def test_of_a_presets_repository_its_lora_alone_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, preset = Hub(tmp_path), Preset.read("hyper-8")
    assert preset.lora is not None
    owner, name = str(preset.lora.repository), preset.lora.file

    async def fetch() -> tuple[Lora, ...]:
        async with serving(hub.answer) as port:
            use(monkeypatch, port, tmp_path)
            with pytest.raises(ExportError, match=r"cannot be fetched.*without `repository`"):
                await asyncio.to_thread(preset.loras)
            hub.files[owner] = {name: b"a LoRA", "Hyper-SD15-8steps-lora.safetensors": b"no"}
            return await asyncio.to_thread(preset.loras)

    (lora,) = asyncio.run(asyncio.wait_for(fetch(), 60))
    assert (lora.path.read_bytes(), lora.scale) == (b"a LoRA", 0.125)
    assert hub.fetched == {(owner, name)}


@pytest.mark.slow
def test_only_files_that_are_read_are_downloaded(
    published: Path, network: InstantCharacter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(published)

    async def load() -> InstantCharacter:
        async with serving(hub.answer) as port:
            use(monkeypatch, port, tmp_path)
            await asyncio.to_thread(load_tokenizers, Sources(), network.config, tmp_path)
            assert hub.fetched
            assert all(name.startswith("tokenizer") for _, name in hub.fetched)
            return await asyncio.to_thread(load_network, Sources(), torch.float32, network.config)

    loaded = asyncio.run(asyncio.wait_for(load(), 120))
    weights = network.vae.state_dict()
    assert all(torch.equal(weights[k], w) for k, w in loaded.vae.state_dict().items())
    shards = {name for _, name in hub.fetched if not name.startswith("tokenizer")}
    assert shards == {
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "model.safetensors",
        ADAPTER_FILE,
    }
    owners = {owner for owner, name in hub.fetched if name == "model.safetensors"}
    assert owners == {Sources.image_encoder, Sources.image_encoder_2, Sources.safety_checker}

"""Cached training data for the flow stage: latents of pictures, subject features of characters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from castmate.files import open_atomically
from demo_model.autoencoder import encode_half, load_autoencoder, render_batch_of
from demo_model.characters import CharacterSpec, training_characters
from demo_model.draw import PictureSpec, is_mirrored, random_picture
from demo_model.poses import Pose
from demo_model.pretrain import load_pretrained
from demo_model.scenes import Scene
from demo_model.subjects import crops, random_reference
from demo_model.training import Budget
from demo_model.warm import shipped_network, warm_network

Size = tuple[int, int]

NUM_CHARACTERS = 5000
REFERENCES_EACH = 2
SHARD = 200
# Width, height, and how many pictures.
PICTURES: dict[Size, int] = {
    (512, 512): 10000,
    (768, 768): 1600,
    (1024, 1024): 5000,
    (768, 1344): 1000,
    (1344, 768): 1000,
    (1536, 640): 800,
    (640, 1536): 800,
    (1536, 1536): 400,
}
# Plus pictures of random sizes, because the network draws sizes unseen in training badly.
OTHER_SHARDS, OTHER_SHARD = 240, 25
SIDES = range(512, 1537, 64)
MAIN_SIZE: Size = (512, 512)
SIMPLE = 0.45
"""Share of pictures with nothing but a pose and a place, which is what most prompts ask for."""
FEATURES = "subject_features.pt"


def training_picture(size: Size, index: int, characters: list[CharacterSpec]) -> PictureSpec:
    """The content of picture number `index` of a size."""
    rng = Random(f"picture/{size}/{index}")
    character = characters[rng.randrange(len(characters))]
    if rng.random() >= SIMPLE:
        return random_picture(rng, character)
    pose, scene = rng.choice(list(Pose)), rng.choice(list(Scene))
    return PictureSpec(character, pose, scene, seed=rng.randrange(2**31))


def _shard_path(folder: Path, size: Size, first: int) -> Path:
    return folder / "latents" / f"{size[0]}x{size[1]}-{first:05d}.npy"


@dataclass(frozen=True)
class Shard:
    """Pictures of one size that are cached together; `first` is the number of the first."""

    size: Size
    first: int
    count: int


def shards() -> list[Shard]:
    """All shards, interleaved so that any prefix of the list has every size."""
    found = []
    counts = Counter(PICTURES)
    for size, count in PICTURES.items():
        parts = -(-count // SHARD)
        found += [((part + 0.5) / parts, Shard(size, part * SHARD, SHARD)) for part in range(parts)]
    for number in range(OTHER_SHARDS):
        rng = Random(f"size/{number}")
        size = rng.choice(SIDES), rng.choice(SIDES)
        found.append(((number + 0.5) / OTHER_SHARDS, Shard(size, counts[size], OTHER_SHARD)))
        counts[size] += OTHER_SHARD
    return [shard for _, shard in sorted(found, key=lambda item: item[0])]


def cache_latents(budget: Budget, folder: Path, share: tuple[int, int] = (0, 1)) -> None:
    """Encodes the training pictures; it resumes, because finished shards are kept.

    Args:
        budget: Only its device is used.
        folder: Has the trained core, and gets the shards.
        share: This process's number, and the number of processes that share the work.
    """
    vae = load_autoencoder(folder).to(budget.device)
    characters = training_characters(NUM_CHARACTERS)
    (folder / "latents").mkdir(parents=True, exist_ok=True)
    every = shards()
    for number, shard in enumerate(every):
        path = _shard_path(folder, shard.size, shard.first)
        if number % share[1] != share[0] or path.exists():
            continue
        numbers = range(shard.first, shard.first + shard.count)
        pictures = [training_picture(shard.size, i, characters) for i in numbers]
        latents = torch.cat(
            [
                encode_pictures(vae, pictures[i : i + 4], shard.size)
                for i in range(0, shard.count, 4)
            ]
        )
        with open_atomically(path) as stream:
            np.save(stream, latents.half().cpu().numpy())
        print(f"latents {path.name} ({number + 1}/{len(every)})", flush=True)


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pictures: list[PictureSpec], size: Size) -> Tensor:
    """Latents of pictures, from half-size renders: see `encode_half`."""
    device = next(vae.parameters()).device
    pixels = render_batch_of(pictures, size[0] // 2, size[1] // 2).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        return encode_half(vae, pixels)[0].float()


@torch.no_grad()
def cache_features(budget: Budget, folder: Path) -> None:
    """Encodes references of every training character; the encoders are frozen from here on."""
    if (folder / FEATURES).exists():
        return
    network = warm_network().eval().to(budget.device)
    load_pretrained(network, folder)
    rows = []
    for index, spec in enumerate(training_characters(NUM_CHARACTERS)):
        rng = Random(f"reference/{index}")
        views = torch.stack([crops(random_reference(spec, rng)) for _ in range(REFERENCES_EACH)])
        rows.append(network.subject_features(views.to(budget.device)).half().cpu())
    torch.save(torch.stack(rows), folder / FEATURES)


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of all latents: the VAE's shift and 1 / scaling."""

    shift_factor: float
    scaling_factor: float

    @classmethod
    def load(cls, folder: Path) -> LatentStatistics:
        """Reads what `keep` wrote."""
        return cls(**json.loads((folder / "latents.json").read_text()))

    @classmethod
    def keep(cls, folder: Path) -> LatentStatistics:
        """Writes those of the shipped latents, which are the latents of every training."""
        config = shipped_network().vae.config
        statistics = cls(config["shift_factor"], config["scaling_factor"])
        (folder / "latents.json").write_text(json.dumps(asdict(statistics)))
        return statistics


def facing_one_way(x: Tensor, pictures: Sequence[PictureSpec]) -> Tensor:
    """Pictures or latents `[B, C, H, W]`, turned around wherever the figure is mirrored.

    A prompt does not say which arm waves. A transformer that has seen either draws half of both.
    """
    mirrored = [is_mirrored(picture) for picture in pictures]
    return torch.where(torch.tensor(mirrored).view(-1, 1, 1, 1), x.flip(-1), x)


class LatentStore:
    """The shards that exist so far, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.characters = training_characters(NUM_CHARACTERS)
        self.shards: dict[Size, list[tuple[int, np.ndarray]]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Finds shards written since the last call."""
        self.shards = {}
        for shard in shards():
            path = _shard_path(self.folder, shard.size, shard.first)
            if path.exists():
                found = self.shards.setdefault(shard.size, [])
                found.append((shard.first, np.load(path, mmap_mode="r")))

    def count(self, size: Size) -> int:
        """The number of pictures of a size."""
        return sum(len(shard) for _, shard in self.shards[size])

    def sample(self, size: Size, count: int, rng: Random) -> tuple[Tensor, list[PictureSpec]]:
        """Latents `[count, C, h, w]` and the content of their pictures; figures face one way."""
        latents, pictures = [], []
        for _ in range(count):
            first, shard = rng.choice(self.shards[size])
            index = rng.randrange(len(shard))
            latents.append(torch.from_numpy(np.array(shard[index], dtype=np.float32)))
            pictures.append(training_picture(size, first + index, self.characters))
        return facing_one_way(torch.stack(latents), pictures), pictures

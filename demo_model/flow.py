"""Trains transformer, subject branch, resampler and text encoders by flow matching.

The image encoders and the projector are already frozen; subject features come from the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castmate.families.instantcharacter.schedule import rotary_tables
from demo_model.captions import full_caption, short_caption, with_unknown_words
from demo_model.config import MAX_SEQUENCE_LENGTH, TOON
from demo_model.data import FEATURES, MAIN_SIZE, LatentStatistics, LatentStore, Size
from demo_model.optimizers import Muon, split_parameters
from demo_model.precision import mixed_precision
from demo_model.pretrain import load_pretrained
from demo_model.tokens import build_tokenizer, encode
from demo_model.training import Budget, Loop, Tick
from demo_model.warm import warm_network
from export.families.instantcharacter.network import InstantCharacter, pack_latents

FLOW, DISTILLED = "flow", "distilled"
SUBJECT_SCALE = 0.8
PX_PER_TOKEN = 64
MAIN_BATCH = 40
"""Pictures in each worker's batch at the main size; other sizes get about equal work."""
MAIN_SHARE, LATER_MAIN_SHARE = 0.62, 0.2
"""Share of batches at the main size. Small pictures are learned fastest, but poses in large ones
are worse without the later share."""
COMPILED: tuple[Size, ...] = (MAIN_SIZE, (1024, 1024))
"""The sizes that a compiled training compiles: each costs minutes, so only the most frequent."""
LATER = 0.4
"""Fraction of the flow stage after which the later share holds; distillation always uses it."""
_PLAIN = (
    "embed", "norm", "shared", "position", "relative", "latents", "bias",
    "transformer.proj_out", "proj_in", "subject_resampler.proj_out", "resampler.layers.0.2",
)  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """Inputs of one training step.

    Attributes:
        latents: Packed, normalised, `[B, S, 4C]`.
        ids: Captions, `[B, L]`.
        features: Subject features `[B, F, c]`.
        subject_scale: `[B, 1, 1]`; 0 for pictures shown without a reference.
        rotary: cos and sin of text and image tokens.
        size: Of the pictures, in pixels.
    """

    latents: Tensor
    ids: Tensor
    features: Tensor
    subject_scale: Tensor
    rotary: tuple[Tensor, Tensor]
    size: Size


def shift(tokens: int) -> float:
    """FLUX's mu: how much noise levels move up for pictures of that many tokens."""
    s = TOON.scheduler
    span = s["max_image_seq_len"] - s["base_image_seq_len"]
    slope = (s["max_shift"] - s["base_shift"]) / span
    return s["base_shift"] + slope * (tokens - s["base_image_seq_len"])


def num_tokens(size: Size) -> int:
    """Packed tokens of a picture."""
    return (size[0] // PX_PER_TOKEN) * (size[1] // PX_PER_TOKEN)


def batch_size(size: Size) -> int:
    """The number of pictures of a size that take about as much work as a batch at the main size."""
    work = num_tokens(MAIN_SIZE) + MAX_SEQUENCE_LENGTH
    return round(MAIN_BATCH * work / (num_tokens(size) + MAX_SEQUENCE_LENGTH))


def rotary(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The RoPE tables of a grid of packed latents."""
    cos, sin = rotary_tables(
        TOON.transformer["axes_dims_rope"], MAX_SEQUENCE_LENGTH, height, width, TOON.rope_square
    )
    return torch.from_numpy(cos), torch.from_numpy(sin)


class FlowModel(nn.Module):
    """The parts that flow matching trains, and their loss."""

    def __init__(self, network: InstantCharacter) -> None:
        super().__init__()
        self.transformer = network.transformer
        self.subject_attention = network.subject_attention
        self.subject_resampler = network.subject_resampler
        self.text_encoder = network.text_encoder
        self.text_encoder_2 = network.text_encoder_2
        self._network = [network]  # not a submodule: its other parts are not trained here

    def velocity(self, x: Tensor, sigma: Tensor, guidance: Tensor, batch: Batch) -> Tensor:
        """Predicts noise - image at noise level `sigma` `[B]`."""
        network = self._network[0]
        subject = self.subject_resampler(batch.features, sigma * 1000)
        pooled = network.pooled_projections(batch.ids)
        velocity: Tensor = network.denoiser(
            x, network.prompt_embeds(batch.ids), network.modulation(pooled, guidance, sigma * 1000),
            *batch.rotary, subject, batch.subject_scale,
        )  # fmt: skip
        return velocity


class BatchSource:
    """Draws batches from the cache."""

    def __init__(self, folder: Path, device: str) -> None:
        self.store = LatentStore(folder)
        self.features = torch.load(folder / FEATURES, weights_only=True)
        self.numbers = {spec: i for i, spec in enumerate(self.store.characters)}
        self.statistics = LatentStatistics.load(folder)
        self.tokenizer = build_tokenizer()
        self.device = device

    def draw(self, tick: Tick, *, later: bool, scale: float = 1.0) -> Batch:
        """One batch, of a size that all workers share: none waits for another's large pictures."""
        rng, size = tick.rng, self._size(tick.shared, LATER_MAIN_SHARE if later else MAIN_SHARE)
        count = max(1, int(batch_size(size) * scale))
        latents, pictures = self.store.sample(size, count, rng)
        latents = (latents - self.statistics.shift_factor) * self.statistics.scaling_factor
        texts, rows, scales = [], [], []
        for picture in pictures:
            alone = rng.random() < 0.27
            full = rng.random() < (0.92 if alone else 0.2)
            text = (full_caption if full else short_caption)(picture, rng)
            if rng.random() < 0.08:
                text = with_unknown_words(text, rng)
            texts.append("" if rng.random() < 0.1 else text)
            reference = rng.randrange(self.features.shape[1])
            rows.append(self.features[self.numbers[picture.character], reference])
            scales.append(0.0 if alone else SUBJECT_SCALE)
        height, width = latents.shape[2] // 2, latents.shape[3] // 2
        cos, sin = rotary(height, width)
        device = self.device
        return Batch(
            latents=pack_latents(latents).flatten(1, 2).to(device),
            ids=encode(self.tokenizer, texts).to(device),
            features=torch.stack(rows).float().to(device),
            subject_scale=torch.tensor(scales).view(-1, 1, 1).to(device),
            rotary=(cos.to(device), sin.to(device)),
            size=size,
        )

    def _size(self, rng: Random, main_share: float) -> Size:
        """The main size or another, chosen so that all other pictures are seen equally often."""
        others = [size for size in self.store.shards if size != MAIN_SIZE]
        if not others or rng.random() < main_share:
            return MAIN_SIZE
        weights = [self.store.count(size) / batch_size(size) for size in others]
        return rng.choices(others, weights=weights)[0]


def noise_levels(batch: Batch) -> Tensor:
    """Logit-normal noise levels with FLUX's shift."""
    count, tokens, _ = batch.latents.shape
    logits = torch.randn(count, device=batch.latents.device) + shift(tokens)
    return torch.sigmoid(logits)


def _optimizers(model: FlowModel, rate: float) -> list[torch.optim.Optimizer]:
    text = [(n, p) for n, p in model.named_parameters() if n.startswith("text_encoder")]
    rest = [(n, p) for n, p in model.named_parameters() if not n.startswith("text_encoder")]
    matrices, others = split_parameters(rest, _PLAIN)
    text_matrices, text_others = split_parameters(text, _PLAIN)
    muon = Muon(matrices, lr=0.015 * rate)
    muon.add_param_group({"params": text_matrices, "lr": 0.004 * rate})
    adamw = torch.optim.AdamW(others, lr=2e-3 * rate, betas=(0.9, 0.98), weight_decay=0.0)
    adamw.add_param_group({"params": text_others, "lr": 6e-4 * rate})
    return [muon, adamw]


def train_flow(budget: Budget, folder: Path) -> None:
    """Learns the velocity; the guidance input is random and has no meaning yet."""
    network = warm_network()
    load_pretrained(network, folder)
    model = FlowModel(network).eval()  # no dropout
    model.to(budget.device)
    compiled = torch.compile(model.velocity, dynamic=False) if budget.compiled else model.velocity
    source = BatchSource(folder, budget.device)
    loop = Loop(FLOW, model, _optimizers(model, 1.0), budget, folder, ema=0.998, decay_from=0.5)
    for tick in loop:
        if tick.step % 40 == 0:
            source.store.refresh()
        batch = source.draw(tick, later=tick.fraction > LATER)
        sigma = noise_levels(batch)
        noise = torch.randn_like(batch.latents)
        level = sigma.view(-1, 1, 1)
        x = (1 - level) * batch.latents + level * noise
        guidance = 1 + 4 * torch.rand_like(sigma)
        predict = compiled if batch.size in COMPILED else model.velocity
        with mixed_precision(budget.device):
            velocity = predict(x, sigma, guidance, batch).float()
        error = F.mse_loss(velocity, noise - batch.latents)
        loop.update(error)
    if loop.rank == 0:
        _save_averaged(loop, folder / f"{FLOW}.pt")


def _save_averaged(loop: Loop, path: Path) -> None:
    averaged = loop.averaged()
    torch.save(averaged.state_dict(), path)


def load_flow(network: InstantCharacter, path: Path) -> FlowModel:
    """Loads this stage's weights into a network: finished ones, or a checkpoint's average."""
    model = FlowModel(network)
    state = torch.load(path, weights_only=True)
    if "ema" in state:
        model.load_state_dict(state["model"])
        for param, mean in zip(
            (p for p in model.parameters() if p.requires_grad), state["ema"], strict=True
        ):
            param.data.copy_(mean)
    else:
        model.load_state_dict(state)
    return model


def without_conditions(batch: Batch, empty: Tensor) -> Batch:
    """The same pictures with no text and no reference."""
    return Batch(
        latents=batch.latents,
        ids=empty.expand_as(batch.ids),
        features=batch.features,
        subject_scale=torch.zeros_like(batch.subject_scale),
        rotary=batch.rotary,
        size=batch.size,
    )


def train_distilled(budget: Budget, folder: Path) -> None:
    """Distils guidance: one pass with input g learns to give what guidance of scale g would."""
    teacher = load_flow(warm_network().to(budget.device), folder / f"{FLOW}.pt")
    teacher = teacher.eval().requires_grad_(False)
    network = warm_network().to(budget.device)
    model = load_flow(network, folder / f"{FLOW}.pt").eval()
    source = BatchSource(folder, budget.device)
    empty = encode(source.tokenizer, [""]).to(budget.device)
    loop = Loop(
        DISTILLED, model, _optimizers(model, 0.4), budget, folder, ema=0.995, decay_from=0.3
    )
    for tick in loop:
        batch = source.draw(tick, later=True, scale=0.75)
        sigma = noise_levels(batch)
        level = sigma.view(-1, 1, 1)
        x = (1 - level) * batch.latents + level * torch.randn_like(batch.latents)
        guidance = 1 + 4 * torch.rand_like(sigma)
        with torch.no_grad(), mixed_precision(budget.device):
            with_all = teacher.velocity(x, sigma, guidance, batch)
            with_none = teacher.velocity(x, sigma, guidance, without_conditions(batch, empty))
            target = with_all.float() + (guidance.view(-1, 1, 1) - 1) * (with_all - with_none)
        weight = 1 / guidance.view(-1, 1, 1).sqrt()
        with mixed_precision(budget.device):
            velocity = model.velocity(x, sigma, guidance, batch).float()
        error = (weight * (velocity - target).square()).mean()
        loop.update(error)
    if loop.rank == 0:
        _save_averaged(loop, folder / f"{DISTILLED}.pt")

"""Trains the identity graph: which character a picture shows, in any pose and place.

It contrasts two renders of a character, in different poses, scenes and views, with renders of
others, half of which differ from it in one attribute. It sees only renders: a network that had seen
generated pictures would know the model's mistakes and forgive them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file
from torch import Tensor, nn

from castmate.pipeline.identity import view_of
from demo_model.characters import CharacterSpec, random_character
from demo_model.config import TOON
from demo_model.draw import Camera, PictureSpec, Style, draw_picture, draw_reference, random_picture
from demo_model.faces import Emotion
from demo_model.figure import Manner, draw_figure
from demo_model.identity_weights import IDENTITY, IDENTITY_FILE, new_identity
from demo_model.labels import (
    CHARACTER_CLASSES,
    NUM_CLASSES,
    character_labels,
    picture_labels,
    stack_labels,
)
from demo_model.optimizers import Muon, split_parameters
from demo_model.pen import Pen
from demo_model.poses import Pose
from demo_model.pretrain import Heads
from demo_model.props import NOTHING
from demo_model.training import Budget, Loop
from export.families.instantcharacter.identity import IdentityGraph, IdentityNet

PAIRS = 24
"""Characters in a batch; each comes with another that differs from it in one attribute."""
TEMPERATURE = 0.1
_PX, _SUPERSAMPLE = 128, 2
_SIMPLE = 0.55
"""Share of pictures with nothing but a pose and a place, which is what most prompts ask for."""

View = tuple[Image.Image, dict[str, int]]
"""A picture of a character, as the graph sees it, and which of its attributes that shows."""


class Reader(nn.Module):
    """The network with classifiers of attributes, which exist only in training.

    To tell characters apart the network must see their attributes; naming them teaches that sooner.
    """

    def __init__(self, identity: IdentityNet) -> None:
        super().__init__()
        self.graph = IdentityGraph(identity)
        classes = {name: NUM_CLASSES[name] for name in CHARACTER_CLASSES}
        self.read = Heads(identity.last.out_features, classes)


def train_identity(budget: Budget, folder: Path) -> None:
    """Trains on fresh views until the budget is spent."""
    torch.manual_seed(0)
    reader = Reader(new_identity()).train().to(budget.device)
    matrices, others = split_parameters(reader.named_parameters(), ("last", "heads"))
    optimizers = [Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=2e-3, weight_decay=0.01)]
    loop = Loop(IDENTITY, reader, optimizers, budget, folder, ema=0.995)
    for tick in loop:
        views = [
            random_view(spec, tick.rng)
            for spec in random_group(tick.rng, PAIRS, held_out=False)
            for _ in range(2)
        ]
        pixels = pixels_of([image for image, _ in views]).to(budget.device)
        features = reader.graph.identity(reader.graph.pixels(pixels))
        labels = stack_labels([shown for _, shown in views])
        reading, _ = reader.read(features, {k: v.to(budget.device) for k, v in labels.items()})
        embeds = F.normalize(features, dim=-1)
        apart = contrastive_loss(embeds)
        loop.update(
            apart + reading, apart=apart.detach(), reading=reading.detach(), found=found(embeds)
        )
    if loop.rank == 0:
        network = loop.averaged().graph.identity  # type: ignore[union-attr]
        state = {name: weight.half() for name, weight in network.state_dict().items()}  # type: ignore[union-attr]
        save_file(state, folder / IDENTITY_FILE)


def random_group(rng: Random, count: int, *, held_out: bool) -> list[CharacterSpec]:
    """`count` characters, each followed by one that differs from it in one visible attribute."""
    group: list[CharacterSpec] = []
    while len(group) < 2 * count:
        spec = random_character(rng, held_out=held_out)
        group += [spec, twin_of(spec, rng)]
    return group


def twin_of(spec: CharacterSpec, rng: Random) -> CharacterSpec:
    """A character that differs from another one in one attribute."""
    while True:
        name = rng.choice(list(CHARACTER_CLASSES))
        value: Any = rng.choice(list(CHARACTER_CLASSES[name]))
        twin = replace(spec, **{name: value})
        if twin.look != spec.look:
            return twin


def random_view(spec: CharacterSpec, rng: Random) -> View:
    """A character somewhere, doing something, mostly cut out as a matte does it."""
    kind = rng.random()
    if kind < 0.15:
        view, labels = draw_reference(spec, _PX), character_labels(spec)
        view = view.crop(Image.eval(view, lambda value: 255 - value).getbbox())
    else:
        picture = _picture(spec, rng)
        labels = {name: picture_labels(picture)[name] for name in CHARACTER_CLASSES}
        view = draw_picture(picture, _PX, _PX) if kind < 0.3 else cut_out(picture, rng)
    view = view_of(view, TOON.identity["image_size"])
    if rng.random() < 0.35:  # generated pictures are a little softer than renders
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    return view, labels


def cut_out(picture: PictureSpec, rng: Random) -> Image.Image:
    """The figure of a picture on white, with the seams and leftovers of a matte."""
    side = _PX * _SUPERSAMPLE
    unit = side * (1.75 if picture.camera is Camera.CLOSE else rng.uniform(0.9, 0.99))
    left = (side - unit) / 2 + rng.uniform(-0.03, 0.03) * side
    top = -0.135 * unit if picture.camera is Camera.CLOSE else (side - unit) * 0.85
    manner = Manner(picture.emotion, picture.held, picture.camera is Camera.BEHIND)
    mirrored = rng.random() < 0.5
    renders = []
    for color in ("black", "white"):
        image = Image.new("RGB", (side, side), color)
        pen = Pen(ImageDraw.Draw(image), left, top, unit)
        draw_figure(pen, picture.character, picture.pose, mirrored=mirrored, manner=manner)
        renders.append(np.asarray(image.reduce(_SUPERSAMPLE), np.float32))
    on_black, on_white = renders
    alpha = 1 - (on_white - on_black).mean(-1) / 255
    behind = np.array([rng.randrange(256) for _ in range(3)], np.float32)
    pixels = on_black + (1 - alpha[..., None]) * behind
    soft = Image.fromarray((255 * alpha).clip(0, 255).astype(np.uint8))
    soft = soft.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 1.4)))
    if rng.random() < 0.25:
        _spoil(soft, rng)
    mask = np.asarray(soft) >= rng.uniform(80, 175)
    if picture.style is Style.WATERCOLOR:
        pixels = 0.55 * pixels + 0.45 * np.array((255, 246, 230), np.float32)
    shown = np.where(mask[..., None], pixels * rng.uniform(0.94, 1.06), 255).clip(0, 255)
    box = Image.fromarray(mask).getbbox() or (0, 0, _PX, _PX)
    around = [rng.randint(-2, 3) for _ in range(4)]
    box = (box[0] - around[0], box[1] - around[1], box[2] + around[2], box[3] + around[3])
    return (
        Image.fromarray((255 - shown).round().astype(np.uint8))
        .crop(box)
        .point([255 - value for value in range(256)] * 3)
    )  # what is outside of the picture is white


def pixels_of(views: list[Image.Image]) -> Tensor:
    """Views as the graph takes them, uint8 `[B, i, i, 3]`."""
    return torch.from_numpy(np.stack([np.asarray(view) for view in views]))


def contrastive_loss(embeds: Tensor) -> Tensor:
    """The loss of finding each character's other view; the two views are neighbouring rows."""
    logits = embeds @ embeds.T / TEMPERATURE
    logits = logits.masked_fill(torch.eye(len(embeds), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(embeds)) ^ 1)


def found(embeds: Tensor) -> Tensor:
    """Share of views whose nearest other view is of the same character."""
    near = (embeds @ embeds.T - 2 * torch.eye(len(embeds))).argmax(-1)
    return (near == torch.arange(len(embeds)) ^ 1).float().mean()


def _picture(spec: CharacterSpec, rng: Random) -> PictureSpec:
    """Content without anything that hides the character."""
    picture = random_picture(rng, spec)
    if picture.style is Style.SKETCH or picture.camera is Camera.BEHIND:
        picture = replace(picture, style=Style.TOON, camera=Camera.WHOLE)
    if rng.random() < _SIMPLE:
        picture = replace(
            picture,
            pose=rng.choice(list(Pose)),
            held=NOTHING,
            emotion=Emotion.HAPPY,
            camera=Camera.WHOLE,
            style=Style.TOON,
        )
    return picture


def _spoil(alpha: Image.Image, rng: Random) -> None:
    """Takes a part of the figure away, or leaves some of the background."""
    x, y = rng.uniform(0, 0.9) * _PX, rng.uniform(0, 0.9) * _PX
    box = (x, y, x + rng.uniform(0.03, 0.2) * _PX, y + rng.uniform(0.03, 0.2) * _PX)
    ImageDraw.Draw(alpha).ellipse(box, fill=rng.choice((0, 255, 255)))

"""Are several pictures of a character better than one? `python -m benchmarks.references`.

Held-out characters are rendered from views that each lack something: a portrait lacks the lower
clothes, a back the face. Each way to combine views is compared with each view alone on the same
seeds. Scores compare with the front view, which only `front` shows; the judge names attributes and
knows nothing of the score. For ways that the graphs do not support, the resampler runs in torch,
with the same weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from benchmarks.figures import interval
from castmate.defaults import CompleteRequest
from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.constants import Constants
from castmate.families.instantcharacter.schedule import flow_match_sigmas, timesteps_of
from castmate.families.instantcharacter.subject import reference_crops
from castmate.images import Reference, encode
from castmate.pipeline.denoise import denoise
from castmate.pipeline.framing import Framer
from castmate.pipeline.network import open_network
from castmate.pipeline.noise import gaussian_noise
from castmate.pipeline.opening import runtime_of
from castmate.pipeline.stopwatch import Stopwatch
from castmate.schema import GenerateRequest, Matting, OutputFormat
from castmate.settings import Settings
from demo_model.checkpoint import load_shipped
from demo_model.draw import Camera, PictureSpec, draw_picture, draw_reference
from demo_model.evaluate import judged_pictures, predict, short_prompt
from demo_model.judge import load_judge
from demo_model.labels import IGNORED, character_labels
from demo_model.poses import Pose
from demo_model.scenes import Scene
from export.environment import write_result
from export.families.instantcharacter.network import InstantCharacter
from export.identity import uncalibrated

RESULT = Path(__file__).parent / "results/references.json"
ATTRIBUTES = (
    "species", "hair_color", "hair_style", "outfit", "outfit_color", "eye_color", "accessory",
)  # fmt: skip
PX = 512
CACHE_BYTES = 64 * 2**20

Tokens = Callable[[InstantCharacter, torch.Tensor, torch.Tensor], torch.Tensor]
"""A network, features `[R, F, c]` of R views and timesteps `[T]` to subject tokens `[T, Q, V]`."""


def of_joined(network: InstantCharacter, features: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The resampler attends to the features of all views at once."""
    tokens: torch.Tensor = network.subject_resampler(features.flatten(0, 1)[None], at)
    return tokens


def mean_tokens(
    network: InstantCharacter, features: torch.Tensor, at: torch.Tensor
) -> torch.Tensor:
    """The mean of the tokens that the resampler makes of each view."""
    return torch.stack([network.subject_resampler(one[None], at) for one in features]).mean(0)


def of_mean(network: InstantCharacter, features: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The tokens that the resampler makes of the mean of all features."""
    tokens: torch.Tensor = network.subject_resampler(features.mean(0, keepdim=True), at)
    return tokens


WAYS: Mapping[str, Tokens] = {
    "joined features": of_joined,
    "mean of tokens": mean_tokens,
    "mean of features": of_mean,
}


def _camera(camera: Camera) -> Callable[[PictureSpec], Image.Image]:
    def render(of: PictureSpec) -> Image.Image:
        view = PictureSpec(of.character, Pose.STANDING, Scene.PLAIN, seed=of.seed, camera=camera)
        return draw_picture(view, PX, PX)

    return render


def _pose(pose: Pose, scene: Scene) -> Callable[[PictureSpec], Image.Image]:
    def render(of: PictureSpec) -> Image.Image:
        return draw_picture(PictureSpec(of.character, pose, scene, seed=of.seed + 1), PX, PX)

    return render


VIEWS: Mapping[str, Callable[[PictureSpec], Image.Image]] = {
    "front": lambda of: draw_reference(of.character, PX),
    "portrait": _camera(Camera.CLOSE),
    "back": _camera(Camera.BEHIND),
    "waving": _pose(Pose.WAVING, Scene.BEACH),
    "running": _pose(Pose.RUNNING, Scene.CITY),
    "sitting": _pose(Pose.SITTING, Scene.ROOM),
    "jumping": _pose(Pose.JUMPING, Scene.SNOW),
}
SETS: Mapping[str, tuple[str, ...]] = {
    "portrait and back": ("portrait", "back"),
    "back and front": ("back", "front"),
    "four poses": ("waving", "running", "sitting", "jumping"),
    "four views": ("front", "portrait", "back", "running"),
}


@dataclass(frozen=True)
class Seen:
    """What is known of a drawn picture: its score, and which attributes the judge names rightly."""

    identity: float
    hits: Mapping[str, bool]

    @property
    def share(self) -> float:
        """Of the attributes that can be seen at all."""
        return sum(self.hits.values()) / len(self.hits)


class Painter:
    """Draws with the shipped graphs, from subject tokens of any making."""

    def __init__(self, steps: int | None) -> None:
        settings = Settings.load(bundle="toon")
        bundle = Bundle.open("toon")
        self._runtime = runtime_of(bundle, settings)
        self._network = open_network(
            bundle,
            self._runtime,
            prompt_cache_bytes=CACHE_BYTES,
            subject_cache_bytes=CACHE_BYTES,
        )
        self._constants = Constants.of(bundle.manifest)
        self._framer = Framer(self._network.matte, self._constants.reference_margins)
        self._torch = load_shipped(bundle)
        self._defaults = bundle.manifest.defaults
        self.spec = bundle.manifest.identity
        self.identity = uncalibrated(bundle, settings)
        self.judge = load_judge()
        self.steps = steps or self._defaults.num_inference_steps

    @torch.inference_mode()
    def features(self, view: Image.Image) -> torch.Tensor:
        """What the encoders and the projector make of a view, `[F, c]`."""
        framed, _ = self._framer.frame(reference_to(view), Matting.AUTO)
        crops = reference_crops(framed, self._constants.crop_px)
        return self._torch.subject_features(torch.from_numpy(crops))[0]

    @torch.inference_mode()
    def draw(self, of: PictureSpec, way: Tokens, features: Sequence[torch.Tensor]) -> Image.Image:
        """The picture of a request whose subject tokens are those of some views."""
        request = GenerateRequest(
            prompt=short_prompt(of), image="-", size=f"{PX}*{PX}", num_inference_steps=self.steps
        )
        complete = CompleteRequest.of(request, self._defaults)
        front = reference_to(VIEWS["front"](of))
        encoded = self._network.encode(complete, front, Stopwatch())
        _, rows, columns, _ = encoded.noise_shape
        sigmas = flow_match_sigmas(self.steps, rows * columns, self._constants.scheduler)
        tokens = way(
            self._torch, torch.stack(list(features)), torch.from_numpy(timesteps_of(sigmas))
        )
        subject = {"subject_embeds": self._runtime.upload(tokens.numpy())}
        latents, _ = denoise(
            self._network.transformer,
            self._runtime.upload(gaussian_noise(10 * of.seed, encoded.noise_shape)),
            [self._runtime.upload(np.array([step], np.int64)) for step in range(self.steps)],
            {**encoded.conditions, **subject},
            lambda step: None,
        )
        return Image.fromarray(self._network.decode(latents)[0])

    def see(self, of: PictureSpec, drawn: Image.Image, front: NDArray[np.float32]) -> Seen:
        """Judge a picture.

        Args:
            of: Whom it should show.
            drawn: The picture.
            front: What the identity graph makes of its front view.
        """
        assert self.spec is not None
        seen = predict(self.judge, [drawn])
        labels = character_labels(of.character)
        hits = {
            name: int(seen[name][0]) == labels[name]
            for name in ATTRIBUTES
            if labels[name] != IGNORED
        }
        return Seen(self.spec.score(float(self.identity.features(drawn) @ front)), hits)


def contenders() -> Iterator[tuple[str, tuple[str, ...], Tokens]]:
    """Every view alone, and every way to combine every set: name, views, way."""
    for view in VIEWS:
        yield view, (view,), of_mean
    for name, views in SETS.items():
        for way, tokens in WAYS.items():
            yield f"{name}: {way}", views, tokens


def measure(count: int, steps: int | None) -> dict[str, Any]:
    """All figures, by name.

    Args:
        count: Characters.
        steps: Denoise steps; the model's where it is None.
    """
    painter = Painter(steps)
    found: dict[str, list[Seen]] = {name: [] for name, _, _ in contenders()}
    for of in track(judged_pictures(count), "characters", transient=True):
        views = {name: render(of) for name, render in VIEWS.items()}
        features = {name: painter.features(view) for name, view in views.items()}
        front = painter.identity.features_of(reference_to(views["front"]))
        for name, used, way in contenders():
            drawn = painter.draw(of, way, [features[view] for view in used])
            found[name].append(painter.see(of, drawn, front))
    return {
        "characters": count,
        "size": f"{PX}*{PX}",
        "steps": painter.steps,
        "views": {name: summary(found[name]) for name in VIEWS},
        "sets": {
            name: {
                "views": list(views),
                "ways": {
                    way: summary(found[f"{name}: {way}"])
                    | {"less": {view: less(found[f"{name}: {way}"], found[view]) for view in views}}
                    for way in WAYS
                },
            }
            for name, views in SETS.items()
        },
    }


def summary(seen: Sequence[Seen]) -> dict[str, Any]:
    """Means over characters, with their intervals."""
    return {
        "identity": interval([one.identity for one in seen]),
        "attributes": interval([one.share for one in seen]),
        "by_attribute": {
            name: round(float(np.mean([one.hits[name] for one in seen if name in one.hits])), 3)
            for name in ATTRIBUTES
        },
    }


def less(some: Sequence[Seen], others: Sequence[Seen]) -> dict[str, Any]:
    """Paired differences."""
    pairs = list(zip(some, others, strict=True))
    return {
        "identity": interval([one.identity - other.identity for one, other in pairs]),
        "attributes": interval([one.share - other.share for one, other in pairs]),
    }


def reference_to(image: Image.Image) -> Reference:
    """A picture as a reference."""
    return Reference.from_bytes(encode(np.asarray(image), OutputFormat.PNG), "a view")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.references", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="held-out characters (default 100)")
    parser.add_argument("--steps", type=int, help="denoise steps; by default the model's")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON")
    given = parser.parse_args()
    figures = measure(given.count, given.steps)
    write_result(given.out, "references", figures)
    for name, of_set in figures["sets"].items():
        for way, one in of_set["ways"].items():
            print(name, way, one["identity"], one["less"])


if __name__ == "__main__":
    main()

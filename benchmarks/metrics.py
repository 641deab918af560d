"""Picture similarity, character identity, and what the judge recognises."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import metrics

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.constants import Constants
from castmate.families.instantcharacter.subject import reference_crops
from demo_model.draw import PictureSpec
from demo_model.evaluate import predict
from demo_model.judge import load_judge
from demo_model.labels import IGNORED, picture_labels
from export.verify import psnr_db

Picture = NDArray[np.uint8]
Features = Mapping[str, NDArray[np.float64]]

LOOK = ("hair_color", "outfit_color", "species", "outfit", "eye_color")
ASKED = ("pose", "scene")
ENCODERS = {
    "siglip": ("image_encoder", "low_res_deep"),
    "dino": ("image_encoder_2", "low_res_deep_2"),
}
NO_LPIPS = (
    "not measured: its package carries the last layer only; the weights of the network below it "
    "are a download, and torchvision's"
)


def likeness(found: Picture, expected: Picture) -> dict[str, float]:
    """PSNR in dB, at most 100, and SSIM of the luminance of two pictures `[H, W, 3]`."""
    grey = [np.asarray(Image.fromarray(picture).convert("L")) for picture in (found, expected)]
    return {
        "psnr_db": psnr_db(found, expected),
        "ssim": float(metrics.structural_similarity(*grey)),
    }


class Identity:
    """Cosines between a picture and a reference, by the bundle's own image encoders."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self._runtime, self._crop_px = runtime, Constants.of(bundle.manifest).crop_px
        self._encoders = {
            name: (runtime.load(graph), output) for name, (graph, output) in ENCODERS.items()
        }

    def features(self, picture: Picture) -> Features:
        """The mean features of a picture, normalised to length 1, from each encoder."""
        crops = reference_crops(Image.fromarray(picture), self._crop_px)
        uploaded, found = self._runtime.upload(crops), {}
        for name, (encoder, output) in self._encoders.items():
            every = self._runtime.download(encoder(crops=uploaded)[output])
            mean = every.reshape(-1, every.shape[-1]).mean(0, np.float64)
            found[name] = mean / np.linalg.norm(mean)
        return found


def cosines(features: Features, others: Features) -> dict[str, float]:
    """The similarity of two pictures to each encoder."""
    return {name: float(features[name] @ others[name]) for name in features}


class Judge:
    """The demo model's judge, trained on renders only."""

    def __init__(self) -> None:
        self._judge = load_judge()

    def __call__(self, picture: Picture, asked: PictureSpec) -> dict[str, float]:
        """The shares of the character's attributes, and of pose and scene, that it recognises."""
        labels = picture_labels(asked)
        seen = predict(self._judge, [Image.fromarray(picture)])

        def share(names: tuple[str, ...]) -> float:
            known = [name for name in names if labels[name] != IGNORED]
            return float(np.mean([int(seen[name][0]) == labels[name] for name in known]))

        return {"judge_look": share(LOOK), "judge_prompt": share(ASKED)}

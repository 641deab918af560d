"""How alike two pictures are, whether the character is the same, and what a judge recognises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import metrics

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.pipeline.subject import reference_crops
from demo_model.draw import PictureSpec
from demo_model.evaluate import predict
from demo_model.judge import JUDGE, load_judge
from demo_model.labels import IGNORED, picture_labels
from export.verify import psnr_db

Picture = NDArray[np.uint8]

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
    """PSNR in dB, at most 100, and SSIM of two pictures `[H, W, 3]`."""
    return {
        "psnr_db": psnr_db(found, expected),
        "ssim": float(metrics.structural_similarity(found, expected, channel_axis=2)),
    }


class Identity:
    """Cosines between a picture and a reference, by the bundle's own image encoders."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self._runtime, self._crop_px = runtime, bundle.manifest.crop_px
        self._encoders = {
            name: (runtime.load(graph), output) for name, (graph, output) in ENCODERS.items()
        }

    def __call__(self, picture: Picture, reference: Picture) -> dict[str, float]:
        """The cosine of the mean features, an encoder each."""
        found = {}
        for name in self._encoders:
            a, b = (self._features(name, some) for some in (picture, reference))
            found[name] = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        return found

    def _features(self, name: str, picture: Picture) -> NDArray[np.float64]:
        encoder, output = self._encoders[name]
        crops = reference_crops(Image.fromarray(picture), self._crop_px)
        features = self._runtime.download(encoder(crops=self._runtime.upload(crops))[output])
        mean: NDArray[np.float64] = features.reshape(-1, features.shape[-1]).mean(0, np.float64)
        return mean


class Judge:
    """The demo model's judge, which has seen renders only."""

    def __init__(self, folder: Path) -> None:
        self._judge = load_judge(folder)

    @staticmethod
    def reason(folder: Path) -> str | None:
        """Why there is no judge; None where there is one."""
        path = folder / f"{JUDGE}.pt"
        return None if path.exists() else f"not measured: there is no trained judge ({path.name})"

    def __call__(self, picture: Picture, asked: PictureSpec) -> dict[str, float]:
        """The shares of the character's looks, and of pose and scene, that it recognises."""
        labels = picture_labels(asked)
        seen = predict(self._judge, [Image.fromarray(picture)])

        def share(names: tuple[str, ...]) -> float:
            known = [name for name in names if labels[name] != IGNORED]
            return float(np.mean([int(seen[name][0]) == labels[name] for name in known]))

        return {"judge_look": share(LOOK), "judge_prompt": share(ASKED)}

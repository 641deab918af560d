"""Under which terms the published weights may be used, by part."""

from __future__ import annotations

from typing import Any, Final

from castmate.engines.licences import Licence

_HUB: Final = "https://huggingface.co"
_APACHE: Final = "Any use, with the licence's text and notices kept."

_PARTS: Final = {
    "InstantCharacter": Licence(
        name="Tencent's InstantCharacter licence",
        url=f"{_HUB}/tencent/InstantCharacter",
        allows="Academic, research and education use only; nothing commercial or in production.",
    ),
    "FLUX.1-dev": Licence(
        name="FLUX.1 [dev] Non-Commercial License",
        url=f"{_HUB}/black-forest-labs/FLUX.1-dev",
        allows="Non-commercial use only.",
    ),
    "SigLIP": Licence(
        name="Apache-2.0",
        url=f"{_HUB}/google/siglip-so400m-patch14-384",
        allows=_APACHE,
    ),
    "DINOv2": Licence(name="Apache-2.0", url=f"{_HUB}/facebook/dinov2-giant", allows=_APACHE),
    "safety checker": Licence(
        name="the safety checker's own",
        url=f"{_HUB}/CompVis/stable-diffusion-safety-checker",
        allows="What its model card says.",
    ),
}
_MATTE: Final = Licence(
    name="IS-Net: Apache-2.0 for its code",
    url="https://github.com/xuebinqin/DIS",
    allows="What its page says; the data that it was trained on has terms of its own.",
)

_OPTIONAL: Final = {
    "matte": _MATTE,
    "identity": Licence(name="Apache-2.0", url=f"{_HUB}/facebook/dino-vits16", allows=_APACHE),
}


def licences(sources: Any) -> dict[str, Licence]:
    """Of each part that a bundle from these sources holds."""
    asked = {name: one for name, one in _OPTIONAL.items() if getattr(sources, name)}
    return {**_PARTS, **asked}

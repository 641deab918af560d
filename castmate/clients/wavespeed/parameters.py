"""Translates a request to the hosted model's inputs, and lists what that model ignores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from castmate.defaults import CompleteRequest, Defaults
from castmate.errors import Unavailable
from castmate.schema import Cache, GenerateRequest

# The hosted model has had nine parameters and, on newer pages, four; it rejects unknown ones.
NEWEST: Final = ("prompt", "image", "size", "seed")
OLDER: Final = (
    "negative_prompt",
    "guidance_scale",
    "num_inference_steps",
    "enable_safety_checker",
)
DEFAULTS: Final = Defaults(
    num_inference_steps=28, guidance_scale=3.5, subject_scale=0.8, true_cfg_scale=4.0
)
"""As documented; the model does not take the last two."""
DOCUMENTED_PRICE_USD: Final = 0.10  # of a picture, if WaveSpeed gives none
MAX_SEED: Final = 2_147_483_647  # the narrower of the two ranges on its pages

# Never sent: several pictures are several submissions, and formats are converted here.
_DONE_HERE: Final = frozenset({"num_images", "output_format"})


@dataclass(frozen=True)
class HostedModel:
    """The parameters that the hosted model takes.

    Attributes:
        names: Their names, or None if the model could not be asked.
        max_seed: The largest seed.
    """

    names: frozenset[str] | None = None
    max_seed: int = MAX_SEED

    @classmethod
    def from_schema(cls, schema: Mapping[str, Any]) -> Self:
        """Read the JSON schema of its inputs.

        Raises:
            Unavailable: It requires an unknown input, or takes no prompt or image.
        """
        properties = schema["properties"]
        known = {*NEWEST, *OLDER, "num_images"}
        required = schema.get("required")
        strange = set(required if isinstance(required, list) else ()) - known
        if strange or not {"prompt", "image"} <= properties.keys():
            change = f"needs {', '.join(sorted(map(str, strange)))}" if strange else "has no image"
            raise Unavailable(
                f"WaveSpeed's hosted model has changed: it {change}. Nothing was charged. Upgrade "
                "Castmate, or name another model in CASTMATE_WAVESPEED_MODEL."
            )
        seed = properties.get("seed")
        maximum = seed.get("maximum") if isinstance(seed, dict) else None
        usable = isinstance(maximum, int) and maximum > 0
        return cls(frozenset(properties), int(maximum) if usable and maximum else MAX_SEED)

    def inputs(self, request: GenerateRequest, image_url: str) -> dict[str, Any]:
        """The inputs for each picture, except its seed."""
        values = CompleteRequest.of(request, DEFAULTS).model_dump(mode="json")
        sent = {"prompt": request.prompt, "image": image_url}
        if self._takes("size", True):
            sent["size"] = request.size
        for name in OLDER:
            if self._takes(name, _is_changed(request, name)) and values[name] != "":
                sent[name] = values[name]
        return sent

    def seed(self, seed: int) -> dict[str, int]:
        """A picture's seed, always folded in the same way into the model's range."""
        return {"seed": seed % (self.max_seed + 1)} if self._takes("seed", True) else {}

    def drawn_with(self, request: GenerateRequest) -> dict[str, Any]:
        """The parameters that a model may decide, as far as they are sent to it."""
        sent = self.inputs(request, "")
        return {name: sent[name] for name in Defaults.model_fields if name in sent}

    def warnings(self, request: GenerateRequest) -> Iterator[str]:
        """Warnings about parameters that the caller set but the hosted model ignores."""
        values = request.model_dump(mode="json")
        sent = {*self.inputs(request, ""), *self.seed(0), *_DONE_HERE}
        if request.cache is Cache.OFF:
            sent.add("cache")  # the hosted model never skips steps anyway
        for name in GenerateRequest.model_fields:
            if name in sent or not _is_changed(request, name):
                continue
            if name == "seed":
                yield "WaveSpeed's hosted model takes no seed: the picture cannot be made again."
            elif name != "size":  # done here on the returned picture, and reported there
                yield f"WaveSpeed's hosted model has no {name}: {values[name]!r} was ignored."

    def _takes(self, name: str, otherwise: bool) -> bool:
        return otherwise if self.names is None else name in self.names


def _is_changed(request: GenerateRequest, name: str) -> bool:
    """Whether the caller wants anything but the hosted model's own behaviour."""
    usual = GenerateRequest.model_fields[name].default
    return getattr(request, name) not in (usual, getattr(DEFAULTS, name, usual))

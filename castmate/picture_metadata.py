"""A picture's metadata: the request that draws it again, and what drew it.

It contains no key, path, machine or date, so the same request gives the same bytes; the reference
appears only as its hash. Metadata that is read comes from a stranger, and is validated like a
request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from castmate import __version__, file_metadata
from castmate.errors import ImageRejected
from castmate.schema import GeneratedImage, GenerateRequest, GenerateResult

_CHOSEN: Final = ("num_candidates", "min_identity")  # one picture is drawn again, not chosen again
_HASH: Final = r"sha256:[0-9a-f]{64}"
_Word = Annotated[str, Field(max_length=200)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class PictureMetadata(BaseModel):
    """What is known about a picture.

    Attributes:
        request: Draws it again; its `image` is the SHA-256 of the reference.
        drawn_with: The model's values for parameters that the request omits.
        client: The client that made it.
        model: The bundle's or hosted model's name.
        model_hash: Hash of the bundle's manifest, which names every file; empty if unknown.
        castmate: The version that wrote it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    request: GenerateRequest
    drawn_with: Annotated[dict[_Word, int | _Number], Field(max_length=32)] = {}
    client: _Word = ""
    model: _Word = ""
    model_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{0,64}$")] = ""
    castmate: _Word = ""

    @classmethod
    def of(cls, request: GenerateRequest, result: GenerateResult, image: GeneratedImage) -> Self:
        """The metadata of a picture that was just drawn."""
        alone = {"seed": image.seed, "num_images": 1} | dict.fromkeys(_CHOSEN)
        return cls(
            request=request.model_copy(update=alone),
            drawn_with=dict(result.drawn_with),
            client=result.client,
            model=result.model,
            model_hash=result.model_hash,
            castmate=__version__,
        )

    @classmethod
    def read(cls, data: bytes, label: str) -> Self:
        """Read the metadata of a file.

        Args:
            data: A PNG, JPEG or WebP file.
            label: How an error names it.

        Raises:
            ImageRejected: It has none, or none that Castmate wrote.
        """
        if (text := file_metadata.find(data)) is None:
            raise ImageRejected(
                f"{label} does not say how it was drawn",
                allowed="a PNG, JPEG or WebP file as Castmate has written it",
                hint="Many programs drop such metadata when they save, send or show a picture.",
            )
        try:
            values = json.loads(text)
            found = cls.model_validate(values | {"request": _known(values["request"])})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _odd(label, error) from None
        return found

    def as_dict(self) -> dict[str, Any]:
        """The metadata as JSON, without parameters left to the model."""
        return self.model_dump(mode="json", exclude_none=True)

    def as_text(self) -> str:
        """The Stable Diffusion web UI's form: prompt, negative prompt, one line for the rest."""
        request, drawn = self.request, self.drawn_with
        steps = request.num_inference_steps or drawn.get("num_inference_steps")
        guidance = request.guidance_scale
        if guidance is None:
            guidance = drawn.get("guidance_scale")
        rest: Mapping[str, Any] = {
            "Steps": steps,
            "Sampler": "Euler" if self.model_hash else None,  # unknown for a hosted model
            "CFG scale": guidance,
            "Seed": request.seed,
            "Size": f"{request.width}x{request.height}",
            "Model hash": self.model_hash[:10] or None,
            "Model": self.model or None,
            "Version": f"castmate {self.castmate}",
        }
        lines = [request.prompt]
        if request.negative_prompt:
            lines.append(f"Negative prompt: {request.negative_prompt}")
        lines.append(
            ", ".join(f"{name}: {value}" for name, value in rest.items() if value is not None)
        )
        return "\n".join(lines)


def described(request: GenerateRequest, result: GenerateResult) -> GenerateResult:
    """A result whose pictures say how they were drawn.

    Args:
        request: The request; its `image` is the reference's hash.
        result: Its result.
    """
    return replace(result, images=tuple(_described(request, result, one) for one in result.images))


def _described(
    request: GenerateRequest, result: GenerateResult, image: GeneratedImage
) -> GeneratedImage:
    metadata = PictureMetadata.of(request, result, image)
    ours = json.dumps(metadata.as_dict(), ensure_ascii=False, sort_keys=True)
    return replace(image, data=file_metadata.put_in(image.data, ours, metadata.as_text()))


def _known(values: Any) -> dict[str, Any]:
    """A request without parameters that only later releases know; its reference must be a hash.

    Raises:
        ValueError: The reference is something else: no picture may lead to an address.
    """
    found = {name: values[name] for name in GenerateRequest.model_fields if name in values}
    if not re.fullmatch(_HASH, str(found.get("image"))):
        raise ValueError("`request.image` is no hash")
    return found


def _odd(label: str, error: Exception) -> ImageRejected:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        why = f"`{'.'.join(map(str, first['loc']))}` is not allowed"
    else:
        why = str(error) if type(error) is ValueError else "it cannot be read"
    return ImageRejected(
        f"{label} has metadata that no Castmate has written: {why}",
        hint="It was changed, or a later release wrote it.",
    )

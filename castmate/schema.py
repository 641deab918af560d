"""The one schema of generations and their results; every edge translates to and from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from castmate.errors import InvalidRequest
from castmate.identity import MAX_CANDIDATES, Selection, judged, most_drawn
from castmate.sizes import SIZE_RULE, parse_size
from castmate.validation import OPAQUE_FORMAT, problems_of

MAX_SEED = 9_999_999_999
MAX_PROMPT_CHARACTERS = 4096
MAX_STYLE_CHARACTERS = 64


class OutputFormat(StrEnum):
    """How a picture is encoded; png is lossless."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def mime_type(self) -> str:
        """The format's media type."""
        return f"image/{self.value}"


class Cache(StrEnum):
    """How many denoise steps may reuse what an earlier one computed."""

    AUTO = "auto"
    OFF = "off"
    BALANCED = "balanced"
    FAST = "fast"


class Matting(StrEnum):
    """Whether the reference is cut down to its character before anything looks at it."""

    AUTO = "auto"
    TRUE = "true"
    FALSE = "false"


class Background(StrEnum):
    """What is around the character of a finished picture."""

    SCENE = "scene"
    TRANSPARENT = "transparent"


class Framing(StrEnum):
    """How the character of a reference was found."""

    ALPHA = "alpha"
    BACKGROUND = "background"
    MATTE = "matte"
    NONE = "none"


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a number")
    return value


def _bool_as_word(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("NUL is no text")
    return value


Text = Annotated[str, AfterValidator(_without_nul)]  # as PostgreSQL, JSON readers and C need it
Size = Annotated[
    str,
    BeforeValidator(parse_size),
    Field(json_schema_extra={"pattern": "^\\d{3,4}[*xX\u00d7]\\d{3,4}$"}),
]
Int = Annotated[int, BeforeValidator(_not_bool)]
# The range comes first: after a validator it would be missing from the JSON schema.
_NotBool = BeforeValidator(_not_bool)
StepCount = Annotated[int, Field(ge=1, le=50), _NotBool]
GuidanceScale = Annotated[float, Field(ge=0, le=20, allow_inf_nan=False), _NotBool]
SubjectScale = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False), _NotBool]
CandidateCount = Annotated[int, Field(ge=1, le=MAX_CANDIDATES), _NotBool]
IdentityScore = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), _NotBool]
TrueCfgScale = Annotated[float, Field(ge=1, le=20, allow_inf_nan=False), _NotBool]


class GenerateRequest(BaseModel):
    """One generation: the hosted API's nine parameters and our own.

    What may be None is left to the model; see `castmate.defaults`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    prompt: Annotated[Text, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)] = Field(
        description="What the character does and where. The look of the character comes from the "
        "image: do not describe it, unless it should change."
    )
    image: Annotated[str, Field(min_length=1)] = Field(
        description="The reference picture of the character: an https URL, a data URI, a path or a "
        "saved id, as the door allows. One character, whole, on a plain background works best."
    )
    size: Size = Field(
        default="1024*1024", description=f"Width*height of the pictures: {SIZE_RULE}."
    )
    negative_prompt: Annotated[Text, Field(max_length=MAX_PROMPT_CHARACTERS)] = Field(
        default="",
        description="What must not be in the picture. Doubles the time of every step, unless "
        "true_cfg_scale is 1.",
    )
    seed: Int = Field(
        default=-1,
        ge=-1,
        le=MAX_SEED,
        description="Same seed and request, same picture. -1 draws one, which the result returns. "
        "Picture i of a request has seed + i.",
    )
    guidance_scale: GuidanceScale | None = Field(
        default=None, description="How closely to follow the prompt (distilled guidance)."
    )
    num_inference_steps: StepCount | None = Field(
        default=None, description="Denoise steps: more is slower and finer."
    )
    num_images: Int = Field(default=1, ge=1, le=4, description="How many pictures.")
    enable_safety_checker: bool = Field(
        default=True, description="Flag unsafe pictures and replace them by black ones."
    )
    subject_scale: SubjectScale | None = Field(
        default=None,
        description="How strongly the picture follows the reference; 0 is the prompt alone.",
    )
    true_cfg_scale: TrueCfgScale | None = Field(
        default=None,
        description="Strength of the negative prompt; has no effect without one. At 1 the negative "
        "prompt has no effect either, and costs nothing.",
    )
    output_format: OutputFormat = Field(default=OutputFormat.PNG, description="png, jpeg or webp.")
    cache: Cache = Field(
        default=Cache.AUTO,
        description="Skip steps that change little: balanced is nearly the same picture, fast "
        "another one of the same scene; off skips none, auto is as the server is set.",
    )
    enable_matting: Annotated[Matting, BeforeValidator(_bool_as_word)] = Field(
        default=Matting.AUTO,
        description="Cut the character out of the reference, so that a small one in a large "
        "picture counts as much as one that fills it. auto goes by transparency, else by a plain "
        "background, else by the model's matte graph, if it has one; true by that graph whatever "
        "the background; false takes the whole picture.",
    )

    background: Background = Field(
        default=Background.SCENE,
        description="scene, or transparent: the character alone, cut out of the finished picture "
        "by the model's matte graph, as png or webp. A plain background in the prompt helps.",
    )
    style: Annotated[Text, Field(max_length=MAX_STYLE_CHARACTERS)] = Field(
        default="",
        description="A style of the model by its name, such as night-ink; the model says which it "
        "has. Empty for none.",
    )
    num_candidates: CandidateCount | None = Field(
        default=None,
        description="Draw so many (never fewer than num_images) and return those whose character "
        "is closest to the reference, the best first. Each is drawn and paid for.",
    )
    min_identity: IdentityScore | None = Field(
        default=None,
        description="Draw one candidate after another until num_images of them have this identity "
        f"or num_candidates ({MAX_CANDIDATES} where that is left out) are drawn. 1 is the same "
        "character, 0 another one.",
    )

    @model_validator(mode="after")
    def _transparency_can_be_kept(self) -> Self:
        check_transparency(self.background, self.output_format)
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Validate what a caller sent.

        Raises:
            InvalidRequest: With one `Problem` for each bad parameter.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InvalidRequest(problems_of(cls, error)) from None

    @property
    def chooses(self) -> bool:
        """Whether its result holds only some of the pictures that are drawn for it."""
        return self.num_candidates is not None or self.min_identity is not None

    @property
    def most_drawn(self) -> int:
        """The most pictures that may be drawn for it, which bounds its cost."""
        return most_drawn(self.num_images, self.num_candidates, self.min_identity)

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.size.split("*")[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.size.split("*")[1])


def check_transparency(background: Background, output_format: OutputFormat) -> None:
    """Check that a format can hold the requested background.

    Raises:
        PydanticCustomError: It cannot; `problems_of` makes the sentence.
    """
    if background is Background.TRANSPARENT and output_format is OutputFormat.JPEG:
        raise PydanticCustomError(OPAQUE_FORMAT, "jpeg has no transparency")


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """What is known about a finished picture, wherever its bytes are.

    A field added here is stored and read back with the others; only the code that sets or shows it
    needs to know about it.

    Attributes:
        output_format: How it is encoded.
        width: Pixels, exactly as requested.
        height: Pixels.
        seed: The seed that makes this picture again with `num_images` 1.
        has_nsfw: Whether the safety checker flagged it, so that the picture is black; False if the
            checker was off.
        identity: How close its character is to the reference's, 0 to 1, see `castmate.identity`;
            None if that was not judged, for the reason in the result's `no_identity`, or if the
            picture was flagged.
    """

    output_format: OutputFormat
    width: int
    height: int
    seed: int
    has_nsfw: bool = False
    identity: float | None = None

    def record(self) -> dict[str, Any]:
        """The fields of the record, without those of a subclass."""
        return {one.name: getattr(self, one.name) for one in fields(ImageRecord)}


@dataclass(frozen=True, kw_only=True)
class GeneratedImage(ImageRecord):
    """A finished picture with its encoded bytes."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class FramedReference:
    """The part of the reference that the model saw.

    Attributes:
        framing: How its character was found; with `NONE` the whole picture was taken.
        box: Left, top, right and bottom of the part that was taken, as shares of the picture's
            width and height.
        others: The same for the character's further pictures that were used with it, in order.
    """

    framing: Framing
    box: tuple[float, float, float, float]
    others: tuple[Self, ...] = ()

    @classmethod
    def parse(cls, values: Mapping[str, Any] | None) -> Self | None:
        """What `asdict` made of one, or of none."""
        if values is None:
            return None
        left, top, right, bottom = values["box"]
        others = tuple(filter(None, map(cls.parse, values.get("others", ()))))
        return cls(
            framing=Framing(values["framing"]), box=(left, top, right, bottom), others=others
        )


@dataclass(frozen=True)
class GenerateResult:
    """The result of a generation.

    Attributes:
        images: `num_images` of them, in the order of their seeds.
        client: The client that made them: `local`, `triton` or `wavespeed`.
        model: Name of the bundle or hosted model.
        timings_ms: Milliseconds a stage, in the order they ran; `total` last.
        warnings: Sentences for the caller: what was ignored, cut or replaced.
        cost_usd: What was charged; 0 for one's own GPU or CPU.
        computed_steps: Denoise steps computed in full, over all pictures; with step caching, fewer
            than the total. None if the client does not say.
        drawn_with: The values used for the parameters that the model may decide; empty if the
            client does not say.
        reference: How the reference was framed. None if the client does not say.
        no_identity: Why the pictures have no `identity`; empty if they have one.
        selection: What was drawn and what was chosen, if the request chooses.
        model_hash: Hash of the bundle's manifest, which names all its files; empty if the client
            does not say.
    """

    images: tuple[GeneratedImage, ...]
    client: str
    model: str
    timings_ms: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    cost_usd: float = 0.0
    computed_steps: int | None = None
    drawn_with: Mapping[str, Any] = field(default_factory=dict)
    reference: FramedReference | None = None
    no_identity: str = ""
    selection: Selection | None = None
    model_hash: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON, without the pictures' bytes."""
        values = asdict(self)
        for image in values["images"]:
            image["num_bytes"] = len(image.pop("data"))
            image["identity"] = judged(image["identity"])
        return values

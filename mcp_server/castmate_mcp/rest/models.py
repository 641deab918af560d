"""What goes over the wire, as pydantic models: checked here, and published as OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from castmate.defaults import Defaults
from castmate.engines.licences import Licence
from castmate.identity import Stopped, Verdict
from castmate.jobs.characters import MAX_NAME, MAX_PICTURES
from castmate.schema import Framing, GenerateRequest
from castmate.several import MAX_TOGETHER

Status = Literal["created", "processing", "completed", "failed", "cancelled", "timeout"]


# A small black square, so that the document's own example can be sent.
EXAMPLE_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAAA1BMVEUAAA"
    "Cnej3aAAAAD0lEQVR42mNgGAWjgHwAAAJAAAHgTR1EAAAAAElFTkSuQmCC"
)


class Submission(GenerateRequest):
    """A generation: the model's parameters and how the answer comes."""

    image: Annotated[str, Field(min_length=1)] = Field(
        description="The reference picture of the character: an https URL, the download_url of an "
        "upload, an output of an earlier prediction, a data URI, or the id of a saved character "
        "or picture. One character, whole, on a plain background works best.",
        examples=[EXAMPLE_PICTURE],
    )
    enable_sync_mode: bool = Field(
        False,
        description="Answer when the prediction is finished, within 90 s; otherwise poll its id.",
    )
    enable_base64_output: bool = Field(
        False, description="Give the pictures as base64 in `outputs` instead of addresses."
    )


def with_defaults(schema: dict[str, Any], defaults: Defaults | None) -> dict[str, Any]:
    """The JSON schema of a submission with what the model gives for what is left out."""
    properties = dict(schema["properties"])
    known = defaults.model_dump() if defaults else {}
    for name in Defaults.model_fields:
        spec = {key: value for key, value in properties[name].items() if key != "default"}
        properties[name] = spec | ({"default": known[name]} if known else {})
    return schema | {"properties": properties}


class Urls(BaseModel):
    """Addresses that belong to a prediction."""

    get: str = Field(description="Where its result is.")


class Timings(BaseModel):
    """Milliseconds."""

    inference: int


class ReferenceOut(BaseModel):
    """What of a picture of the character the model saw."""

    framing: Framing = Field(
        description="How its character was found; with `none` the whole picture was taken."
    )
    box: list[float] = Field(
        description="Left, top, right and bottom, as shares of its width and height."
    )
    others: list[ReferenceOut] = Field(
        [], description="The same of the character's further pictures that were used with it."
    )


class IdentityOut(BaseModel):
    """How close the character of a picture is to the reference's."""

    score: float = Field(description="1 is another picture of the same character, 0 another one.")
    verdict: Verdict


class CandidateOut(BaseModel):
    """One picture that was drawn."""

    seed: int = Field(description="Makes it again with num_images 1.")
    identity: float | None = Field(description="Its score; null where it was flagged.")
    has_nsfw: bool
    chosen: bool = Field(description="It is among the outputs.")


class SelectionOut(BaseModel):
    """What was drawn and what was chosen."""

    candidates: list[CandidateOut]
    stopped: Stopped = Field(description="Why there are no more.")


class PredictionOut(BaseModel):
    """One submitted generation."""

    id: str
    model: str
    outputs: list[str] = Field(
        description="An address for each picture, good for 7 days without a key, or base64; empty "
        "until it is completed."
    )
    urls: Urls
    has_nsfw_contents: list[bool] = Field(description="For each output.")
    identity: list[IdentityOut | None] = Field(
        description="For each output, how close its character is to the reference's; null where "
        "that was not judged."
    )
    status: Status = Field(
        description="`cancelled` is reported as `failed` to clients that would wait on for ever."
    )
    created_at: str = Field(description="RFC 3339, UTC.")
    error: str = Field(description="Why it failed, or empty.")
    executionTime: int = Field(description="Milliseconds.")
    timings: Timings
    seeds: list[int] = Field(description="For each output: makes it again with num_images 1.")
    cost_usd: float = Field(description="What was charged; 0 on one's own machine.")
    warnings: list[str] = Field(description="What was ignored, cut or replaced.")
    drawn_with: dict[str, int | float] = Field(
        description="What the model decides where a request does not, as it was; empty until it is "
        "completed."
    )
    code: int | None = Field(None, description="WaveSpeed's business code, where it failed.")
    reference: ReferenceOut | None = Field(
        None, description="How the reference was framed, if the client reports it."
    )
    no_identity: str | None = Field(None, description="Why the outputs were not judged.")
    selection: SelectionOut | None = Field(
        None, description="Where num_candidates or min_identity was given."
    )
    waiting_for: str | None = Field(
        None, description="Why nobody can draw it now; it is tried again by itself."
    )
    expires_at: str | None = Field(
        None, description="When it is removed with its pictures: RFC 3339, UTC."
    )
    input: dict[str, Any] | None = Field(None, description="In lists, and in webhooks.")


class StatusOut(BaseModel):
    """An event: how a prediction is that is not finished."""

    status: Literal["created", "processing"]
    waiting_for: str | None = Field(
        None, description="Why nobody can draw it now; it is tried again by itself."
    )


class StepOut(BaseModel):
    """An event: a denoise step is done."""

    step: int = Field(description="Steps done, over all pictures of the request.")
    total: int = Field(description="Steps in all.")


class PreviewOut(BaseModel):
    """An event: one of the pictures is finished, and this is a small one."""

    number: int = Field(description="Which of the request's pictures, from 0.")
    width: int = Field(description="Of the picture itself, in pixels.")
    height: int
    seed: int = Field(description="Makes it again with num_images 1.")
    has_nsfw: bool
    identity: IdentityOut | None = None
    image: str = Field(description="A JPEG of at most 512 pixels a side, as a data URI.")


def _as_time(value: object) -> object:
    """A time without a zone is in UTC, and a date is its first moment."""
    if not isinstance(value, str):
        raise ValueError("a time as text")
    time = datetime.fromisoformat(value)
    return time if time.tzinfo else datetime.fromisoformat(f"{time.isoformat()}+00:00")


Time = Annotated[AwareDatetime, BeforeValidator(_as_time)]


class ListQuery(BaseModel):
    """Which predictions."""

    model_config = ConfigDict(extra="forbid")

    page: int = Field(1, ge=1, le=1_000_000, description="From 1.")
    page_size: int = Field(20, ge=1, le=100, description="How many a page has.")
    model: str | None = Field(None, max_length=200, description="Only those of this model.")
    status: Status | None = Field(None, description="Only those in this state.")
    created_after: Time | None = Field(None, description="RFC 3339.")
    created_before: Time | None = Field(None, description="RFC 3339.")
    include_inputs: bool = Field(False, description="Tell what was asked, too.")


class PredictionList(BaseModel):
    """A page of predictions, the newest first."""

    page: int
    items: list[PredictionOut]


class Ids(BaseModel):
    """Which predictions."""

    model_config = ConfigDict(extra="forbid")

    ids: list[Annotated[str, Field(max_length=64)]] = Field(min_length=1, max_length=100)


class DeletedCount(BaseModel):
    """How many were removed."""

    deleted_count: int


class Deleted(BaseModel):
    """What was removed."""

    id: str
    status: Literal["deleted"] = "deleted"


class CharacterQuery(BaseModel):
    """A character that is to be saved."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=MAX_NAME, description="One line.")
    references: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1,
        max_length=MAX_PICTURES,
        description="Its pictures, each as `image` of a generation, the best first; the first "
        f"{MAX_TOGETHER} are looked at together.",
        examples=[[EXAMPLE_PICTURE]],
    )


class NameQuery(BaseModel):
    """What something is called from now on."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=MAX_NAME, description="One line.")


class Named(BaseModel):
    """What was renamed, or restored."""

    id: str
    name: str


class CharacterOut(BaseModel):
    """A saved character."""

    id: str = Field(
        description="As `image` of a generation; with /2 behind it its second picture is drawn "
        "from."
    )
    name: str
    num_pictures: int
    references: list[str] = Field(
        description="The address of each of its pictures, good for 7 days without a key."
    )
    created_at: str = Field(description="RFC 3339, UTC.")


class UploadTicketQuery(BaseModel):
    """A file that is to be sent."""

    filename: str = Field("upload", max_length=1024)
    size: int = Field(ge=0, description="Bytes.")
    content_type: str = Field("application/octet-stream", max_length=200)


class UploadInstruction(BaseModel):
    """How to send it."""

    method: Literal["PUT"] = "PUT"
    url: str = Field(description="Needs no key and works once.")
    headers: dict[str, str] = Field(description="To be sent as they are.")
    expires_at: str = Field(description="RFC 3339, UTC.")


class Uploaded(BaseModel):
    """A file that can be used as `image`."""

    type: Literal["image"] = "image"
    download_url: str = Field(description="Good for 7 days without a key.")
    filename: str
    size: int


class UploadTicket(Uploaded):
    """Where a file will be, once it was sent."""

    upload: UploadInstruction


class UploadForm(BaseModel):
    """A form with one file."""

    file: bytes = Field(description="A PNG, JPEG, WEBP, GIF, AVIF or HEIC picture.")


class Balance(BaseModel):
    """What may still be spent on hosted pictures."""

    balance: float = Field(description="Dollars; one's own GPU is free.")


class PriceQuery(BaseModel):
    """A generation that is not made."""

    model_id: str = Field(max_length=200)
    inputs: dict[str, Any] = Field(default_factory=dict)


class Price(BaseModel):
    """What a generation costs."""

    model_id: str
    price: float
    discounted_price: float
    discount_rate: float
    currency: Literal["USD"] = "USD"


class UnitPrice(BaseModel):
    """What a generation costs, in the older form."""

    model_id: str
    unit_price: float
    currency: Literal["USD"] = "USD"


class ModelOut(BaseModel):
    """A model of the list."""

    model_id: str
    name: str
    description: str
    type: str
    base_price: float
    formula: str
    sort_order: int
    licences: dict[str, Licence] = Field(
        description="Under which its weights may be used, by part; empty where it is not known."
    )
    defaults: dict[str, int | float] = Field(
        description="What it gives a request for what that leaves out; empty where it is not known."
    )
    styles: list[str] = Field(description="What `style` may be, as far as it is known.")
    api_schema: dict[str, Any] = Field(description="`api_schemas[0].request_schema` is the inputs'")


class WebhookSecret(BaseModel):
    """Signs what webhooks send."""

    secret: str


class ErrorOut(BaseModel):
    """An answer that is no success."""

    code: int = Field(description="The HTTP status.")
    message: str
    error: str = Field(description="The same as `message`.")
    error_code: int | None = Field(None, description="WaveSpeed's business code.")
    reason: str | None = Field(None, description="For programs, such as invalid_request.")
    charged: bool | None = Field(None, description="null: nobody knows.")
    problems: list[dict[str, str]] | None = Field(
        None, description="Each bad parameter: what is allowed, and a hint."
    )

"""generate_character_image: one call draws, and asks before it costs anything."""

# No `from __future__ import annotations`: the SDK reads an annotation that names a local function.

import contextlib
from typing import Annotated, Any, Final

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, Elicit, Resolve
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field

from castmate.errors import CastmateError
from castmate.identity import most_drawn
from castmate.jobs.predictions import Prediction
from castmate.schema import GenerateRequest
from castmate_mcp.agent.extensions import viewer
from castmate_mcp.agent.holding import hold
from castmate_mcp.agent.parameters import with_fields_of
from castmate_mcp.agent.results import JobOut
from castmate_mcp.agent.saving import Target, save
from castmate_mcp.agent.sources import reference_of
from castmate_mcp.agent.spending import Agreement, Spending, Unaskable, declined
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio

NAME: Final = "generate_character_image"

# Every agent pays for these words in every conversation; the guide has more.
_SHORT: Final = {
    "prompt": "What it does and where, such as waving on a beach; its look comes from the image.",
    "size": "Width*height in pixels, each 512..1536;",
    "negative_prompt": "What must not be in it; doubles the time.",
    "seed": "Same seed and call, same picture; -1 draws one:",
    "guidance_scale": "Fidelity to the prompt:",
    "num_inference_steps": "More is slower and finer:",
    "num_images": "How many pictures:",
    "enable_safety_checker": "Blacken unsafe pictures;",
    "subject_scale": "Likeness to the image:",
    "true_cfg_scale": "Strength of negative_prompt:",
    "output_format": "png is lossless:",
    "cache": "Skip steps that change little:",
    "enable_matting": "Crop to the character:",
    "background": "transparent cuts the character out, as png or webp:",
    "num_candidates": "Draw so many, such as 4, return the closest to the character.",
    "min_identity": "Draw again, up to num_candidates, until as close, such as 0.8.",
    "style": "A name of get_status's styles.",
}

# Used until the model has been asked for its defaults.
_USUAL: Final = {
    "guidance_scale": 3.5,
    "num_inference_steps": 28,
    "subject_scale": 0.8,
    "true_cfg_scale": 4,
}

WaitSeconds = Annotated[
    float | None,
    Field(
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="When to answer `running`, such as 20:",
    ),
]

IdempotencyKey = Annotated[
    str | None,
    Field(description="A second call with the same text, such as fox-4f9a, gives the first job."),
]
AcceptCost = Annotated[
    float | None,
    Field(
        ge=0,
        allow_inf_nan=False,
        description="Only where an error named the price, such as 0.25, and the user agreed.",
    ),
]


def add(server: StrictServer, studio: Studio) -> None:
    """Add the tool.

    Args:
        server: To which one.
        studio: What it works with.
    """
    spending = Spending(studio)

    async def agreement(
        ctx: Context[Any, Any],
        num_images: int,
        num_candidates: int | None,
        min_identity: float | None,
    ) -> Agreement | Elicit[Agreement]:
        return await spending.ask(ctx, most_drawn(num_images, num_candidates, min_identity))

    @server.tool(
        title="Draw a character in a new scene",
        meta=viewer.SHOWN,
        description=_description(spending),
        annotations=ToolAnnotations(
            read_only_hint=False,
            destructive_hint=False,
            open_world_hint=spending.possible,
        ),
    )
    @with_fields_of(GenerateRequest, _words(studio), _defaults(studio))
    async def generate_character_image(
        ctx: Context[Any, Any],
        agreed: Annotated[ElicitationResult[Agreement], Resolve(agreement)],
        *,
        wait_seconds: WaitSeconds = None,
        idempotency_key: IdempotencyKey = None,
        accept_cost_usd: AcceptCost = None,
        save_to: Annotated[
            str | None, Field(description="Also write it there, such as out/fox.png.")
        ] = None,
        overwrite: Annotated[bool, Field(description="Replace what is there;")] = False,
        **values: Any,
    ) -> Annotated[CallToolResult, JobOut]:
        if not isinstance(agreed, AcceptedElicitation):
            raise declined()
        may_spend = await spending.settle(agreed.data)
        request = GenerateRequest.parse(values)
        target = None
        if save_to is not None:
            form, number = request.output_format, request.num_images
            target = Target.check(studio, save_to, form, number, overwrite)
        reference = await reference_of(studio, ctx, request.image)
        if isinstance(agreed.data, Unaskable):  # last: a rejected call must not use up the consent
            may_spend = await spending.accept(request.most_drawn, accept_cost_usd)
        job = await studio.castmate.ledger.submit(
            request,
            reference,
            key_name=studio.caller,
            weight=studio.key.weight,
            max_unfinished=studio.key.concurrency,
            idempotency_key=idempotency_key,
            may_spend=may_spend,
            join_running=True,
            note=target.note if target else None,
        )
        studio.count(ctx)
        if target is not None:
            studio.begin(_save_at_the_end(studio, job, target))
        return await hold(studio, ctx, job, wait_seconds, target)


async def _save_at_the_end(studio: Studio, job: Prediction, target: Target) -> None:
    """Save the pictures even if nobody asks for the job again; later calls report the outcome."""
    with contextlib.suppress(CastmateError, FileNotFoundError):
        await save(studio, await studio.castmate.ledger.wait(job.id), target)


def _defaults(studio: Studio) -> dict[str, Any]:
    """The model's defaults for parameters that a call omits, as far as they are known."""
    known = studio.castmate.router.defaults
    return known.model_dump() if known else {}


def _words(studio: Studio) -> dict[str, str]:
    """A description of each parameter in as few words as possible."""
    words = _SHORT | {"image": _image(studio)}
    if not _defaults(studio):
        for name, usual in _USUAL.items():
            words[name] = f"{words[name][:-1]}, such as {usual:g}; by default the model's:"
    return words


def _image(studio: Studio) -> str:
    roots = studio.castmate.settings.image_roots if studio.base_url is None else ()
    named = ", ".join(str(root) for root in roots)
    if named:
        path = f"a path in {named}"
    else:
        local = studio.base_url is None
        path = "the file_path of an earlier result" if local else "what create_upload_link gave"
    return (
        "The character: the name or id of a saved one, an image_id (img_...), an https URL, "
        f"{path}, or a data URI. One, whole, on a plain background. Never write base64."
    )


def _description(spending: Spending) -> str:
    return f"""Draw the character of a reference picture in a new scene, looking the same.

Use it whenever a picture must show a certain character. Not for editing a picture.
Seconds on a GPU, minutes on a CPU. {spending.price}
Returns for each of images image_id, file_path or download_url, seed. Status running: call
get_job, not this again."""

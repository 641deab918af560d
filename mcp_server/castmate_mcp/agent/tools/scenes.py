"""draw_scenes: one call draws a series of pictures of one character, and the sheet of them."""

# No `from __future__ import annotations`: the SDK reads an annotation that names a local function.

from typing import Annotated, Any, Final

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, Elicit, Resolve
from mcp.types import CallToolResult, ToolAnnotations

from castmate.storyboard import StoryboardRequest
from castmate_mcp.agent.extensions import viewer
from castmate_mcp.agent.holding import hold_series
from castmate_mcp.agent.parameters import with_fields_of
from castmate_mcp.agent.results import JobOut
from castmate_mcp.agent.sources import reference_of
from castmate_mcp.agent.spending import Agreement, Spending, Unaskable, declined
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import DRAW_SCENES, Studio
from castmate_mcp.agent.tools.generate import AcceptCost

# The shared parameters that an agent needs; REST and the command take all of them.
_WORDS: Final = {
    "scenes": "What happens in each picture, such as waving on a beach; also its caption.",
    "image": "As in generate_character_image, such as Mira.",
    "style_words": "For every scene, such as watercolour.",
    "layout": "Of a story, or of views on white:",
    "size": "Of each, such as 1024*640;",
    "seed": "Of all; -1 draws one:",
    "background": "transparent for stickers and sprites:",
}


def add(server: StrictServer, studio: Studio) -> None:
    """Add the tool.

    Args:
        server: To which one.
        studio: What it works with.
    """
    spending = Spending(studio)

    async def agreement(ctx: Context[Any, Any], scenes: list[str]) -> Agreement | Elicit[Agreement]:
        return await spending.ask(ctx, len(scenes))

    @server.tool(
        name=DRAW_SCENES,
        title="Draw a storyboard or a character sheet",
        meta=viewer.SHOWN,
        description=_description(spending),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, open_world_hint=spending.possible
        ),
    )
    @with_fields_of(StoryboardRequest, _WORDS, {}, only=_WORDS)
    async def draw_scenes(
        ctx: Context[Any, Any],
        agreed: Annotated[ElicitationResult[Agreement], Resolve(agreement)],
        *,
        accept_cost_usd: AcceptCost = None,
        **values: Any,
    ) -> Annotated[CallToolResult, JobOut]:
        if not isinstance(agreed, AcceptedElicitation):
            raise declined()
        may_spend = await spending.settle(agreed.data)
        request = StoryboardRequest.parse(values)
        reference = await reference_of(studio, ctx, request.image)
        if isinstance(agreed.data, Unaskable):  # last: a rejected call must not use up the consent
            number = len(request.scenes)
            may_spend = await spending.accept(number, accept_cost_usd, DRAW_SCENES)
        series = await studio.castmate.storyboards.submit(
            request,
            reference,
            key_name=studio.caller,
            weight=studio.key.weight,
            may_spend=may_spend,
            max_unfinished=studio.key.concurrency,
        )
        studio.count(ctx, len(request.scenes))
        return await hold_series(studio, ctx, series, None)


def _description(spending: Spending) -> str:
    price = f"It is free, or about ${spending.price_usd:.2f} a picture from a hosted service."
    return f"""Draw one character in several scenes, and a contact sheet of them.

Use it for a story, or for expressions, poses or views. Not for one picture.
{price if spending.possible else "It is free."}
Returns images with their scene, what failed and why, and the sheet. Status running: call
get_job. The same call again draws only what failed."""

"""The server that agents see: one factory for every transport; knows neither flags nor models."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.types import CallToolResult, ToolAnnotations

from castmate import __version__
from castmate.clients.base import Client, Progress
from castmate.errors import CastmateError
from castmate.images import Reference, as_png
from castmate.references import resolve
from castmate.schema import GenerateRequest, GenerateResult
from castmate.settings import Settings
from castmate_mcp.parameters import with_fields_of
from castmate_mcp.results import GenerationOut, describe, to_content
from castmate_mcp.store import ImageStore
from castmate_mcp.strict import StrictServer, as_tool_error

GENERATE = "generate_character_image"
INSTRUCTIONS = (
    "Castmate keeps a character the same in every picture. Give generate_character_image one "
    "picture of the character and a prompt for the scene; for the next scene give the same picture."
)


def build_server(settings: Settings, client: Client) -> StrictServer:
    """The server, ready to run on any transport.

    Args:
        settings: Where pictures are kept, and which folders an agent may read.
        client: What draws; the caller opens and closes it.
    """
    # The SDK sets logging up itself, on stderr.
    server = StrictServer(
        "castmate",
        title="Castmate",
        version=__version__,
        description="The same character in every picture.",
        instructions=INSTRUCTIONS,
        log_level="WARNING",
    )
    store = ImageStore(settings.data_dir / "images")
    _add_generate(server, settings, client, store)
    _add_images(server, store)
    return server


def _add_generate(
    server: StrictServer, settings: Settings, client: Client, store: ImageStore
) -> None:
    roots = (*settings.image_roots, store.folder)  # what was drawn may be drawn from
    named = ", ".join(str(root) for root in settings.image_roots)
    image = (
        "The reference picture of the character: an https URL, a data URI, the image_id of an "
        f"earlier result, or {f'a path in {named}' if named else 'the file_path of one'}. One "
        "character, whole, on a plain background works best. Never write base64 yourself."
    )

    @server.tool(
        title="Draw a character in a new scene",
        annotations=ToolAnnotations(
            read_only_hint=False,
            destructive_hint=False,
            idempotent_hint=False,
            open_world_hint=False,
        ),
    )
    @with_fields_of(GenerateRequest, {"image": image})
    async def generate_character_image(
        ctx: Context[Any, Any], **values: Any
    ) -> Annotated[CallToolResult, GenerationOut]:
        """Draw the character of a reference picture in a new scene, looking the same.

        Use it whenever a picture must show a certain character: a mascot, a story's hero, a game
        figure. Not for editing a picture or for pictures without a character.
        One picture takes seconds on a GPU, up to minutes on a CPU; fewer num_inference_steps or a
        smaller size are quicker. It is free: drawn on the user's own machine.
        Returns for each picture image_id, file_path, seed and a preview. Next: show the user the
        file_path; for another scene call again with the same image.
        """
        try:
            request = GenerateRequest.parse(values)
            earlier = store.find(request.image)
            source = str(earlier.path) if earlier else request.image
            reference = await resolve(source, roots=roots, allow_http=settings.allow_http)
            result = await _generate(ctx, client, request, reference)
            return await asyncio.to_thread(_keep, store, result)
        except CastmateError as error:
            raise as_tool_error(error, GENERATE) from None


def _add_images(server: StrictServer, store: ImageStore) -> None:
    @server.resource(
        "image://{image_id}",
        name="image",
        title="A finished picture",
        description="A picture that was drawn, whole, as PNG.",
        mime_type="image/png",
    )
    def image(image_id: str) -> bytes:
        stored = store.find(image_id)
        if stored is None:
            raise ResourceNotFoundError(
                f"There is no picture {image_id!r}: use the image_id of a {GENERATE} result."
            )
        try:
            return as_png(stored.path.read_bytes())
        except OSError as error:
            raise ResourceError(f"{stored.path} cannot be read: {error.strerror}") from None


async def _generate(
    ctx: Context[Any, Any], client: Client, request: GenerateRequest, reference: Reference
) -> GenerateResult:
    """Generate, and report every step while the client works."""
    steps: asyncio.Queue[Progress | None] = asyncio.Queue()
    work = asyncio.ensure_future(client.generate(request, reference, steps.put_nowait))
    work.add_done_callback(lambda _: steps.put_nowait(None))
    try:
        last = -1
        while (progress := await steps.get()) is not None:
            if progress.step > last:  # the protocol wants it to grow
                last = progress.step
                message = f"Step {progress.step} of {progress.total}"
                await ctx.report_progress(progress.step, progress.total, message)
        return await work
    finally:
        work.cancel()  # the agent gave up: stop drawing


def _keep(store: ImageStore, result: GenerateResult) -> CallToolResult:
    try:
        stored = [store.save(image) for image in result.images]
    except OSError as error:
        raise CastmateError(
            f"The picture was drawn, but {store.folder} cannot be written: {error.strerror}."
        ) from None
    return to_content(describe(result, stored), result.images)

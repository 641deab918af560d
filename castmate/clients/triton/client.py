"""Generation on Triton servers over a gRPC stream, whose format is `castmate/triton/wire.py`.

A dead model process sends nothing at all and a frozen server keeps its connection, so every wait
has a deadline: the model sends at least one event a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Self

from castmate.clients.base import Check, Progress, ProgressCallback, Servers
from castmate.clients.payments import Payments
from castmate.clients.triton.discovery import Discovery
from castmate.clients.triton.endpoints import Endpoint, Endpoints
from castmate.clients.triton.streams import Response, Streams
from castmate.defaults import Defaults
from castmate.errors import InvalidRequest, Overloaded, SettingsError, Unavailable
from castmate.identity import Selection
from castmate.images import Reference
from castmate.schema import FramedReference, GeneratedImage, GenerateRequest, GenerateResult
from castmate.settings import Settings
from castmate.triton import wire

PROBE_TIMEOUT_S: Final = 3.0  # Triton itself needs 1 s to notice that a model process is dead
STALL_TIMEOUT_S: Final = 300.0  # a step has no time limit, but none takes this long
_MOST_DEATHS: Final = 2  # of servers that draw one request; after that it may be to blame
_log = logging.getLogger(__name__)


class TritonClient:
    """Draws on the least busy of several Triton servers."""

    name = "triton"

    def __init__(
        self,
        urls: tuple[str, ...],
        *,
        event_timeout_s: float = 5.0,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        probe_timeout_s: float = PROBE_TIMEOUT_S,
        discovery: Discovery | None = None,
    ) -> None:
        """Store the servers; connections are opened when needed.

        Args:
            urls: Their gRPC addresses, host:port, or `dns:///host:port` for all servers of a name.
            event_timeout_s: A server that sends nothing for this long counts as failed.
            stall_timeout_s: So does a live one whose running request stalls for this long.
            probe_timeout_s: Time for a server to say that it can draw.
            discovery: Finds the servers; only tests replace it.

        Raises:
            SettingsError: There is no server, or `tritonclient` is not installed.
        """
        if not urls:
            raise SettingsError(
                "CASTMATE_TRITON_URLS names no server; allowed: host:port, several separated by "
                "commas, such as 127.0.0.1:8001, or dns:///host:port."
            )
        try:
            import tritonclient.grpc.aio  # noqa: F401  (heavy: only those who use it pay for it)
        except ImportError as error:
            raise SettingsError(
                f"A Triton server needs more packages: pip install 'castmate[triton]' ({error})."
            ) from None
        self._event_timeout_s, self._stall_timeout_s = event_timeout_s, stall_timeout_s
        self._probe_timeout_s = probe_timeout_s
        self.defaults: Defaults | None = None
        self.styles: Sequence[str] = ()
        self._streams, self._discovery = Streams(), discovery or Discovery(urls)
        self._endpoints = Endpoints((), self._load)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """A client for the servers that the settings name.

        Raises:
            SettingsError: They name none.
        """
        return cls(settings.triton_urls, event_timeout_s=settings.triton_event_timeout_s)

    @property
    def servers(self) -> Servers:
        """The servers that it knows."""
        return self._endpoints.count()

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        """Draw on one server; if it is full or fails, another one draws the same picture.

        After a server dies while drawing, at most one other is tried: a request that kills servers
        must not reach them all.

        Cancelling the task cancels the request on its server, before its next step.

        Raises:
            InvalidRequest: The request or the reference is invalid.
            Overloaded: Every server is full.
            Unavailable: No server can be reached, or those asked failed while drawing.
        """
        tried: list[Endpoint] = []
        full: list[Overloaded] = []
        died, lost = 0, None
        await self._streams.leave(self._endpoints.update(await self._discovery.servers()))
        while (endpoint := await self._choose(tried)) is not None:
            tried.append(endpoint)
            drawing = _Drawing(request, on_progress)
            try:
                with self._endpoints.using(endpoint):
                    result = await self._draw(endpoint.url, drawing, reference)
            except Overloaded as error:
                full.append(error)
            except InvalidRequest:
                self._endpoints.worked(endpoint)
                raise
            except Unavailable as error:
                self._endpoints.failed(endpoint, str(error))
                if drawing.has_begun:
                    died += 1
                    error.died = True
                    if died >= _MOST_DEATHS:
                        raise
                    lost = error
                    _log.warning("Another server is asked, if there is one: %s", error)
            else:
                self._endpoints.worked(endpoint)
                return result
        if lost is not None:
            raise lost
        if full:
            raise min(full, key=lambda error: error.retry_after_s)
        raise Unavailable("\n".join(self._endpoints.reasons()))

    async def probe(self, url: str) -> dict[str, Any]:
        """Ask the model itself, since its server still says ready after the model's process died.

        Returns:
            The model's name, engine, defaults and styles, and how many requests wait and run.

        Raises:
            Unavailable: It cannot draw; gives the reason.
        """
        asked = self._streams.events(url, {}, {wire.PROBE: True}, self._probe_timeout_s)
        async with aclosing(asked) as events:
            reports = [response.get(wire.REPORT) async for response in events]
        if not reports or reports[-1] is None:
            raise Unavailable(f"Triton at {url} ended without an answer.")
        state: dict[str, Any] = reports[-1]
        if "defaults" in state:
            self.defaults = Defaults.model_validate(state["defaults"])
        self.styles = tuple(state.get("styles", ()))
        return state

    async def _choose(self, tried: Sequence[Endpoint]) -> Endpoint | None:
        gone = self._endpoints.update(await self._discovery.servers())
        await self._streams.leave(gone)
        return await self._endpoints.choose(tried)

    async def _load(self, url: str) -> int:
        state = await self.probe(url)
        return int(state["waiting"]) + int(state["running"])

    async def aclose(self) -> None:
        """Cancel running requests and close the connections."""
        await self._endpoints.aclose()
        await self._discovery.aclose()
        await self._streams.aclose()

    async def _draw(self, url: str, drawing: _Drawing, reference: Reference) -> GenerateResult:
        tensors = {"prompt": drawing.request.prompt.encode(), "image": reference.data}
        parameters = wire.encode_parameters(drawing.request)
        moved = time.monotonic()
        async with aclosing(
            self._streams.events(url, tensors, parameters, self._event_timeout_s)
        ) as events:
            async for response in events:
                drawing.has_begun |= response.get(wire.AHEAD, 0) == 0
                if drawing.take(response):
                    moved = time.monotonic()
                elif time.monotonic() - moved > self._stall_timeout_s:
                    raise Unavailable(
                        f"Triton at {url} lives and has not got on for {self._stall_timeout_s:g} s."
                    )
        if (result := drawing.result()) is None:
            raise Unavailable(f"Triton at {url} ended without a picture.")
        return result


async def check(settings: Settings) -> Sequence[Check]:
    """Whether the model of each server answers; for `castmate doctor`."""
    discovery = Discovery(settings.triton_urls)
    try:
        urls = await discovery.servers()
    except Unavailable as error:
        return [Check("triton", False, ", ".join(settings.triton_urls), str(error))]
    finally:
        await discovery.aclose()
    return [await _check(url) for url in urls]


async def _check(url: str) -> Check:
    client = TritonClient((url,))
    try:
        state = await client.probe(url)
    except Unavailable as error:
        return Check("triton", False, url, str(error))
    finally:
        await client.aclose()
    usual = f"; by default {client.defaults.in_words}" if client.defaults else ""
    usual += f"; styles {', '.join(client.styles)}" if client.styles else ""
    found = f"{url} draws with {state['model']}, {state['waiting']} wait{usual}"
    return Check("triton", True, found)


class _Drawing:
    """The responses to one request from one server so far."""

    def __init__(self, request: GenerateRequest, on_progress: ProgressCallback | None) -> None:
        self.request = request
        self.has_begun = False
        self._on_progress = on_progress
        self._images: list[GeneratedImage] = []
        self._report: Mapping[str, Any] | None = None
        self._ahead: int | None = None

    def take(self, response: Response) -> bool:
        """Store a response; returns whether the request made progress or still waits its turn."""
        if wire.PROGRESS in response and self._on_progress is not None:
            done, total = response[wire.PROGRESS]
            self._on_progress(Progress(done, total, images=tuple(self._images)))
        if wire.PICTURE in response:
            self._images.append(
                GeneratedImage(
                    data=response[wire.PICTURE],
                    output_format=self.request.output_format,
                    width=self.request.width,
                    height=self.request.height,
                    seed=response[wire.SEED],
                    has_nsfw=response[wire.HAS_NSFW],
                    identity=response.get(wire.IDENTITY),
                )
            )
        self._report = response.get(wire.REPORT, self._report)
        before, self._ahead = self._ahead, response.get(wire.AHEAD)
        return self._ahead is None or self._ahead > 0 or before != 0

    def result(self) -> GenerateResult | None:
        """The complete result; None if the stream ended early."""
        if self._report is None:
            return None
        return GenerateResult(
            images=tuple(self._images),
            client=TritonClient.name,
            model=self._report["model"],
            timings_ms=self._report["timings_ms"],
            warnings=tuple(self._report["warnings"]),
            computed_steps=self._report.get("computed_steps"),
            drawn_with=self._report.get("drawn_with", {}),
            reference=FramedReference.parse(self._report.get("reference")),
            no_identity=self._report.get("no_identity", ""),
            selection=Selection.parse(self._report.get("selection")),
            model_hash=self._report.get("model_hash", ""),
        )

"""Generation on Triton servers over a gRPC stream; `castmate/triton/wire.py` says what is in it.

A dead model process sends nothing at all and a frozen server keeps its connection, so every wait
has a deadline: the model sends at least one event a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from castmate.clients.base import Check, Progress, ProgressCallback
from castmate.clients.endpoints import Endpoint, Endpoints
from castmate.clients.payments import Payments
from castmate.errors import CastmateError, InvalidRequest, Overloaded, SettingsError, Unavailable
from castmate.images import Reference
from castmate.proxies import is_direct
from castmate.schema import FramedReference, GeneratedImage, GenerateRequest, GenerateResult
from castmate.settings import Settings
from castmate.triton import wire

if TYPE_CHECKING:
    from tritonclient.grpc.aio import InferenceServerClient

PROBE_TIMEOUT_S: Final = 3.0  # Triton itself needs 1 s to notice that a model process is dead
STALL_TIMEOUT_S: Final = 300.0  # a step has no bound of its own, but none takes this long
_MOST_DEATHS: Final = 2  # of servers that draw one request; then it may be its fault
_log = logging.getLogger(__name__)

# Pings every 2 s notice a dead machine; without `ping_timeout_ms` a frozen server went unnoticed
# for a minute. Subchannels of its own: a new channel must not inherit the backoff of one that
# failed, or a restarted server is not found for seconds.
CHANNEL_OPTIONS: Final = [
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.ping_timeout_ms", 1500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
]

Response = Mapping[str, Any]


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
    ) -> None:
        """Know the servers; connections are made when they are needed.

        Args:
            urls: Their gRPC addresses, host:port.
            event_timeout_s: A server that sends nothing for this long is given up.
            stall_timeout_s: So is one that lives and does not get on with a running request.
            probe_timeout_s: Time for a server to say that it can draw.

        Raises:
            SettingsError: There is no server, or `tritonclient` is not installed.
        """
        if not urls:
            raise SettingsError(
                "CASTMATE_TRITON_URLS names no server; allowed: host:port, several separated by "
                "commas, such as 127.0.0.1:8001."
            )
        try:
            import tritonclient.grpc.aio  # noqa: F401  (heavy: only those who use it pay for it)
        except ImportError as error:
            raise SettingsError(
                f"A Triton server needs more packages: pip install 'castmate[triton]' ({error})."
            ) from None
        self._event_timeout_s, self._stall_timeout_s = event_timeout_s, stall_timeout_s
        self._probe_timeout_s = probe_timeout_s
        self._connections: dict[str, _Connection] = {}
        self._endpoints = Endpoints(urls, self.probe)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """The servers that the settings name.

        Raises:
            SettingsError: They name none.
        """
        return cls(settings.triton_urls, event_timeout_s=settings.triton_event_timeout_s)

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        """Draw on one server; if it refuses or fails, another one draws the same picture.

        A server that dies in the midst is followed by one other at most: where the request itself
        is what kills, it must not meet them all.

        Cancelling the task cancels the request on its server, before its next step.

        Raises:
            InvalidRequest: The request or the reference is refused.
            Overloaded: Every server is full.
            Unavailable: No server can be reached, or those asked failed while they drew.
        """
        tried: list[Endpoint] = []
        full: list[Overloaded] = []
        died, lost = 0, None
        while (endpoint := await self._endpoints.choose(tried)) is not None:
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
        """Ask the model itself, not its server: that says ready when the model's process is dead.

        Returns:
            The model's name and engine, and how many requests wait and run.

        Raises:
            Unavailable: It cannot draw, with the reason.
        """
        parameters = {wire.PROBE: True}
        async with aclosing(self._events(url, {}, parameters, self._probe_timeout_s)) as events:
            reports = [response.get(wire.REPORT) async for response in events]
        if not reports or reports[-1] is None:
            raise Unavailable(f"Triton at {url} ended without an answer.")
        state: dict[str, Any] = reports[-1]
        return state

    async def aclose(self) -> None:
        """Cancel what runs and close the connections."""
        await self._endpoints.aclose()
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            await connection.client.close()

    async def _draw(self, url: str, drawing: _Drawing, reference: Reference) -> GenerateResult:
        tensors = {"prompt": drawing.request.prompt.encode(), "image": reference.data}
        parameters = wire.encode_parameters(drawing.request)
        moved = time.monotonic()
        async with aclosing(
            self._events(url, tensors, parameters, self._event_timeout_s)
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

    async def _events(
        self,
        url: str,
        tensors: Mapping[str, bytes],
        parameters: Mapping[str, Any],
        timeout_s: float,
    ) -> AsyncGenerator[Response, None]:
        """The responses to one request; leaving it early cancels the request.

        Raises:
            CastmateError: The server refused it, failed, or was silent for `timeout_s`.
        """
        import grpc
        from tritonclient.grpc import InferInput
        from tritonclient.utils import InferenceServerException

        inputs = [
            InferInput(name, [1], "BYTES").set_data_from_numpy(np.array([data], dtype=object))
            for name, data in tensors.items()
        ]

        async def one() -> AsyncIterator[dict[str, Any]]:
            yield {
                "model_name": wire.MODEL,
                "inputs": inputs,
                "parameters": dict(parameters),
                "enable_empty_final_response": True,
            }

        # Not the header `triton_grpc_error`, which would give errors a gRPC status: tritonserver
        # 24.10 then cancels the finished stream itself, and now and then that race ends the whole
        # server (SIGSEGV). The code is in the text.
        connection = self._connect(url, await is_direct(url))
        stream = connection.client.stream_infer(one(), headers=_trace_headers())
        failure: CastmateError | None = None
        is_over = False
        try:
            # Read to the very end: a stream that is cancelled after its last response stays in the
            # server, and then the server does not end without being killed.
            while True:
                try:
                    # Not `wait_for`: before Python 3.12 it loses a cancel that meets a response.
                    async with asyncio.timeout(timeout_s):
                        result, error = await anext(stream)
                except StopAsyncIteration:
                    break
                if error is not None:
                    failure = _translate(url, "", error.message())
                    continue
                response = _decode(result)
                is_over = wire.REPORT in response
                yield response
        except TimeoutError:
            connection.is_broken = True
            if failure is None and not is_over:
                raise Unavailable(
                    f"Triton at {url} sent nothing for {timeout_s:g} s: it is frozen, or its "
                    "model's process died. Restart it."
                ) from None
        except grpc.aio.AioRpcError as error:
            translated = _translate(url, error.code().name, error.details() or "")
            connection.is_broken |= type(translated) is Unavailable
            raise translated from None
        except InferenceServerException as error:
            raise _translate(url, "", error.message()) from None
        finally:
            stream.cancel()
            await self._disconnect(url, connection)
        if failure is not None:
            raise failure

    def _connect(self, url: str, direct: bool) -> _Connection:
        """The open connection, which many requests share, or a new one."""
        if (connection := self._connections.get(url)) is None:
            from tritonclient.grpc.aio import InferenceServerClient

            options = [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", int(not direct))]
            client = InferenceServerClient(url, channel_args=options)
            connection = self._connections[url] = _Connection(client)
        connection.num_users += 1
        return connection

    async def _disconnect(self, url: str, connection: _Connection) -> None:
        """Leave a connection; nobody joins a broken one again, and the last one closes it."""
        connection.num_users -= 1
        if connection.is_broken:
            if self._connections.get(url) is connection:
                del self._connections[url]
            if connection.num_users == 0:
                await connection.client.close()


async def check(settings: Settings) -> Sequence[Check]:
    """Whether the model of each server answers; for `castmate doctor`."""
    return [await _check(url) for url in settings.triton_urls]


async def _check(url: str) -> Check:
    client = TritonClient((url,))
    try:
        state = await client.probe(url)
    except Unavailable as error:
        return Check("triton", False, url, str(error))
    finally:
        await client.aclose()
    return Check("triton", True, f"{url} draws with {state['model']}, {state['waiting']} wait")


@dataclass(eq=False)
class _Connection:
    client: InferenceServerClient
    num_users: int = 0
    is_broken: bool = False


class _Drawing:
    """What has arrived for one request from one server."""

    def __init__(self, request: GenerateRequest, on_progress: ProgressCallback | None) -> None:
        self.request = request
        self.has_begun = False
        self._on_progress = on_progress
        self._images: list[GeneratedImage] = []
        self._report: Mapping[str, Any] | None = None
        self._ahead: int | None = None

    def take(self, response: Response) -> bool:
        """Keep what a response holds; whether the request got on, or still waits its turn."""
        if wire.PROGRESS in response and self._on_progress is not None:
            self._on_progress(Progress(*response[wire.PROGRESS]))
        if wire.PICTURE in response:
            self._images.append(
                GeneratedImage(
                    data=response[wire.PICTURE],
                    output_format=self.request.output_format,
                    width=self.request.width,
                    height=self.request.height,
                    seed=response[wire.SEED],
                    has_nsfw=response[wire.HAS_NSFW],
                )
            )
        self._report = response.get(wire.REPORT, self._report)
        before, self._ahead = self._ahead, response.get(wire.AHEAD)
        return self._ahead is None or self._ahead > 0 or before != 0

    def result(self) -> GenerateResult | None:
        """Everything together; None where the end did not come."""
        if self._report is None:
            return None
        return GenerateResult(
            images=tuple(self._images),
            client=TritonClient.name,
            model=self._report["model"],
            timings_ms=self._report["timings_ms"],
            warnings=tuple(self._report["warnings"]),
            computed_steps=self._report.get("computed_steps"),
            reference=FramedReference.parse(self._report.get("reference")),
        )


def _decode(result: Any) -> Response:
    """The outputs of one response as plain values."""
    values: dict[str, Any] = {}
    for output in result.get_response().outputs:
        array = result.as_numpy(output.name)
        if output.name == wire.PROGRESS:
            values[output.name] = [int(number) for number in array]
        else:
            values[output.name] = array.reshape(-1)[0]
    for name, plain in ((wire.AHEAD, int), (wire.SEED, int), (wire.HAS_NSFW, bool)):
        if name in values:
            values[name] = plain(values[name])
    if wire.REPORT in values:
        values[wire.REPORT] = wire.decode_report(values[wire.REPORT])
    return values


def _translate(url: str, status: str, text: str) -> CastmateError:
    """Triton's error as one of ours: what the model said, or `Unavailable`."""
    ours = wire.decode_error(text)
    if isinstance(ours, InvalidRequest | Overloaded):
        return ours
    if ours is not None:
        return Unavailable(f"Triton at {url}: {ours}")
    if status == "UNAVAILABLE":
        return Unavailable(f"Triton at {url} cannot be reached: {text}. Is it running?")
    if "shared memory" in text:
        return Unavailable(
            f"Triton at {url} has too little shared memory: {text}. Give its container a larger "
            "--shm-size."
        )
    if "is not healthy" in text:
        return Unavailable(f"Triton at {url} lost its model's process; restart it: {text}")
    return Unavailable(f"Triton at {url} failed: {status} {text}".replace("  ", " "))


def _trace_headers() -> dict[str, str]:
    """The caller's trace, so that Triton's spans join it."""
    try:
        from opentelemetry.propagate import inject
    except ImportError:
        return {}
    headers: dict[str, str] = {}
    inject(headers)
    return headers

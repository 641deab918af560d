"""Requests to Triton servers as streams of responses, over shared connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from castmate.errors import CastmateError, InvalidRequest, Overloaded, Unavailable
from castmate.proxies import is_direct
from castmate.triton import wire

if TYPE_CHECKING:
    from tritonclient.grpc.aio import InferenceServerClient

# Pings every 2 s notice a dead machine; without `ping_timeout_ms` a frozen server went unnoticed
# for a minute. Each channel has its own subchannels: if a new one inherited the backoff of one that
# failed, it would not find a restarted server for seconds.
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

_PLAIN: Final[Mapping[str, Callable[[Any], Any]]] = {
    wire.AHEAD: int,
    wire.SEED: int,
    wire.HAS_NSFW: bool,
    wire.IDENTITY: float,
}


class Streams:
    """The connections to all servers, each opened when first needed."""

    def __init__(self) -> None:
        """Nothing is connected yet."""
        self._connections: dict[str, _Connection] = {}

    async def events(
        self,
        url: str,
        tensors: Mapping[str, bytes],
        parameters: Mapping[str, Any],
        timeout_s: float,
    ) -> AsyncGenerator[Response, None]:
        """The responses to one request; leaving the iteration early cancels the request.

        Raises:
            CastmateError: The server rejected it, failed, or was silent for `timeout_s`.
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

        # Without the header `triton_grpc_error`, which would give errors a gRPC status: with it,
        # tritonserver 24.10 cancels the finished stream itself, and that race sometimes crashes the
        # whole server (SIGSEGV). The code is in the text.
        connection = self._connect(url, await is_direct(url))
        stream = connection.client.stream_infer(one(), headers=_trace_headers())
        failure: CastmateError | None = None
        is_over = False
        try:
            # Read to the very end: a stream that is cancelled after its last response stays in the
            # server, which then does not exit without being killed.
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
        """The open connection, shared by many requests, or a new one."""
        if (connection := self._connections.get(url)) is None:
            from tritonclient.grpc.aio import InferenceServerClient

            options = [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", int(not direct))]
            client = InferenceServerClient(url, channel_args=options)
            connection = self._connections[url] = _Connection(client)
        connection.num_users += 1
        return connection

    async def _disconnect(self, url: str, connection: _Connection) -> None:
        """Leave a connection; the last to leave closes it, and nobody joins a broken one."""
        connection.num_users -= 1
        if connection.is_broken:
            if self._connections.get(url) is connection:
                del self._connections[url]
            if connection.num_users == 0:
                await connection.client.close()

    async def leave(self, urls: Collection[str]) -> None:
        """Close the connections to removed servers, once nobody uses them."""
        for url in urls:
            if (connection := self._connections.pop(url, None)) is not None:
                connection.is_broken = True
                if connection.num_users == 0:
                    await connection.client.close()

    async def aclose(self) -> None:
        """Close every connection, which ends running requests."""
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            await connection.client.close()


@dataclass(eq=False)
class _Connection:
    client: InferenceServerClient
    num_users: int = 0
    is_broken: bool = False


def _decode(result: Any) -> Response:
    """The outputs of one response as plain values."""
    values: dict[str, Any] = {}
    for output in result.get_response().outputs:
        array = result.as_numpy(output.name)
        if output.name == wire.PROGRESS:
            values[output.name] = [int(number) for number in array]
        else:
            values[output.name] = array.reshape(-1)[0]
    for name, plain in _PLAIN.items():
        if name in values:
            values[name] = plain(values[name])
    if wire.REPORT in values:
        values[wire.REPORT] = wire.decode_report(values[wire.REPORT])
    return values


def _translate(url: str, status: str, text: str) -> CastmateError:
    """Triton's error as a `CastmateError`: the model's own, or `Unavailable`."""
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

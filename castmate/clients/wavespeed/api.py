"""WaveSpeed's API at the wire: requests, envelopes, and the outcome of a paid request.

Knows nothing of prices, pictures and ledgers.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpcore2
import httpx2
from pydantic import SecretStr

from castmate import __version__
from castmate.clients.wavespeed.replies import (
    RemotePrediction,
    as_balance,
    as_list,
    as_object,
    as_prediction,
    as_price,
    run_schema,
)
from castmate.errors import Unavailable
from castmate.fetch import send
from castmate.proxies import proxy_for
from castmate.shorten import shorten

SUBMIT_TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 30.0
UPLOAD_TIMEOUT_S: Final = 120.0
MAX_ANSWER_BYTES: Final = 32 * 2**20  # the list of all models is the longest answer
RETRY_DELAYS_S: Final = (1.0, 2.0, 4.0, 8.0)
FEW_DELAYS_S: Final = (1.0,)  # for calls whose result has a substitute
MAX_RETRY_AFTER_S: Final = 60.0  # limits are counted by the minute
MAX_REPEAT_AFTER_S: Final = 10.0

_NEVER_SENT: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,  # it opens no tunnel to WaveSpeed
    httpx2.UnsupportedProtocol,
)

Sleep = Callable[[float], Awaitable[None]]
Read = TypeVar("Read")


class NotSent(Exception):
    """WaveSpeed was not reached: nothing was charged."""


class Lost(Exception):
    """A request was sent, but its answer does not reveal the outcome."""


class Refused(Exception):
    """WaveSpeed rejected the request: nothing was started.

    Attributes:
        status: Like an HTTP status.
        message: WaveSpeed's own words, short and on one line.
        retry_after_s: When to try again, if it says so.
    """

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        self.status, self.message, self.retry_after_s = status, message, retry_after_s
        super().__init__(f"HTTP status {status}{f' ({message})' if message else ''}")


@dataclass(frozen=True)
class _Reply:
    status: int
    retry_after_s: float | None
    envelope: Mapping[str, Any] | None  # None if it is not JSON, so not from the API itself
    excerpt: str

    @property
    def data(self) -> Any:
        return self.envelope.get("data") if self.envelope else None

    @property
    def code(self) -> int:
        """The HTTP status, or the worse one that the envelope names."""
        code = self.envelope.get("code") if self.envelope else None
        worse = isinstance(code, int) and self.status < 300 and 400 <= code < 600
        return int(code) if worse and isinstance(code, int) else self.status

    def refused(self) -> Refused:
        return Refused(self.code, self.excerpt, self.retry_after_s)


class WaveSpeedApi:
    """The API's calls; each except `submit` is retried."""

    def __init__(
        self,
        base_url: str,
        key: SecretStr,
        *,
        sleep: Sleep = asyncio.sleep,
        allow_http: bool = False,
        submit_timeout_s: float = SUBMIT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        backend: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        """Prepare the connections without sending anything.

        Args:
            base_url: The API's address.
            key: The account's key.
            sleep: Waits between retries; only tests replace it.
            allow_http: Whether files may be uploaded to http URLs.
            submit_timeout_s: How long a paid request may go unanswered.
            read_timeout_s: How long any other may.
            backend: Opens connections to file hosts; only tests replace it.
        """
        self._key, self._sleep = key, sleep
        self._allow_http, self._backend = allow_http, backend
        self._submit_timeout_s, self._read_timeout_s = submit_timeout_s, read_timeout_s
        # No connection is used twice: one that the other end has just closed would lose the reply
        # to a paid request. Redirects are not followed: they would send the request again.
        self._http = httpx2.AsyncClient(
            base_url=base_url,
            headers={"user-agent": f"castmate/{__version__}", "x-client-name": "castmate"},
            limits=httpx2.Limits(max_keepalive_connections=0),
            follow_redirects=False,
            proxy=proxy_for(base_url),
            trust_env=False,  # ignores passwords in ~/.netrc
        )

    async def submit(self, model: str, inputs: Mapping[str, Any]) -> RemotePrediction:
        """Start a prediction. This is the only call that costs money, so it is sent once.

        Raises:
            NotSent: WaveSpeed was not reached.
            Refused: It rejected the request.
            Lost: It is unknown whether the prediction started.
        """
        try:
            reply = await self._send(
                "POST", f"/api/v3/{model}", self._submit_timeout_s, json=dict(inputs)
            )
        except _NEVER_SENT as error:
            raise NotSent(_reason(error)) from None
        except (httpx2.HTTPError, httpx2.StreamError, TimeoutError, OSError) as error:
            raise Lost(_reason(error)) from None
        prediction = as_prediction(reply.data) if reply.status < 300 else None
        if prediction is not None:
            return prediction
        if reply.code < 300:
            raise Lost(f"its answer names no prediction ({reply.excerpt})")
        # A gateway in between may answer with any 5xx after WaveSpeed has started; WaveSpeed's own
        # 503 says that it accepts nothing at the moment.
        if reply.code < 500 or (reply.code == 503 and reply.envelope):
            raise reply.refused()
        raise Lost(f"it answered with HTTP status {reply.code} ({reply.excerpt})")

    async def result(self, remote_id: str) -> RemotePrediction:
        """How far a prediction is.

        Raises:
            Refused: WaveSpeed does not know it, or not for this key.
            Unavailable: WaveSpeed could not be asked.
        """
        path = f"/api/v3/predictions/{remote_id}/result"
        return await self._repeat("GET", path, lambda data: as_prediction(data, remote_id))

    async def model_schema(self, model: str) -> Mapping[str, Any] | None:
        """The JSON schema of a hosted model's inputs; None if the model is not listed.

        Raises:
            Refused: WaveSpeed rejected the request.
            Unavailable: WaveSpeed could not be asked.
        """
        models = await self._repeat("GET", "/api/v3/models", as_list, FEW_DELAYS_S)
        for entry in models:
            if isinstance(entry, dict) and entry.get("model_id") == model:
                return run_schema(entry)
        return None

    async def price_usd(self, model: str, inputs: Mapping[str, Any]) -> float:
        """The most that a prediction costs, without any discount.

        Raises:
            Refused: WaveSpeed rejected the request.
            Unavailable: WaveSpeed could not be asked, or gives no price in dollars.
        """
        body = {"model_id": model, "inputs": dict(inputs)}
        try:
            return await self._repeat(
                "POST", "/api/v3/model/price", as_price, FEW_DELAYS_S, json=body
            )
        except Refused as error:
            if error.status != 404:
                raise
        return await self._repeat(
            "POST", "/api/v3/model/pricing", as_price, FEW_DELAYS_S, json=body
        )

    async def balance_usd(self) -> float:
        """The account's balance.

        Raises:
            Refused: WaveSpeed does not accept the key.
            Unavailable: WaveSpeed could not be asked.
        """
        return await self._repeat("GET", "/api/v3/balance", as_balance, FEW_DELAYS_S)

    async def upload(self, filename: str, mime_type: str, data: bytes) -> str:
        """Upload a file; returns the URL at which the hosted model can read it.

        Raises:
            Refused: WaveSpeed rejected the request.
            Unavailable: The upload failed.
        """
        described = {"filename": filename, "size": len(data), "content_type": mime_type}
        try:
            ticket = await self._repeat("POST", "/api/v3/media/uploads", as_object, json=described)
        except Refused as error:
            if error.status not in (404, 405):
                raise
            files = {"file": (filename, data, mime_type)}
            path = "/api/v3/media/upload/binary"
            return _where(await self._repeat("POST", path, as_object, files=files))
        upload = ticket.get("upload")
        if not isinstance(upload, dict) or not isinstance(upload.get("url"), str):
            raise Unavailable("WaveSpeed does not say where to upload the reference.")
        headers = upload.get("headers") or {}
        status = await send(  # without the key: this is another host
            upload["url"],
            data,
            method="PUT",
            headers={str(name): str(value) for name, value in headers.items()},
            allow_http=self._allow_http,
            use_proxy=True,
            deadline_s=UPLOAD_TIMEOUT_S,
            backend=self._backend,
        )
        if not 200 <= status < 300:
            raise Unavailable(f"The reference cannot be uploaded to WaveSpeed: status {status}.")
        return _where(ticket)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _repeat(
        self,
        method: str,
        path: str,
        read: Callable[[Any], Read | None],
        delays_s: Sequence[float] = RETRY_DELAYS_S,
        **content: Any,
    ) -> Read:
        """Call until an answer comes that `read` understands, or the retries are used up."""
        # Not stamina: it does its own sleeping, and the tests of payments run on their own clock.
        problem = ""
        for delay_s in (*delays_s, None):
            asked_for_s = 0.0
            try:
                reply = await self._send(method, path, self._read_timeout_s, **content)
            except (httpx2.HTTPError, httpx2.StreamError, TimeoutError, OSError) as error:
                problem = _reason(error)
            else:
                value = read(reply.data) if reply.code < 300 else None
                if value is not None:
                    return value
                if 300 <= reply.code < 500 and reply.code != 429:
                    raise reply.refused()
                problem = f"HTTP status {reply.code} ({reply.excerpt})"
                asked_for_s = min(reply.retry_after_s or 0.0, MAX_REPEAT_AFTER_S)
            if delay_s is not None:
                await self._sleep(max(delay_s, asked_for_s))
        raise Unavailable(f"WaveSpeed cannot be asked: {problem}.")

    async def _send(self, method: str, path: str, timeout_s: float, **content: Any) -> _Reply:
        headers = {"authorization": f"Bearer {self._key.get_secret_value()}"}
        limits = httpx2.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        async with (
            asyncio.timeout(timeout_s + CONNECT_TIMEOUT_S),
            self._http.stream(method, path, headers=headers, timeout=limits, **content) as response,
        ):
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise httpx2.ReadError("the answer is too long")
        try:
            envelope = json.loads(bytes(body))
        except (ValueError, RecursionError):
            envelope = None
        envelope = envelope if isinstance(envelope, dict) else None
        wait_s = _retry_after_s(response.headers.get("retry-after", ""))
        return _Reply(response.status_code, wait_s, envelope, self._excerpt(envelope))

    def _excerpt(self, envelope: Mapping[str, Any] | None) -> str:
        """WaveSpeed's words in a form fit for errors: short, on one line, without the key."""
        if envelope is None:
            return "a page that is not of the API"
        message = envelope.get("message") or envelope.get("error") or ""
        # JSON may hold half of a surrogate pair.
        message = str(message).encode(errors="replace").decode()
        text = " ".join(message.replace(self._key.get_secret_value(), "***").split())
        return shorten(text, 200)

    def clean(self, text: str) -> str:
        """Any text of WaveSpeed's in the form of `_excerpt`."""
        return self._excerpt({"message": text})


def _where(data: Mapping[str, Any]) -> str:
    url = data.get("download_url")
    if not isinstance(url, str) or not url:
        raise Unavailable("WaveSpeed does not say where the uploaded reference is.")
    return url


def _retry_after_s(text: str) -> float | None:
    return min(float(text), MAX_RETRY_AFTER_S) if re.fullmatch(r"\d{1,9}", text) else None


def _reason(error: Exception) -> str:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{name}: {error}" if str(error) else name

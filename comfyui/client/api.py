"""One server over HTTP: each method is one request, and each failure one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from . import address
from .errors import CastmateError, Lost, NoEvents, Refused
from .events import Event, parse

CONNECT_S = 5.0
READ_S = 60.0
SILENT_S = 50.0  # of a stream, whose server shows every 15 s that it is there
MAX_LINE = 2**20  # of a stream: a preview is a few dozen KiB


class Api:
    """A server, while its connections are open."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self._session = url, session
        self._model: dict[str, Any] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str | None = None) -> AsyncIterator[Api]:
        """Get ready to call a server; nothing is sent yet.

        Args:
            url: Its address; None is `CASTMATE_URL`, or `castmate serve` on this machine.

        Raises:
            CastmateError: It is no address.
        """
        url = address.normal(url) if url else address.default_url()
        key = address.key_for(url)
        headers = {"x-client-name": "castmate-comfyui"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        async with aiohttp.ClientSession(
            headers=headers, timeout=timeout, read_bufsize=MAX_LINE
        ) as session:
            yield cls(url, session)

    async def model(self) -> dict[str, Any]:
        """What the server says of the model; it is asked once."""
        if self._model is None:
            models: list[dict[str, Any]] = await self._ask("GET", "/api/v3/models")
            self._model = models[0]
        return self._model

    async def upload(self, png: bytes) -> str:
        """Send a picture; gives its address for `image`."""
        form = aiohttp.FormData()
        form.add_field("file", png, filename="reference.png", content_type="image/png")
        uploaded = await self._ask("POST", "/api/v3/media/upload/binary", data=form)
        return str(uploaded["download_url"])

    async def submit(self, inputs: Mapping[str, Any], idempotency_key: str) -> dict[str, Any]:
        """Submit a generation; the same key and inputs again are the same prediction."""
        headers = {"idempotency-key": idempotency_key}
        path = f"/api/v3/{(await self.model())['model_id']}"
        return await self._prediction("POST", path, json=inputs, headers=headers)

    async def result(self, prediction_id: str) -> dict[str, Any]:
        """A prediction as it is now."""
        return await self._prediction("GET", f"/api/v3/predictions/{prediction_id}/result")

    async def cancel(self, prediction_id: str) -> None:
        """Stop a prediction before its next step."""
        await self._ask("POST", f"/api/v3/predictions/{prediction_id}/cancel")

    async def characters(self) -> list[dict[str, Any]]:
        """Saved characters, the newest first."""
        found: list[dict[str, Any]] = await self._ask("GET", "/api/v3/characters")
        return found

    async def create_character(self, name: str, references: list[str]) -> dict[str, Any]:
        """Save a character; the same name and pictures again are the same one."""
        body = {"name": name, "references": references}
        saved: dict[str, Any] = await self._ask("POST", "/api/v3/characters", json=body)
        return saved

    async def events(self, prediction_id: str, last: str | None) -> AsyncIterator[Event]:
        """What happens to a prediction, after the event with the id `last`.

        Raises:
            NoEvents: The server sends none.
            Lost: The connection broke, or the server is silent.
        """
        headers = {"last-event-id": last} if last else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)
        url = f"{self.url}/api/v3/predictions/{prediction_id}/events"
        with self._translating():
            async with self._session.get(url, headers=headers, timeout=timeout) as answer:
                if answer.content_type != "text/event-stream":
                    raise NoEvents(f"{url} sends no events.")
                async for event in parse(answer.content):
                    yield event

    async def download(self, url: str) -> bytes:
        """The bytes of a finished picture; the key goes to the server itself alone."""
        own = url.startswith(f"{self.url}/")
        with self._translating():
            if own:
                async with self._session.get(url) as answer:
                    return await self._whole(answer)
            async with aiohttp.request("GET", url) as answer:
                return await self._whole(answer)

    async def _whole(self, answer: aiohttp.ClientResponse) -> bytes:
        if answer.status != 200:
            raise Refused(answer.status, f"The picture is no longer at the server ({self.url}).")
        return await answer.read()

    async def _prediction(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask(method, path, **options)
        return found

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        with self._translating():
            async with self._session.request(method, self.url + path, **options) as answer:
                text = await answer.text()
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        if answer.status != 200 or not isinstance(body, dict):
            raise self._refused(answer, body if isinstance(body, dict) else {})
        return body.get("data")

    def _refused(self, answer: aiohttp.ClientResponse, body: dict[str, Any]) -> CastmateError:
        strange = f"it answered {answer.status}, which is not Castmate's"
        message = str(body.get("message") or strange)
        if answer.status == 401:
            message += (
                f" Here: set {address.KEY_VARIABLE} (and {address.URL_VARIABLE}, if the server is "
                f"not {address.DEFAULT_URL}), or write the line `{self.url} KEY` into "
                f"{address.keys_file()}, and start ComfyUI again."
            )
        return Refused(answer.status, f"Castmate at {self.url}: {message}")

    @contextlib.contextmanager
    def _translating(self) -> Any:
        try:
            yield
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Lost(
                f"No Castmate server answers at {self.url} ({reason}). Start one with `castmate "
                "serve`, or name another in a Castmate Server node."
            ) from None

"""Calls webhooks when predictions end: signed, tried again, kept over restarts.

What is to be sent is in the ledger with its prediction, so nothing is lost with a process. A
receiver may be called twice: if we die between its answer and our note of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from typing import Final

import httpcore2
import structlog
from starlette.responses import Response

from castmate.errors import CastmateError, InvalidRequest, PredictionNotFound, Problem, Unavailable
from castmate.fetch import send, why_not
from castmate.jobs.storage import Storage
from castmate.jobs.webhooks import TOPIC, Delivery
from castmate_mcp.http.envelope import success
from castmate_mcp.http.gateway import Gateway
from castmate_mcp.rest.models import WebhookSecret
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.presenter import Presenter

_log = structlog.stdlib.get_logger("castmate.webhooks")

ACKNOWLEDGED_IN_S: Final = 10.0
BACKOFF_S: Final = (5.0, 30.0, 180.0)  # waits are rows of the ledger: they outlive the process
_LOOK_S: Final = 0.5
_AT_A_TIME: Final = 16
_PREFIX: Final = "whsec_"


def check_target(url: str, *, allow_http: bool) -> None:
    """Refuse an address that nothing will ever be sent to.

    Raises:
        InvalidRequest: Says why.
    """
    if (reason := why_not(url, allow_http=allow_http)) is not None:
        raise InvalidRequest([Problem("webhook", reason, "a public https URL on port 443")])


def secret_of(storage: Storage, key_name: str) -> str:
    """What signs the webhooks of a key, on every server with the same CASTMATE_FILES_SECRET."""
    return _PREFIX + storage.sign("webhook", key_name)


def signature(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    """The header `webhook-signature`; the secret is used as text, without its prefix."""
    words = f"{webhook_id}.{timestamp}.".encode() + body
    key = secret.removeprefix(_PREFIX).encode()
    return "v3," + hmac.new(key, words, hashlib.sha256).hexdigest()


async def webhook_secret(call: Call) -> Response:
    """`GET /api/v3/webhook/secret`."""
    return success(WebhookSecret(secret=secret_of(call.gateway.castmate.storage, call.key.name)))


class Courier:
    """Delivers what is due; several processes share the work."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        backoff_s: Sequence[float] = BACKOFF_S,
        backend: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        """Deliver for one server.

        Args:
            gateway: Its ledger and addresses.
            backoff_s: How long to wait after each failure; after the last one it is given up.
            backend: What opens connections; only tests replace it.
        """
        self._gateway, self._backoff_s, self._backend = gateway, backoff_s, backend
        self._ledger, self._webhooks = gateway.castmate.ledger, gateway.castmate.webhooks

    async def run(self) -> None:
        """Deliver for ever; cancel it to end."""
        running: set[asyncio.Task[None]] = set()
        try:
            with self._ledger.database.hub.listening(TOPIC) as signal:
                while True:
                    signal.clear()
                    some_left = True
                    try:
                        free = _AT_A_TIME - len(running)
                        due, some_left = await self._webhooks.take(free)
                    except Unavailable as error:
                        _log.warning("webhooks wait", reason=str(error))
                        due = []
                    for one in due:
                        task = asyncio.create_task(self._deliver(one))
                        running.add(task)
                        task.add_done_callback(running.discard)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(signal.wait(), _LOOK_S if some_left else None)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _deliver(self, due: Delivery) -> None:
        log = _log.bind(prediction=due.prediction_id, attempt=due.tries)
        try:
            reason = await self._send(due)
        except PredictionNotFound:
            return  # deleted meanwhile, and the webhook with it
        except CastmateError as error:
            reason = str(error)
        self._gateway.metrics.webhooks.labels("failed" if reason else "delivered").inc()
        last = due.tries > len(self._backoff_s)
        if reason:
            log.warning("webhook failed", reason=reason, given_up=last)

        # A receiver is called again unless its answer is noted: the ledger may be back soon.
        while True:
            try:
                if reason is None:
                    return await self._webhooks.delivered(due)
                pause_s = None if last else self._backoff_s[due.tries - 1]
                return await self._webhooks.failed(due, reason, pause_s)
            except Unavailable as error:
                log.warning("a delivery could not be noted", reason=str(error))
                await asyncio.sleep(_LOOK_S)

    async def _send(self, due: Delivery) -> str | None:
        """Why it was not taken, or None."""
        prediction = await self._ledger.get(due.prediction_id)
        payload = Presenter(self._gateway, due.base_url).present(prediction, with_input=True)
        values = payload.model_dump(mode="json", exclude_none=True)
        body = json.dumps(values, ensure_ascii=False).encode()
        timestamp = str(int(time.time()))
        secret = secret_of(self._ledger.storage, prediction.key_name)
        status = await send(
            due.url,
            body,
            headers={
                "content-type": "application/json",
                "webhook-id": prediction.id,
                "webhook-timestamp": timestamp,
                "webhook-signature": signature(secret, prediction.id, timestamp, body),
            },
            allow_http=self._gateway.castmate.settings.allow_http,
            use_proxy=self._gateway.castmate.settings.fetch_proxy,
            deadline_s=ACKNOWLEDGED_IN_S,
            backend=self._backend,
        )
        return None if 200 <= status < 300 else f"the receiver answered with status {status}"

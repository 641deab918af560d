"""Generation by WaveSpeed's hosted model: it costs money, so every payment is recorded first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpcore2
from cachetools import TTLCache

from castmate.clients.base import Check, Progress, ProgressCallback
from castmate.clients.payments import Payments, PaymentState
from castmate.clients.wavespeed import failures
from castmate.clients.wavespeed.api import (
    READ_TIMEOUT_S,
    SUBMIT_TIMEOUT_S,
    Lost,
    NotSent,
    Refused,
    Sleep,
    WaveSpeedApi,
)
from castmate.clients.wavespeed.limit import MINUTE_S, RateLimit
from castmate.clients.wavespeed.order import RESUMED, Order
from castmate.clients.wavespeed.parameters import DEFAULTS, DOCUMENTED_PRICE_USD, HostedModel
from castmate.clients.wavespeed.pictures import Finished, blacked_out, finish, upload_form
from castmate.clients.wavespeed.replies import RemotePrediction
from castmate.errors import CastmateError, ImageRejected, Unavailable
from castmate.fetch import fetch
from castmate.images import MAX_BYTES, Reference
from castmate.schema import Background, GenerateRequest, GenerateResult
from castmate.settings import Settings

POLL_S, POLL_GROWTH, MAX_POLL_S = 2.0, 1.5, 10.0
UNKNOWN_POLLS: Final = 5
DOWNLOAD_DELAYS_S: Final = (1.0, 4.0)
ANSWERS_KEPT_S: Final = 600.0
UPLOADS_KEPT_S: Final = 24 * 3600.0  # WaveSpeed keeps them for 7 days

_LOG: Final = logging.getLogger(__name__)


class WaveSpeedClient:
    """Submits once, polls, downloads; never pays for a picture twice."""

    name = "wavespeed"

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        submit_timeout_s: float = SUBMIT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        backend: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        """Prepare the client without sending anything.

        Args:
            settings: Key, addresses, model, price and limits.
            clock: Seconds; only tests replace it.
            sleep: Waits; only tests replace it.
            submit_timeout_s: How long the reply to a paid request may take.
            read_timeout_s: How long any other reply may take.
            backend: Opens connections to file hosts; only tests replace it.
        """
        self._settings, self._clock, self._sleep = settings, clock, sleep
        self._model, self._backend = settings.wavespeed_model, backend
        self._api: WaveSpeedApi | None = None
        if settings.wavespeed_api_key is not None:
            self._api = WaveSpeedApi(
                settings.wavespeed_base_url,
                settings.wavespeed_api_key,
                sleep=sleep,
                allow_http=settings.allow_http,
                submit_timeout_s=submit_timeout_s,
                read_timeout_s=read_timeout_s,
                backend=backend,
            )
        self._limit = RateLimit(settings.wavespeed_per_minute, clock=clock, sleep=sleep)
        self._models: TTLCache[str, HostedModel] = TTLCache(1, ANSWERS_KEPT_S, clock)
        self._prices: TTLCache[str, float] = TTLCache(64, ANSWERS_KEPT_S, clock)
        self._uploads: TTLCache[str, str] = TTLCache(256, UPLOADS_KEPT_S, clock)

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        """Pay for the pictures that no earlier attempt has paid for, and fetch them all.

        Cancelling the task stops the waiting but not WaveSpeed, which offers no way to cancel. A
        paid request in flight is awaited, so that its outcome is recorded.

        Raises:
            InvalidRequest: WaveSpeed rejects the request.
            Unavailable: WaveSpeed cannot make the picture now; the error says what was charged.
            MaybeCharged: The reply to a paid request was lost, now or in an earlier attempt.
        """
        if self._api is None:
            raise failures.no_key()
        if payments is None:
            raise failures.no_account()
        if request.chooses:
            raise failures.cannot_choose()
        if request.background is Background.TRANSPARENT:
            raise failures.no_transparency()
        if request.style:
            raise failures.no_styles(request.style)
        start = self._clock()
        ends = start + self._settings.wavespeed_timeout_s
        order = Order.of(request, payments, self._sleep, ends)
        try:
            await order.resume(self.name)
            model = await self._hosted_model(self._api, order)
            await self._submit_missing(self._api, order, model, reference)
            submitted = self._clock()
            done = await self._collect(self._api, order, on_progress)
        except CastmateError as error:
            raise failures.with_paid(error, order.paid) from None
        finished = self._clock()
        warnings = [*model.warnings(request), *order.warnings()]
        if (given := len(reference.pictures)) > 1:
            warnings.append(
                f"WaveSpeed's hosted model takes one picture of a character: the first of {given} "
                "was used."
            )
        warnings += [warning for picture in done for warning in picture.warnings]
        return GenerateResult(
            images=tuple(picture.image for picture in done),
            client=self.name,
            model=self._model,
            timings_ms={
                "submit": round(1000 * (submitted - start), 3),
                "wait": round(1000 * (finished - submitted), 3),
                "total": round(1000 * (finished - start), 3),
            },
            warnings=tuple(warnings),
            cost_usd=round(order.cost_usd, 6),
            drawn_with=model.drawn_with(order.request),
            no_identity="WaveSpeed's hosted pictures are not judged.",
        )

    async def balance_usd(self) -> float:
        """The account's balance: a free way to see whether the key works.

        Raises:
            Unavailable: The key does not work, or WaveSpeed cannot be reached.
        """
        if self._api is None:
            raise failures.no_key()
        try:
            return await self._api.balance_usd()
        except Refused as refused:
            raise failures.refusal(refused) from None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._api is not None:
            await self._api.aclose()

    async def _submit_missing(
        self, api: WaveSpeedApi, order: Order, model: HostedModel, reference: Reference
    ) -> None:
        if not (missing := order.missing):
            return
        try:
            inputs = model.inputs(order.request, await self._uploaded(api, reference))
            price_usd = await self._price_usd(api, inputs)
        except Refused as refused:
            raise failures.refusal(refused) from None
        for index in missing:
            await self._limit.turn(order.ends - self._clock())
            await self._pay(api, order, index, inputs | model.seed(order.seeds[index]), price_usd)

    async def _pay(
        self,
        api: WaveSpeedApi,
        order: Order,
        index: int,
        inputs: Mapping[str, Any],
        price_usd: float,
    ) -> None:
        """Reserve, send and record; once the request is sent, cancelling waits for the record."""
        unwanted = asyncio.Event()
        paying = asyncio.ensure_future(
            self._pay_once(api, order, index, inputs, price_usd, unwanted)
        )
        try:
            await asyncio.shield(paying)
        except asyncio.CancelledError:
            unwanted.set()
            while not paying.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([paying])
            if not paying.cancelled() and (error := paying.exception()):
                _LOG.warning("Picture %d was cancelled while being paid for: %s", index + 1, error)
            raise

    async def _pay_once(
        self,
        api: WaveSpeedApi,
        order: Order,
        index: int,
        inputs: Mapping[str, Any],
        price_usd: float,
        unwanted: asyncio.Event,
    ) -> None:
        await order.payments.reserve(index, self.name, price_usd)
        if unwanted.is_set():
            await order.move(index, PaymentState.RELEASED)
            return
        try:
            remote = await api.submit(self._model, inputs)
        except NotSent as reason:
            await order.move(index, PaymentState.RELEASED)
            raise failures.unreached(reason) from None
        except Refused as refused:
            await order.move(index, PaymentState.RELEASED)
            if refused.status == 429:
                self._limit.pause(refused.retry_after_s or MINUTE_S)
            raise failures.refusal(refused) from None
        except Lost as reason:
            await order.move(index, PaymentState.UNKNOWN)
            raise failures.lost(index + 1, price_usd, reason) from None
        if not await order.move(index, PaymentState.SUBMITTED, remote.id):
            why = f"WaveSpeed is making it as prediction {remote.id}, which could not be recorded"
            raise failures.lost(index + 1, price_usd, why)
        order.remotes[index], order.paid[index] = remote, remote.id
        order.cost_usd += price_usd

    async def _collect(
        self, api: WaveSpeedApi, order: Order, on_progress: ProgressCallback | None
    ) -> list[Finished]:
        """All pictures, once all have ended; each outcome is recorded even if one fails."""
        count = order.request.num_images
        steps = order.request.num_inference_steps or DEFAULTS.num_inference_steps
        report = on_progress or (lambda progress: None)
        report(Progress(0, steps * count))
        ended = 0

        async def one(index: int) -> Finished:
            nonlocal ended
            picture = await self._fetch_picture(api, order, index)
            ended += 1
            report(Progress(steps * ended, steps * count))
            return picture

        done = await asyncio.gather(*map(one, range(count)), return_exceptions=True)
        pictures = []
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome
            pictures.append(outcome)
        return pictures

    async def _fetch_picture(self, api: WaveSpeedApi, order: Order, index: int) -> Finished:
        remote = await self._over(api, order, index)
        if index not in order.settled:
            await order.move(index, PaymentState.SETTLED, remote.id)
        request, seed, number = order.request, order.seeds[index], index + 1
        nsfw = any(remote.has_nsfw)
        if remote.status == "completed" and nsfw and not remote.outputs:
            return blacked_out(request, seed, number)
        if remote.status != "completed" or not remote.outputs:
            order.paid.pop(index, None)  # WaveSpeed says that it refunds these; the error says so
            if failures.reads_no_upload(remote):
                self._uploads.clear()
            raise failures.failed(number, remote, api.clean(remote.error))
        try:
            data = await self._download(remote.outputs[0])
            return await asyncio.to_thread(finish, request, seed, number, data, nsfw)
        except ImageRejected as error:
            raise failures.undelivered(number, remote.id, error.problems[0].message) from None

    async def _over(self, api: WaveSpeedApi, order: Order, index: int) -> RemotePrediction:
        """Poll less and less often until the prediction has ended."""
        remote = order.remotes[index]
        wait_s, patience = (0.0, 0) if remote.status == RESUMED else (POLL_S, UNKNOWN_POLLS)
        while not remote.is_over:
            if self._clock() + wait_s > order.ends:
                timeout_s = self._settings.wavespeed_timeout_s
                raise failures.unfinished(index + 1, remote.id, timeout_s)
            await self._sleep(wait_s)
            try:
                remote = await api.result(remote.id)
            except Refused as refused:
                if refused.status != 404:
                    raise failures.unasked(index + 1, remote.id, refused) from None
                patience -= 1  # WaveSpeed may not know a new one everywhere yet
                if patience < 0:
                    if index not in order.settled:
                        await order.move(index, PaymentState.SETTLED, remote.id)
                    order.paid.pop(index, None)
                    raise failures.forgotten(index + 1, remote.id) from None
            wait_s = min(max(wait_s * POLL_GROWTH, POLL_S), MAX_POLL_S)
        return remote

    async def _download(self, url: str) -> bytes:
        for delay_s in (*DOWNLOAD_DELAYS_S, None):  # by hand, as `WaveSpeedApi._repeat` says
            try:
                return await fetch(
                    url,
                    max_bytes=MAX_BYTES,
                    allow_http=self._settings.allow_http,
                    use_proxy=True,
                    backend=self._backend,
                )
            except ImageRejected:
                if delay_s is None:
                    raise
            await self._sleep(delay_s)
        raise AssertionError("unreachable")

    async def _uploaded(self, api: WaveSpeedApi, reference: Reference) -> str:
        first = reference.pictures[0]
        if (url := self._uploads.get(first.sha256)) is None:
            form = await asyncio.to_thread(upload_form, first)
            url = self._uploads[first.sha256] = await api.upload(*form)
        return url

    async def _hosted_model(self, api: WaveSpeedApi, order: Order) -> HostedModel:
        """The model's parameters as WaveSpeed describes them, else those that are safe to send."""
        if not order.missing:
            return self._models.get(self._model, HostedModel())
        if (model := self._models.get(self._model)) is None:
            try:
                schema = await api.model_schema(self._model)
            except (Refused, Unavailable) as error:
                _LOG.info(
                    "WaveSpeed does not describe the parameters of %s: %s", self._model, error
                )
                schema = None
            model = HostedModel() if schema is None else HostedModel.from_schema(schema)
            self._models[self._model] = model
        return model

    async def _price_usd(self, api: WaveSpeedApi, inputs: Mapping[str, Any]) -> float:
        if self._settings.wavespeed_price_usd is not None:
            return self._settings.wavespeed_price_usd
        key = str(sorted((k, v) for k, v in inputs.items() if k not in ("prompt", "image")))
        if (price_usd := self._prices.get(key)) is None:
            try:
                price_usd = await api.price_usd(self._model, inputs)
            except (Refused, Unavailable) as error:
                _LOG.info("WaveSpeed does not quote a price for %s: %s", self._model, error)
                price_usd = DOCUMENTED_PRICE_USD
            self._prices[key] = price_usd
        return price_usd


async def check(settings: Settings) -> Sequence[Check]:
    """Whether the key works and money is left, for `castmate doctor`; asking is free."""
    client = WaveSpeedClient(settings)
    try:
        balance_usd = await client.balance_usd()
    except Unavailable as error:
        return [Check(client.name, False, settings.wavespeed_base_url, str(error))]
    finally:
        await client.aclose()
    fix = f"Top up the account, or remove {client.name} from CASTMATE_CLIENTS."
    found = f"{settings.wavespeed_base_url} accepts the key; ${balance_usd:.2f} left"
    return [Check(client.name, balance_usd > 0, found, fix)]

"""A process of the crash test: takes submits on stdin, acknowledges on stdout, works, gets killed.

Run as `python -m tests.castmate.jobs.node DATABASE_URL DATA_DIR HOSTED_URL LEASE_S`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import httpx2
import numpy as np

from castmate.clients.base import Progress, ProgressCallback
from castmate.clients.payments import Payments, PaymentState
from castmate.errors import CastmateError, MaybeCharged
from castmate.images import Reference, encode
from castmate.jobs.budget import Budget
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.queue import Limits
from castmate.jobs.storage import Storage
from castmate.jobs.worker import Worker
from castmate.schema import GeneratedImage, GenerateRequest, GenerateResult
from tests.doubles import picture

PRICE_USD = 0.1
POLL_S = 0.02


class PayingClient:
    """Keeps the rules of payments, over real HTTP; a picture's tag is its seed and its number."""

    name = "hosted"

    def __init__(self, url: str) -> None:
        self._http = httpx2.AsyncClient(base_url=url, timeout=10, trust_env=False)

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        assert payments is not None
        images = []
        for index in range(request.num_images):
            remote_id = await self._submitted(request, index, payments)
            while (await self._http.get(f"/result/{remote_id}")).text != "completed":
                await asyncio.sleep(POLL_S)
            await payments.move(index, PaymentState.SETTLED)
            pixels = np.full((request.height, request.width, 3), request.seed % 256, np.uint8)
            data = encode(pixels, request.output_format)
            seed = request.seed + index
            images.append(
                GeneratedImage(
                    data=data,
                    output_format=request.output_format,
                    width=request.width,
                    height=request.height,
                    seed=seed,
                )
            )
            if on_progress:
                on_progress(Progress(index + 1, request.num_images))
        cost = PRICE_USD * len(images)
        return GenerateResult(tuple(images), self.name, "m", {"total": 1.0}, (), cost)

    async def _submitted(self, request: GenerateRequest, index: int, payments: Payments) -> str:
        known = {payment.index: payment for payment in await payments.known()}
        payment = known.get(index)
        if payment is None:
            await payments.reserve(index, self.name, PRICE_USD)
            answer = await self._http.post(f"/submit/{request.seed}-{index}")
            await payments.move(index, PaymentState.SUBMITTED, answer.text)
            return answer.text
        if payment.remote_id is None:
            await payments.move(index, PaymentState.UNKNOWN)
            raise MaybeCharged(f"The reply to picture {index} was lost.")
        return payment.remote_id

    async def aclose(self) -> None:
        await self._http.aclose()


async def main(database_url: str, data_dir: str, hosted_url: str, lease_s: str) -> None:
    storage = Storage.open(None, Path(data_dir))
    limits = Limits(queue_limit=1000, lease_s=float(lease_s), max_deaths=20)
    ledger = Ledger(await open_database(database_url), storage, limits)
    Worker(ledger, PayingClient(hosted_url), budget=Budget(ledger.database), slots=4).start()
    reference = Reference.from_bytes(picture(), "red.png")

    async def submit(key: str) -> None:
        seed, num_images = map(int, key.split("-"))
        values = {"prompt": "waving", "image": "red.png", "size": "512*512"}
        request = GenerateRequest.parse(values | {"seed": seed, "num_images": num_images})
        try:
            prediction = await ledger.submit(request, reference, idempotency_key=key)
        except CastmateError as error:
            print(f"refused {key} {error}", flush=True)
        else:
            print(f"acknowledged {key} {prediction.id}", flush=True)

    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    print("ready", flush=True)
    submits = set()
    while line := await lines.readline():
        task = asyncio.create_task(submit(line.decode().strip()))
        submits.add(task)
        task.add_done_callback(submits.discard)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    asyncio.run(main(*sys.argv[1:]))

"""How far a prediction is, for processes that do not draw it.

Whoever draws knows every step at once. The others read it from the ledger, where a worker writes it
once a second at most, for all that it draws together; what is drawn within a second is not written.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from typing import Final, Self

from castmate.clients.base import Progress
from castmate.errors import CastmateError
from castmate.images import preview
from castmate.jobs.claims import Claim, Claims
from castmate.jobs.storage import PREVIEWS, Storage, output_name
from castmate.schema import GeneratedImage, OutputFormat

WRITE_S: Final = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """A finished picture of a request whose others are still drawn; its preview is stored."""

    name: str
    width: int
    height: int
    seed: int
    has_nsfw: bool


@dataclass(frozen=True)
class Written:
    """What stands in the ledger.

    Attributes:
        step: Denoise steps done, over all pictures.
        total: Denoise steps in all.
        pictures: Those that are finished.
    """

    step: int
    total: int
    pictures: tuple[Shown, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `to_json` gave."""
        values = json.loads(text)
        return cls(
            values["step"], values["total"], tuple(Shown(**one) for one in values["pictures"])
        )

    def to_json(self) -> str:
        """As it stands in the ledger."""
        return json.dumps(asdict(self), separators=(",", ":"))


class Writer:
    """Writes how far the predictions of one worker are."""

    def __init__(self, claims: Claims, storage: Storage) -> None:
        """Nothing is written before `run`."""
        self._claims, self._storage = claims, storage
        self._latest: dict[str, tuple[Claim, Progress]] = {}
        self._stored: dict[str, tuple[Shown, ...]] = {}
        self._moved = asyncio.Event()

    def moved(self, claim: Claim, progress: Progress) -> None:
        """A prediction has got on."""
        self._latest[claim.id] = claim, progress
        self._stored.setdefault(claim.id, ())
        self._moved.set()

    def ended(self, claim: Claim) -> None:
        """A prediction is no longer drawn here."""
        self._latest.pop(claim.id, None)
        self._stored.pop(claim.id, None)

    async def run(self) -> None:
        """Write for ever; cancel it to end."""
        while True:
            await self._moved.wait()
            await asyncio.sleep(WRITE_S)
            self._moved.clear()
            latest, self._latest = self._latest, {}
            try:
                written = [
                    (
                        claim,
                        Written(progress.step, progress.total, await self._keep(claim, progress)),
                    )
                    for claim, progress in latest.values()
                ]
                if written:
                    await self._claims.show([(claim, one.to_json()) for claim, one in written])
            except CastmateError as error:  # the next second brings another chance
                _log.info("how far predictions are was not written: %s", error)

    async def _keep(self, claim: Claim, progress: Progress) -> tuple[Shown, ...]:
        """Store previews of the pictures that are new."""
        stored = self._stored.get(claim.id, ())
        for number, image in enumerate(progress.images[len(stored) :], len(stored)):
            # Another client may draw other pictures in the same attempt: the name says which.
            digest = hashlib.sha256(image.data).hexdigest()[:16]
            output = output_name(claim.id, claim.attempt, number, image.output_format)
            name = f"{PREVIEWS}/{output}.{digest}.jpg"
            await self._storage.put(name, await asyncio.to_thread(preview, image.data))
            stored += (Shown(name, image.width, image.height, image.seed, image.has_nsfw),)
        if claim.id in self._stored:  # it may have ended meanwhile
            self._stored[claim.id] = stored
        return stored


class Reader:
    """What is new of a prediction that another process draws; for one that follows it."""

    def __init__(self, storage: Storage) -> None:
        """Nothing is known yet."""
        self._storage = storage
        self._seen: Written | None = None
        self._images: tuple[GeneratedImage, ...] = ()

    async def read(self, text: str | None) -> Progress | None:
        """The progress in a row; None if that is nothing new."""
        if text is None or (written := Written.parse(text)) == self._seen:
            return None
        self._seen = written
        for shown in written.pictures[len(self._images) :]:
            try:
                data = await self._storage.get(shown.name)
            except (CastmateError, FileNotFoundError):
                break
            self._images += (
                GeneratedImage(
                    data=data,
                    output_format=OutputFormat.JPEG,
                    width=shown.width,
                    height=shown.height,
                    seed=shown.seed,
                    has_nsfw=shown.has_nsfw,
                ),
            )
        return Progress(written.step, written.total, images=self._images)

"""Where pictures are kept: a folder or an S3-compatible store, under names that nobody reuses."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote, unquote

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import (
    AzureStore,
    GCSStore,
    LocalStore,
    MemoryStore,
    ObjectStore,
    S3Store,
    from_url,
)

from castmate.errors import CastmateError, SettingsError, Unavailable
from castmate.files import make_private_folder, set_mode
from castmate.images import PREVIEW_SIDE, preview
from castmate.jobs.database import Durability
from castmate.jobs.secret import own_secret
from castmate.paths import expand

if TYPE_CHECKING:
    from obstore.store import RetryConfig

INPUTS: Final = "inputs"
OUTPUTS: Final = "outputs"
PREVIEWS: Final = "previews"
SHEETS: Final = "sheets"
PREVIEW_SIDES: Final = (256, 512, 768, 1024)
CHARACTERS: Final = "characters"
UPLOADS: Final = "uploads"
DAY_S: Final = 86_400
UPLOADS_KEPT_S: Final = 7.0 * DAY_S
SIGNED_FOR_S: Final = 24 * 3600.0

ANSWER_S: Final = 10.0  # for a bucket's answer, besides the time that the bytes take
BYTES_PER_S: Final = 2**20  # that a bucket moves at least
# Left to itself obstore tries for minutes; whoever calls us tries again, and can say why it waits.
_RETRIES: Final[RetryConfig] = {
    "max_retries": 3,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1)},
    "retry_timeout": timedelta(seconds=5),
}
_OS_ERROR: Final = re.compile(r"\(os error (\d{1,4})\)")
_BLOCK: Final = 4096
_LINK: Final = re.compile(r"/files/([0-9]{1,19})-([0-9a-f]{64})/(.+)")
_PREVIEW: Final = re.compile(rf"{PREVIEWS}/(.+)\.({'|'.join(map(str, PREVIEW_SIDES))})\.jpg")
_log = logging.getLogger(__name__)
_SIGNING = (S3Store, GCSStore, AzureStore)


@dataclass(frozen=True)
class StoredObject:
    """One thing in the storage."""

    name: str
    num_bytes: int
    modified: float


class Storage:
    """Reads and writes whole objects; nobody ever sees a part of one."""

    def __init__(
        self,
        store: ObjectStore,
        secret: bytes,
        durability: Durability = Durability.PROCESS,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._store, self._secret, self._durability = store, secret, durability
        self._answer_s = answer_s
        self._folder = store.prefix if isinstance(store, LocalStore) else None
        self._making: dict[str, asyncio.Lock] = {}

    @classmethod
    def open(
        cls,
        url: str | None,
        data_dir: Path,
        *,
        secret: str | None = None,
        durability: Durability = Durability.PROCESS,
        answer_s: float = ANSWER_S,
    ) -> Self:
        """Open a folder, or a bucket whose credentials are in the environment.

        Args:
            url: `s3://bucket/prefix` or `file:///folder`; None is the folder `files` in `data_dir`.
            data_dir: Holds the secret that signs URLs, where none is given.
            secret: Signs URLs; replicas that serve one another's files share it.
            durability: `power` flushes files and their folders to the disk.
            answer_s: How long a bucket may take to answer, besides a second for each MiB.

        Raises:
            SettingsError: The URL is wrong, or the folder cannot be written.
        """
        try:
            if url is None or url.startswith("file://"):
                named = unquote(url.removeprefix("file://")) if url else data_dir / "files"
                folder = expand(Path(named))
                make_private_folder(folder)
                store: ObjectStore = LocalStore(folder, automatic_cleanup=False)
            else:
                # No client options: they would replace all that AWS_* variables say of the client.
                store = from_url(url, retry_config=_RETRIES)
        except (BaseError, OSError, ValueError) as error:
            raise SettingsError(
                f"CASTMATE_STORAGE_URL: {url or data_dir / 'files'} cannot be used "
                f"({_first_line(error)}); allowed: s3://bucket/prefix or file:///a/folder"
            ) from None
        try:
            signing = secret.encode() if secret else own_secret(data_dir)
        except OSError as error:
            raise SettingsError(
                f"CASTMATE_DATA_DIR: {data_dir} cannot be written ({error.strerror}). Make room or "
                "name another folder."
            ) from None
        return cls(store, signing, durability, answer_s)

    async def put(self, name: str, data: bytes) -> None:
        """Write an object once; the same bytes again change nothing.

        Raises:
            CastmateError: Something else has this name.
            Unavailable: The disk is full, or the store cannot be reached.
        """
        path = self.local_path(name)
        with self._translating(name):
            self._check_folder()
            if path is not None:
                make_private_folder(path.parent)
            try:
                async with self._in_time(len(data)):
                    await obstore.put_async(self._store, name, data, mode="create")
            except AlreadyExistsError:
                if await self.get(name) != data:
                    raise CastmateError(
                        f"{name} is in the storage with other content: another ledger writes "
                        "there. Give each its own CASTMATE_STORAGE_URL."
                    ) from None
            if path is not None:
                set_mode(path, 0o600)
                if self._durability is Durability.POWER:
                    await asyncio.to_thread(_flush, path)

    async def get(self, name: str) -> bytes:
        """Read an object.

        Raises:
            FileNotFoundError: There is none.
            Unavailable: The store cannot be reached.
        """
        with self._translating(name):
            async with self._in_time():
                found = await obstore.get_async(self._store, name)
            async with self._in_time(found.meta["size"]):
                return bytes(await found.bytes_async())

    async def check(self) -> None:
        """Whether pictures can be stored now: that what has them is there, and has room.

        Raises:
            Unavailable: They cannot.
        """
        if self._folder is None:
            await self.exists(INPUTS)
            return
        with self._translating("its folder"):
            self._check_folder()
            await asyncio.to_thread(_try_to_write, Path(self._folder))

    async def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        with contextlib.suppress(FileNotFoundError), self._translating(name):
            async with self._in_time():
                await obstore.head_async(self._store, name)
            return True
        return False

    async def delete(self, name: str) -> None:
        """Remove an object; it is no error if there is none."""
        with contextlib.suppress(FileNotFoundError), self._translating(name):
            async with self._in_time():
                await obstore.delete_async(self._store, name)

    async def delete_picture(self, name: str) -> None:
        """Remove a picture and its previews."""
        await self.delete(name)
        for side in PREVIEW_SIDES:
            await self.delete(preview_name(name, side))

    async def list(self, prefix: str) -> AsyncIterator[list[StoredObject]]:
        """Everything below `prefix`, a few hundred at a time."""
        with self._translating(prefix):
            chunks = obstore.list(self._store, prefix, chunk_size=200)
            while True:
                async with self._in_time():
                    if (chunk := await anext(chunks, None)) is None:
                        return
                yield [
                    StoredObject(meta["path"], meta["size"], meta["last_modified"].timestamp())
                    for meta in chunk
                ]

    async def preview(self, name: str, side: int = PREVIEW_SIDE) -> bytes:
        """A small JPEG of a stored picture; made once, also when many ask at the same time.

        Args:
            name: Of the picture.
            side: Pixels of its longer side, at most; one of PREVIEW_SIDES.

        Raises:
            FileNotFoundError: There is no such picture.
        """
        small = preview_name(name, side)
        lock = self._making.setdefault(small, asyncio.Lock())
        async with lock:
            try:
                return await self.get(small)
            except FileNotFoundError:
                made = await asyncio.to_thread(preview, await self.get(name), side=side)
                await self.put(small, made)
                return made
            finally:
                self._making.pop(small, None)

    async def make_if_preview(self, name: str) -> None:
        """Make what has an address before anybody has looked at it: a small picture."""
        if match := _PREVIEW.fullmatch(name):
            with contextlib.suppress(FileNotFoundError):
                await self.preview(match[1], int(match[2]))

    def local_path(self, name: str) -> Path | None:
        """Where an object is on this machine, if the storage is a folder."""
        return None if self._folder is None else Path(self._folder) / name

    def signed_url(self, name: str, now: float, expires_in_s: float = SIGNED_FOR_S) -> str:
        """An address that works without a key until it expires.

        A store that signs gives its own URL; otherwise it is a `link`, which the server puts behind
        its own address.
        """
        if isinstance(self._store, _SIGNING):
            return obstore.sign(self._store, "GET", name, timedelta(seconds=expires_in_s))
        return self.link(name, now, expires_in_s)

    def link(self, name: str, now: float, expires_in_s: float = SIGNED_FOR_S) -> str:
        """A path of our server that works without a key until it expires.

        It ends with the suffix of the name: there are callers who look at that.
        """
        expires = int(now + expires_in_s)
        return f"/files/{expires}-{self._sign(name, expires)}/{quote(name)}"

    def verify(self, path: str, now: float) -> str | None:
        """The name behind a path that `link` gave and that has not expired."""
        if not (match := _LINK.fullmatch(path)):
            return None
        expires, signature, name = match[1], match[2], unquote(match[3])
        known = self._sign(name, int(expires))
        return name if hmac.compare_digest(known, signature) and now <= int(expires) else None

    def sign(self, purpose: str, text: str) -> str:
        """A signature that only we can make, in hex; one for a purpose is none for another."""
        words = f"{purpose}\0{text}".encode()
        return hmac.new(self._secret, words, hashlib.sha256).hexdigest()

    def _sign(self, name: str, expires: int) -> str:
        return self.sign("file", f"{expires}\n{name}")

    def _check_folder(self) -> None:
        """Refuse to work without the folder: a disk that is away comes back, and must be empty."""
        if self._folder is not None and not Path(self._folder).is_dir():
            raise Unavailable(
                "The storage's folder is away (see CASTMATE_STORAGE_URL); it is used again as soon "
                "as it is back."
            )

    def _in_time(self, num_bytes: int = 0) -> asyncio.Timeout:
        """A deadline for a bucket's answer; a disk takes what it takes."""
        limit_s = self._answer_s + num_bytes / BYTES_PER_S
        return asyncio.timeout(None if self._folder is not None else limit_s)

    @contextlib.contextmanager
    def _translating(self, name: str) -> Iterator[None]:
        try:
            yield
        except (NotFoundError, FileNotFoundError, ValueError):  # ValueError: no name, like ../a
            self._check_folder()
            raise FileNotFoundError(name) from None
        except (BaseError, OSError) as error:
            _log.info("the storage failed at %s: %s", name, _first_line(error))
            raise Unavailable(
                f"The storage failed at {name}: {_reason(error)} (see CASTMATE_STORAGE_URL)."
            ) from error


def memory_storage(secret: bytes = b"secret") -> Storage:
    """A storage that ends with the process, for tests and benchmarks."""
    return Storage(MemoryStore(), secret)


def output_name(prediction_id: str, attempt: int, picture: int, suffix: str) -> str:
    """The name of a picture: with the attempt in it, no late process overwrites a result."""
    return f"{OUTPUTS}/{prediction_id}-{attempt}/{picture}.{suffix}"


def preview_name(name: str, side: int) -> str:
    """The name of a small picture of a stored one."""
    return f"{PREVIEWS}/{name}.{side}.jpg"


def _reason(error: Exception) -> str:
    """What the system said, without the places that it named: callers read this."""
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if found := _OS_ERROR.search(str(error)):
        return os.strerror(int(found[1]))
    return f"it answered with {type(error).__name__}; the log says more"


def _try_to_write(folder: Path) -> None:
    """Write a block and remove it."""
    path = folder / f".{secrets.token_hex(8)}.check"
    try:
        path.write_bytes(bytes(_BLOCK))
    finally:
        path.unlink(missing_ok=True)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _flush(path: Path) -> None:
    """Flush a file and the folders that lead to it, so that it survives a power cut."""
    for place in (path, path.parent, path.parent.parent):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

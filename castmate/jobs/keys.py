"""API keys: who may call the server, what for, and how much; hashed where they are kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row, case, insert, select, update

from castmate.errors import InvalidRequest, Problem
from castmate.jobs.database import Database, Transaction
from castmate.jobs.tables import api_keys, queue

PREFIX: Final = "wsk_"
LOCAL_KEY: Final = "local"
"""The name under which callers without an API key submit: stdio, and a server without keys."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECRET_BYTES: Final = 32
_SECRET: Final = re.compile(PREFIX + r"[A-Za-z0-9]{32,128}")
_SECRET_RULE: Final = f"{PREFIX} and 32 to 128 random letters and digits"
_MICRO: Final = 1_000_000
_KEYS_AT_ONCE: Final = 4
_LONGEST_AHEAD_S: Final = 3600.0


class Scope(StrEnum):
    """What a key may be used for."""

    GENERATE = "generate"  # submit, upload, cancel, delete
    READ = "read"  # look at one's predictions, models, prices and balance
    METRICS = "metrics"  # /metrics
    ADMIN = "admin"  # /api/v3/status: the queue and the spending of every key


@dataclass(frozen=True)
class Key:
    """One API key, without its secret.

    Attributes:
        name: Under which its predictions and payments are in the ledger.
        scopes: What it may be used for.
        per_minute: Requests other than looking at a prediction; None is no limit.
        concurrency: Predictions that may wait or run at a time; None is no limit.
        max_usd: What may be spent for it in all; None leaves it to CASTMATE_MAX_USD_PER_KEY.
        weight: Its share of the clients among other keys.
        created: Seconds since 1970.
        revoked: The same, or None while it is valid.
    """

    name: str
    scopes: frozenset[Scope] = frozenset(Scope)
    per_minute: int | None = None
    concurrency: int | None = None
    max_usd: float | None = None
    weight: float = 1.0
    created: float = 0.0
    revoked: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The key as JSON."""
        return asdict(self) | {"scopes": sorted(self.scopes)}


LOCAL: Final = Key(LOCAL_KEY)
"""Who calls where no key was ever created."""


def share_of(limit: int) -> int:
    """How much of something that is bounded one key may hold, so that others always get some."""
    return -(-limit // _KEYS_AT_ONCE)


class KeyRing:
    """Every key of a ledger; whatever changes holds for the next request, in every process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        *,
        scopes: Collection[Scope] = (Scope.GENERATE, Scope.READ),
        per_minute: int | None = 600,
        concurrency: int | None = None,
        max_usd: float | None = None,
        weight: float = 1.0,
        secret: str | None = None,
    ) -> tuple[Key, str]:
        """Make a key.

        Args:
            name: Whose it is.
            scopes: What it may be used for.
            per_minute: See `Key`.
            concurrency: See `Key`.
            max_usd: See `Key`.
            weight: See `Key`.
            secret: By default a random one. With one of the caller's, a key that has this name and
                this secret already is returned as it is, so that a deployment may say so twice.

        Returns:
            The key and its secret, which is kept nowhere.

        Raises:
            InvalidRequest: The name is taken or a value is not allowed.
        """
        problems = [
            Problem(parameter, f"{value!r} is not allowed", allowed)
            for parameter, value, allowed, ok in (
                ("name", name, "letters, digits and . _ -, at most 64", _NAME.fullmatch(name)),
                ("name", name, f"another name than {LOCAL_KEY!r}", name != LOCAL_KEY),
                ("scopes", [*scopes], ", ".join(Scope), len(scopes) > 0),
                ("per_minute", per_minute, "1 or more", per_minute is None or per_minute > 0),
                ("concurrency", concurrency, "1 or more", concurrency is None or concurrency > 0),
                ("max_usd", max_usd, "0 or more", max_usd is None or 0 <= max_usd < 1e9),
                ("weight", weight, "0.01 to 100", 0.01 <= weight <= 100),
                ("secret", "...", _SECRET_RULE, secret is None or _SECRET.fullmatch(secret)),
            )
            if not ok
        ]
        if problems:
            raise InvalidRequest(problems)
        given, secret = secret, secret or PREFIX + secrets.token_hex(_SECRET_BYTES)
        values = {
            "name": name,
            "secret_hash": _hash(secret),
            "scopes": " ".join(sorted(scopes)),
            "per_minute": per_minute,
            "concurrency": concurrency,
            "max_micro_usd": None if max_usd is None else round(max_usd * _MICRO),
            "weight": weight,
        }

        def work(tx: Transaction) -> Key:
            # One at a time: many replicas may start at once.
            tx.connection.execute(select(queue.c.id).with_for_update()).one()
            known = tx.connection.execute(_named(name)).one_or_none()
            if known is not None and given and known.secret_hash == _hash(given):
                return _key(known)
            if known is not None:
                raise InvalidRequest(
                    [Problem("name", f"there is, or was, a key {name!r}", "a new name")]
                )
            made = insert(api_keys).returning(api_keys)
            return _key(tx.connection.execute(made, values | {"created": tx.now}).one())

        return await self._database.run(work), secret

    async def list(self) -> Sequence[Key]:
        """Every key, revoked ones too, the oldest first."""
        query = select(api_keys).order_by(api_keys.c.created, api_keys.c.name)
        return await self._database.run(
            lambda tx: [_key(row) for row in tx.connection.execute(query)]
        )

    async def revoke(self, name: str) -> Key:
        """End a key; the next request with it is refused.

        Raises:
            InvalidRequest: There is none of this name.
        """

        def work(tx: Transaction) -> Key:
            row = tx.connection.execute(_named(name)).one_or_none()
            if row is None:
                raise InvalidRequest(
                    [Problem("name", f"there is no key {name!r}", "a name of `castmate keys list`")]
                )
            if row.revoked is None:
                ended = update(api_keys).where(api_keys.c.name == name).values(revoked=tx.now)
                row = tx.connection.execute(ended.returning(api_keys)).one()
            return _key(row)

        return await self._database.run(work)

    async def find(self, secret: str) -> Key | None:
        """The valid key of a secret, or None.

        The secret is looked up by its hash, so the time that it takes tells nothing about others.
        """
        known = _hash(secret)
        query = select(api_keys).where(api_keys.c.secret_hash == known)
        row = await self._database.run(lambda tx: tx.connection.execute(query).one_or_none())
        if row is None or not hmac.compare_digest(row.secret_hash, known) or row.revoked:
            return None
        return _key(row)

    async def named(self, name: str) -> Key | None:
        """The valid key of a name, or None."""
        row = await self._database.run(lambda tx: tx.connection.execute(_named(name)).one_or_none())
        return None if row is None or row.revoked else _key(row)

    async def configured(self) -> bool:
        """Whether a key was ever created: then everybody needs one, also after a revocation."""
        query = select(api_keys.c.name).limit(1)
        return await self._database.run(
            lambda tx: tx.connection.execute(query).one_or_none() is not None
        )

    async def count(self, used: Mapping[str, float]) -> Mapping[str, float]:
        """Add what keys have used of their rates at one server to what they used at all others.

        Args:
            used: Seconds of a key's rate, by its name.

        Returns:
            How many seconds each of them is ahead of its rate.
        """

        def work(tx: Transaction) -> dict[str, float]:
            due = api_keys.c.rate_due
            # What lies further ahead was written before the clock was set back.
            plausible = due.between(tx.now, tx.now + _LONGEST_AHEAD_S)
            ahead = {}
            for name, seconds in sorted(used.items()):  # in one order, so that nobody deadlocks
                later = (
                    update(api_keys)
                    .where(api_keys.c.name == name)
                    .values(rate_due=case((plausible, due), else_=tx.now) + seconds)
                    .returning(due)
                )
                if (until := tx.connection.execute(later).scalar_one_or_none()) is not None:
                    ahead[name] = float(until) - tx.now
            return ahead

        return await self._database.run(work)

    async def admit(self, secret: str | None) -> Key | None:
        """Who calls with `secret`, or with none: their key, `LOCAL` where there are no keys.

        None: nobody whom we know.
        """
        if secret is not None and (key := await self.find(secret)) is not None:
            return key
        return None if await self.configured() else LOCAL


def _named(name: str) -> Any:
    return select(api_keys).where(api_keys.c.name == name)


def _hash(secret: str) -> str:
    """Secrets are 256 random bits: no salt and no slow hash makes them harder to guess."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def _key(row: Row[Any]) -> Key:
    return Key(
        row.name,
        frozenset(map(Scope, row.scopes.split())),
        row.per_minute,
        row.concurrency,
        None if row.max_micro_usd is None else row.max_micro_usd / _MICRO,
        row.weight,
        row.created,
        row.revoked,
    )

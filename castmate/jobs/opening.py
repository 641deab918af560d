"""Opens the ledger's database: SQLite or PostgreSQL, as its URL says."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from castmate.errors import SettingsError
from castmate.jobs.database import Clock, Database, Durability
from castmate.jobs.sqlite import SqliteDatabase
from castmate.paths import expand
from castmate.settings import Settings

_ALLOWED: Final = "sqlite:////path/to/a/file or postgresql://user:password@host/name"


def database_url(settings: Settings) -> str:
    """Where the ledger is; by default in the data folder."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    path = settings.data_dir.absolute() / "ledger.sqlite3"
    return URL.create("sqlite", database=str(path)).render_as_string()


async def open_database(
    url: str,
    durability: Durability = Durability.PROCESS,
    clock: Clock | None = None,
    *,
    pooled: bool = False,
) -> Database:
    """Open the ledger's database and bring its tables up to date.

    Args:
        url: `sqlite:////folder/ledger.sqlite3` or `postgresql://user@host/name`.
        durability: For SQLite; PostgreSQL follows its own `synchronous_commit`.
        clock: The time, for tests; by default PostgreSQL's own, so that replicas agree.
        pooled: Whether a pooler in transaction mode is between; for PostgreSQL.

    Raises:
        SettingsError: The URL is wrong, its driver is not installed, or the ledger is newer.
        Unavailable: It cannot be reached.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError(f"CASTMATE_DATABASE_URL: not a URL; allowed: {_ALLOWED}") from None
    kind = parsed.drivername.partition("+")[0]
    if kind == "sqlite" and "?" in url:
        raise SettingsError(
            "CASTMATE_DATABASE_URL: a SQLite file takes no options after `?`. Write %3F where the "
            "name of a folder holds a question mark, %23 for # and %25 for %."
        )
    if kind == "sqlite" and parsed.database and parsed.database != ":memory:":
        path = str(expand(Path(parsed.database)))
        return await SqliteDatabase.open(path, durability, clock)
    if kind in ("postgresql", "postgres"):
        from castmate.jobs.postgres import PostgresDatabase  # of the extra `postgres`

        return await PostgresDatabase.open(parsed, clock, pooled=pooled)
    raise SettingsError(
        f"CASTMATE_DATABASE_URL: {parsed.drivername!r} cannot hold a ledger; allowed: {_ALLOWED}"
    )

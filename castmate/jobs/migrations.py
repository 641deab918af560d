"""Numbered migrations: they bring an older ledger up to `tables.py`, while servers use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, inspect, text

from castmate.errors import SettingsError

READABLE_FROM: Final = 9
"""The oldest release, by the number of its migrations, that can work with what this one leaves.

In a rolling update old and new servers share a ledger, so a migration only adds: tables, indexes,
and columns that may be left out. One that does more raises this to its own number, and then every
server has to be stopped first.
"""

# Applied in order, once each; a published one is never edited. Both engines read these types.
MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        """create table predictions (
             id text primary key not null, key_name text not null, idempotency_key text,
             body_hash text not null, state text not null, priority integer not null,
             turn double precision not null, request text not null, input text not null,
             owner text, attempt integer not null, deaths integer not null,
             cancel_requested integer not null, lease_until double precision, result text,
             error text, created double precision not null, started double precision,
             finished double precision)""",
        """create unique index one_per_idempotency_key on predictions (key_name, idempotency_key)
             where idempotency_key is not null""",
        """create index waiting_by_key on predictions (key_name, turn) where state = 'created'""",
        """create index running_by_lease on predictions (lease_until)
             where state = 'processing'""",
        """create index predictions_by_finish on predictions (finished)""",
        """create table attempts (
             prediction_id text not null references predictions (id), attempt integer not null,
             owner text not null, started double precision not null, finished double precision,
             outcome text, client text, error text, primary key (prediction_id, attempt))""",
        """create table queue (
             id integer primary key not null, virtual_time double precision not null)""",
        """insert into queue (id, virtual_time) values (1, 0)""",
        """create table payments (
             prediction_id text not null, picture integer not null, key_name text not null,
             client text not null, state text not null, price_micro_usd bigint not null,
             remote_id text, attempt integer not null, day text not null,
             reserved double precision not null, moved double precision not null,
             primary key (prediction_id, picture))""",
        """create index payments_by_day on payments (day)""",
        """create index payments_by_key on payments (key_name)""",
    ),
    (
        """alter table predictions add column note text""",
        """create table api_keys (
             name text primary key not null, secret_hash text not null, scopes text not null,
             per_minute integer, concurrency integer, max_micro_usd bigint,
             weight double precision not null, created double precision not null,
             revoked double precision)""",
        """create unique index api_keys_by_hash on api_keys (secret_hash)""",
        """create table webhooks (
             prediction_id text primary key not null, url text not null, base_url text not null,
             tries integer not null, next_try double precision not null,
             finished double precision, error text)""",
        """create index webhooks_to_tell on webhooks (next_try) where finished is null""",
    ),
    (
        """alter table predictions add column may_spend integer not null default 1""",
        """create table characters (
             id text primary key not null, key_name text not null, name text not null,
             content_hash text not null, pictures text not null,
             created double precision not null)""",
        """create unique index one_character_of_a_content on characters (key_name, content_hash)""",
        """create table consents (
             key_name text not null, day text not null, primary key (key_name, day))""",
    ),
    (
        """alter table predictions add column waits integer not null default 0""",
        """alter table predictions add column waits_since double precision""",
        """alter table predictions add column waits_for text""",
        """alter table predictions add column not_before double precision""",
        """alter table predictions add column keep_s double precision""",
    ),
    (
        """create table named_prices (
             id text primary key not null, key_name text not null,
             price_micro_usd bigint not null, named double precision not null)""",
    ),
    ("""alter table predictions drop column priority""",),
    (
        """create index predictions_by_input on predictions (input)""",
        """create table pictures (
             name text primary key not null, key_name text not null, sha256 text not null,
             num_bytes bigint not null, until double precision not null)""",
        """create index pictures_by_content on pictures (key_name, sha256)""",
        """create index pictures_by_end on pictures (until)""",
        """create table character_pictures (
             character_id text not null, picture text not null,
             primary key (character_id, picture))""",
        """create index characters_with_picture on character_pictures (picture)""",
    ),
    (
        """create table storyboards (
             id text primary key not null, key_name text not null, idempotency_key text,
             body_hash text not null, request text not null, created double precision not null)""",
        """create unique index one_storyboard_per_idempotency_key
             on storyboards (key_name, idempotency_key) where idempotency_key is not null""",
        """create index storyboards_by_body on storyboards (key_name, body_hash)""",
        """create table scenes (
             storyboard_id text not null references storyboards (id), number integer not null,
             prediction_id text not null, primary key (storyboard_id, number))""",
        """create index scenes_by_prediction on scenes (prediction_id)""",
    ),
    (
        """alter table predictions add column traceparent text""",
        """alter table predictions add column progress text""",
        """create index predictions_of_key on predictions (key_name, id)""",
        """create index predictions_by_end on predictions ((finished + keep_s))""",
    ),
    (
        """alter table predictions add column discarded double precision""",
        """create index predictions_by_discarded on predictions (discarded)""",
        """alter table characters add column discarded double precision""",
    ),
    (
        """alter table predictions add column findable integer""",
        """create index predictions_not_findable on predictions (id)
             where findable is null and state = 'completed'""",
        """create table search_terms (
             key_name text not null, term text not null, prediction_id text not null,
             primary key (key_name, term, prediction_id))""",
    ),
    ("""alter table api_keys add column rate_due double precision""",),
)


def migrate(connection: Connection) -> None:
    """Bring the ledger up to this release, inside the caller's transaction.

    A newer ledger is left as it is, where this release can work with it.

    Raises:
        SettingsError: A newer release has written it, and this one cannot work with it.
    """
    if connection.dialect.name == "postgresql":  # two replicas may start at once
        connection.execute(text("select pg_advisory_xact_lock(7310580)"))
    found = inspect(connection)
    if not found.has_table("castmate_schema"):
        connection.execute(text("create table castmate_schema (number integer not null)"))
        connection.execute(text("insert into castmate_schema (number) values (0)"))
    if "readable_from" not in {each["name"] for each in found.get_columns("castmate_schema")}:
        connection.execute(text("alter table castmate_schema add column readable_from integer"))
    done = connection.execute(text("select number from castmate_schema")).scalar_one()
    if done > len(MIGRATIONS):
        return _check_readable(connection, done)
    if done == len(MIGRATIONS):
        return None
    for statements in MIGRATIONS[done:]:
        for statement in statements:
            connection.execute(text(statement))
    connection.execute(
        text("update castmate_schema set number = :number, readable_from = :readable_from"),
        {"number": len(MIGRATIONS), "readable_from": READABLE_FROM},
    )


def _check_readable(connection: Connection, done: int) -> None:
    readable_from = connection.execute(text("select readable_from from castmate_schema"))
    if (oldest := readable_from.scalar_one()) is None or oldest > len(MIGRATIONS):
        raise SettingsError(
            f"CASTMATE_DATABASE_URL: this ledger has version {done}, and this release works with "
            f"versions up to {len(MIGRATIONS)}; upgrade Castmate or name another database."
        )

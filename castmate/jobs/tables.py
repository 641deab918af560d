"""The ledger's tables, and the numbered migrations that bring an older ledger up to them.

Times are seconds since 1970, money is whole millionths of a dollar, so that caps are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    inspect,
    text,
)

from castmate.errors import SettingsError

metadata: Final = MetaData()

predictions: Final = Table(
    "predictions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key_name", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("body_hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("turn", Double, nullable=False),
    Column("request", Text, nullable=False),
    Column("input", Text, nullable=False),
    Column("owner", Text),
    Column("attempt", Integer, nullable=False),
    Column("deaths", Integer, nullable=False),
    Column("cancel_requested", Integer, nullable=False),
    Column("lease_until", Double),
    Column("result", Text),
    Column("error", Text),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("finished", Double),
    Column("note", Text),
    # 0 where nobody agreed to pay for it; whatever else is a cap.
    Column("may_spend", Integer, nullable=False, server_default="1"),
    # Where no client could draw it: how often it was put back, since when, why, and until when.
    Column("waits", Integer, nullable=False, server_default="0"),
    Column("waits_since", Double),
    Column("waits_for", Text),
    Column("not_before", Double),
    # Seconds for which it is kept once it is final; null is for ever.
    Column("keep_s", Double),
    # The span of the request that submitted it, where requests are traced.
    Column("traceparent", Text),
    # How far it is, for processes that do not draw it: written now and then while it is drawn.
    Column("progress", Text),
    # When the first of its pictures was discarded; null where none is.
    Column("discarded", Double),
)
# The first three cover some rows only, as the migrations say. To say so here, too, would load the
# dialects of both engines, and the command line waits for them.
Index(
    "one_per_idempotency_key",
    predictions.c.key_name,
    predictions.c.idempotency_key,
    unique=True,
)
Index("waiting_by_key", predictions.c.key_name, predictions.c.turn)
Index("running_by_lease", predictions.c.lease_until)
Index("predictions_by_finish", predictions.c.finished)
Index("predictions_by_input", predictions.c.input)
Index("predictions_of_key", predictions.c.key_name, predictions.c.id)
# What is past its time is found by the same words as in the index.
expires: Final = predictions.c.finished + predictions.c.keep_s
Index("predictions_by_end", expires)
Index("predictions_by_discarded", predictions.c.discarded)

attempts: Final = Table(
    "attempts",
    metadata,
    Column("prediction_id", Text, ForeignKey("predictions.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("started", Double, nullable=False),
    Column("finished", Double),
    Column("outcome", Text),
    Column("client", Text),
    Column("error", Text),
)

# Series of pictures that were asked for at once; each scene is a prediction like any other, and a
# scene that is drawn again names a new one.
storyboards: Final = Table(
    "storyboards",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key_name", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("body_hash", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("created", Double, nullable=False),
)
Index(
    "one_storyboard_per_idempotency_key",
    storyboards.c.key_name,
    storyboards.c.idempotency_key,
    unique=True,
)
Index("storyboards_by_body", storyboards.c.key_name, storyboards.c.body_hash)
scenes: Final = Table(
    "scenes",
    metadata,
    Column("storyboard_id", Text, ForeignKey("storyboards.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("prediction_id", Text, nullable=False),
)
Index("scenes_by_prediction", scenes.c.prediction_id)

# One row: whoever locks it is alone with the order of the queue.
queue: Final = Table(
    "queue",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("virtual_time", Double, nullable=False),
)

# Outlives its prediction: caps and `castmate spend` look back further than retention.
payments: Final = Table(
    "payments",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("picture", Integer, primary_key=True),
    Column("key_name", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("price_micro_usd", BigInteger, nullable=False),
    Column("remote_id", Text),
    Column("attempt", Integer, nullable=False),
    Column("day", Text, nullable=False),
    Column("reserved", Double, nullable=False),
    Column("moved", Double, nullable=False),
)
Index("payments_by_day", payments.c.day)
Index("payments_by_key", payments.c.key_name)

# A revoked key stays: its name is never given again, and a server that had keys stays closed.
api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret_hash", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("per_minute", Integer),
    Column("concurrency", Integer),
    Column("max_micro_usd", BigInteger),
    Column("weight", Double, nullable=False),
    Column("created", Double, nullable=False),
    Column("revoked", Double),
)
Index("api_keys_by_hash", api_keys.c.secret_hash, unique=True)

# Who is told when a prediction ends; until then, and until it was told, `finished` is null.
webhooks: Final = Table(
    "webhooks",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_try", Double, nullable=False),
    Column("finished", Double),
    Column("error", Text),
)
Index(
    "webhooks_to_tell",
    webhooks.c.next_try,
    sqlite_where=webhooks.c.finished.is_(None),
    postgresql_where=webhooks.c.finished.is_(None),
)

# Named subjects: their pictures are in the storage for as long as the row is here.
characters: Final = Table(
    "characters",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key_name", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("pictures", Text, nullable=False),
    Column("created", Double, nullable=False),
    # Since when it is kept only to be restored; null where it is in use.
    Column("discarded", Double),
)
character_pictures: Final = Table(
    "character_pictures",
    metadata,
    Column("character_id", Text, primary_key=True),
    Column("picture", Text, primary_key=True),
)
Index(
    "one_character_of_a_content",
    characters.c.key_name,
    characters.c.content_hash,
    unique=True,
)

Index("characters_with_picture", character_pictures.c.picture)

# What callers have sent, once for each key and content. A row has a file; it goes, and then the
# file, when nothing refers to it and `until` has passed.
pictures: Final = Table(
    "pictures",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key_name", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("until", Double, nullable=False),
)
Index("pictures_by_content", pictures.c.key_name, pictures.c.sha256)
Index("pictures_by_end", pictures.c.until)

# Who agreed on which day (UTC) that hosted pictures may be paid.
consents: Final = Table(
    "consents",
    metadata,
    Column("key_name", Text, primary_key=True),
    Column("day", Text, primary_key=True),
)

# Prices that an agent was told of and may pay once, after it has asked its user.
named_prices: Final = Table(
    "named_prices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key_name", Text, nullable=False),
    Column("price_micro_usd", BigInteger, nullable=False),
    Column("named", Double, nullable=False),
)

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

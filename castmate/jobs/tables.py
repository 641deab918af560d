"""The ledger's tables; `migrations.py` brings an older ledger up to them.

Times are seconds since 1970, money is whole millionths of a dollar, so that caps are exact.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

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
    # 1 once `search_terms` has it.
    Column("findable", Integer),
)
# The first three and the last cover some rows only, as the migrations say. To say so here, too,
# would load the dialects of both engines, and the command line waits for them.
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
Index("predictions_not_findable", predictions.c.id)

# By what completed predictions are found, see `castmate.jobs.terms`.
search_terms: Final = Table(
    "search_terms",
    metadata,
    Column("key_name", Text, primary_key=True),
    Column("term", Text, primary_key=True),
    Column("prediction_id", Text, primary_key=True),
)

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
    Column("rate_due", Double),  # when what the key has asked for would be over at its own rate
)
Index("api_keys_by_hash", api_keys.c.secret_hash, unique=True)

# Who is called when a prediction ends; until the call is taken, `finished` is null.
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

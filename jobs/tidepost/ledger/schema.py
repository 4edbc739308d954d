"""The ledger's tables. Every instant is in seconds since 1970 as a float; hours are whole hours since 1970, UTC;
event times are microseconds since 1970, UTC.

A change here needs a migration beside it (`migrations/versions/`) and its number in `REVISION`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

REVISION: Final = "0001"
VERSION_TABLE: Final = "ledger_version"


class SliceState(StrEnum):
    PUBLISHING = "publishing"
    PUBLISHED = "published"
    WITHDRAWN = "withdrawn"


class Position(TypeDecorator[int]):
    """A cursor's position: an integer of up to 39 digits, kept as text of fixed width whose order is that of the
    integers: 10^39 is added, so that negative ones come first."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        if abs(value) >= _ZERO:
            raise ValueError(f"a position of more than 39 digits: {value}")
        return f"{value + _ZERO:040d}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value) - _ZERO


_ZERO: Final = 10**39


# SQLite counts rows up by itself only in a column of exactly the type INTEGER.
Id = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row. `written_by` is the version of tidepost that last migrated the tables.
ledger = Table(
    "ledger",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("written_by", Text, nullable=False),
)

streams = Table(
    "streams",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("identity", JSON, nullable=False),
    Column("pinned", JSON, nullable=False),
    Column("columns", JSON, nullable=False),
    Column("published", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("planned", BigInteger, nullable=False),
    Column("ran_at", Double),
    UniqueConstraint("job", "name"),
)

# Disjoint, non-touching ranges; coalesced by whoever adds to them.
scanned = Table(
    "scanned",
    metadata,
    Column("stream", ForeignKey("streams.id"), primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("start", Position, primary_key=True),
    Column("end", Position, nullable=False),
)

# Disjoint. Where a cut that is done met some, its own took their place.
buckets = Table(
    "buckets",
    metadata,
    Column("stream", ForeignKey("streams.id"), primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("start", Position, primary_key=True),
    Column("end", Position, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("ids", Text),
)

requests = Table(
    "requests",
    metadata,
    Column("id", Id, primary_key=True),
    Column("stream", ForeignKey("streams.id"), nullable=False),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("start", Position),
    Column("end", Position),
    Column("at", Double, nullable=False),
    Column("by", Text, nullable=False),
    UniqueConstraint("stream", "key"),
    Index(None, "stream", "at"),
)

# The tally is written when a slice begins, and counts once the cut is done.
cuts = Table(
    "cuts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("stream", ForeignKey("streams.id"), nullable=False),
    Column("request", ForeignKey("requests.id"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("lane", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("start", Position, nullable=False),
    Column("end", Position, nullable=False),
    Column("estimated", BigInteger),
    Column("state", Text, nullable=False),
    Column("scanned", BigInteger, nullable=False),
    Column("published", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("known", BigInteger, nullable=False),
    Column("superseded", BigInteger, nullable=False),
    Column("waiting", BigInteger, nullable=False),
    Column("null_cursors", BigInteger, nullable=False),
    Column("ids", Text, nullable=False),
    Column("late", Double, nullable=False),
    Column("sequence", BigInteger),
    Column("done_at", Double),
    UniqueConstraint("request", "ordinal"),
    Index(None, "stream", "state", "kind", "id"),
    Index(None, "stream", "done_at"),
)

cut_rejects = Table(
    "cut_rejects",
    metadata,
    Column("cut", ForeignKey("cuts.id"), primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("stream", ForeignKey("streams.id"), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Index(None, "stream", "reason", "rows"),
    Index(None, "stream", "cut"),
)

slices = Table(
    "slices",
    metadata,
    Column("stream", ForeignKey("streams.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("cut", ForeignKey("cuts.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("held", Text),
    Column("rows", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("event_min", BigInteger),
    Column("event_max", BigInteger),
    Column("begun_at", Double, nullable=False),
    Column("published_at", Double),
    Index(None, "stream", "state", "sequence", "rows", "size", "published_at"),
    # Of slices that are being published only, as the migration says: to say it here would import all of PostgreSQL's
    # dialects in every process.
    Index("uq_slices_publishing", "stream", unique=True),
)

# The days since 1970 of the inferences that a slice's labels join: only slices of a day hold versions of its labels.
joined = Table(
    "joined",
    metadata,
    Column("stream", BigInteger, primary_key=True),
    Column("day", BigInteger, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    ForeignKeyConstraint(["stream", "sequence"], ["slices.stream", "slices.sequence"]),
)

# `width` files a part by how long a span of event times it covers (`slices.WIDTHS`), so that a window is found
# among parts of one width in an ordinary index.
parts = Table(
    "parts",
    metadata,
    Column("stream", BigInteger, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("path", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("event_min", BigInteger, nullable=False),
    Column("event_max", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("token", Text, nullable=False),
    Column("batch_id", Text),
    Column("purged_at", Double),
    ForeignKeyConstraint(["stream", "sequence"], ["slices.stream", "slices.sequence"]),
    Index(None, "stream", "width", "event_min", "event_max"),
)

part_hours = Table(
    "part_hours",
    metadata,
    Column("stream", BigInteger, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("rows", BigInteger, nullable=False),
    ForeignKeyConstraint(["stream", "sequence", "number"], ["parts.stream", "parts.sequence", "parts.number"]),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("stream", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("destination", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("arrived", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("proof", Text),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("closed_at", Double),
    Column("released_at", Double),
    Column("reopened_at", Double),
    ForeignKeyConstraint(["stream", "sequence"], ["slices.stream", "slices.sequence"]),
    UniqueConstraint("stream", "destination", "sequence"),
    Index(None, "stream", "sequence", "destination", "state"),
    Index(
        "ix_deliveries_progress",
        "stream",
        "destination",
        "state",
        "sequence",
        "rows",
        "arrived",
        "refused",
        "closed_at",
    ),
)

delivery_hours = Table(
    "delivery_hours",
    metadata,
    Column("delivery", ForeignKey("deliveries.id"), primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("stream", ForeignKey("streams.id"), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Index(None, "stream", "hour", "delivery", "rows", "refused"),
)

sends = Table(
    "sends",
    metadata,
    Column("id", Id, primary_key=True),
    Column("delivery", ForeignKey("deliveries.id"), nullable=False),
    Column("part", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("form", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("answered_at", Double),
    UniqueConstraint("delivery", "part", "attempt"),
)

# A row stays after its release, with no owner, so that its fence never starts again.
leases = Table(
    "leases",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("ref", BigInteger, primary_key=True),
    Column("owner", Text),
    Column("fence", BigInteger, nullable=False),
    Column("until", Double, nullable=False),
)

seen = Table(
    "seen",
    metadata,
    Column("id", Id, primary_key=True),
    Column("stream", ForeignKey("streams.id"), nullable=False),
    Column("at", Double, nullable=False),
    Column("highest", Position, nullable=False),
    Index(None, "stream", "id", "at"),
)

# A row is a pause that lasts.
pauses = Table(
    "pauses",
    metadata,
    Column("job", Text, primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("at", Double, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("old", Text, nullable=False),
    Column("new", Text, nullable=False),
    Column("why", Text, nullable=False),
    Index(None, "job", "id"),
)

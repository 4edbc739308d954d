"""The first tables. A copy of what the schema was then: it stays as it is when the schema goes on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _ID, nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("old", sa.Text(), nullable=False),
        sa.Column("new", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_job_id", "audit", ["job", "id"])
    op.create_table(
        "leases",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("ref", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "ref", name="pk_leases"),
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("written_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
    )
    op.create_table(
        "streams",
        sa.Column("id", _ID, nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("identity", sa.JSON(), nullable=False),
        sa.Column("pinned", sa.JSON(), nullable=False),
        sa.Column("columns", sa.JSON(), nullable=False),
        sa.Column("published", sa.BigInteger(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("planned", sa.BigInteger(), nullable=False),
        sa.Column("ran_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_streams"),
        sa.UniqueConstraint("job", "name", name="uq_streams_job_name"),
    )
    op.create_table(
        "requests",
        sa.Column("id", _ID, nullable=False),
        sa.Column("stream", _ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("start", sa.Text(), nullable=True),
        sa.Column("end", sa.Text(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["stream"], ["streams.id"], name="fk_requests_stream"),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
        sa.UniqueConstraint("stream", "key", name="uq_requests_stream_key"),
    )
    op.create_index("ix_requests_stream_at", "requests", ["stream", "at"])
    op.create_table(
        "scanned",
        sa.Column("stream", _ID, nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("start", sa.Text(), nullable=False),
        sa.Column("end", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["stream"], ["streams.id"], name="fk_scanned_stream"),
        sa.PrimaryKeyConstraint("stream", "lane", "start", name="pk_scanned"),
    )
    op.create_table(
        "buckets",
        sa.Column("stream", _ID, nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("start", sa.Text(), nullable=False),
        sa.Column("end", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("ids", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["stream"], ["streams.id"], name="fk_buckets_stream"),
        sa.PrimaryKeyConstraint("stream", "lane", "start", name="pk_buckets"),
    )
    op.create_table(
        "seen",
        sa.Column("id", _ID, nullable=False),
        sa.Column("stream", _ID, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("highest", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["stream"], ["streams.id"], name="fk_seen_stream"),
        sa.PrimaryKeyConstraint("id", name="pk_seen"),
    )
    op.create_index("ix_seen_stream_id_at", "seen", ["stream", "id", "at"])
    op.create_table(
        "cuts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("stream", _ID, nullable=False),
        sa.Column("request", _ID, nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("start", sa.Text(), nullable=False),
        sa.Column("end", sa.Text(), nullable=False),
        sa.Column("estimated", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("scanned", sa.BigInteger(), nullable=False),
        sa.Column("published", sa.BigInteger(), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), nullable=False),
        sa.Column("known", sa.BigInteger(), nullable=False),
        sa.Column("superseded", sa.BigInteger(), nullable=False),
        sa.Column("waiting", sa.BigInteger(), nullable=False),
        sa.Column("null_cursors", sa.BigInteger(), nullable=False),
        sa.Column("ids", sa.Text(), nullable=False),
        sa.Column("late", sa.Double(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("done_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["request"], ["requests.id"], name="fk_cuts_request"),
        sa.ForeignKeyConstraint(["stream"], ["streams.id"], name="fk_cuts_stream"),
        sa.PrimaryKeyConstraint("id", name="pk_cuts"),
        sa.UniqueConstraint("request", "ordinal", name="uq_cuts_request_ordinal"),
    )
    op.create_index("ix_cuts_stream_done_at", "cuts", ["stream", "done_at"])
    op.create_index("ix_cuts_stream_state_kind_id", "cuts", ["stream", "state", "kind", "id"])
    op.create_table(
        "cut_rejects",
        sa.Column("cut", _ID, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("stream", _ID, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["cut"], ["cuts.id"], name="fk_cut_rejects_cut"),
        sa.ForeignKeyConstraint(["stream"], ["streams.id"], name="fk_cut_rejects_stream"),
        sa.PrimaryKeyConstraint("cut", "reason", name="pk_cut_rejects"),
    )
    op.create_index("ix_cut_rejects_stream_cut", "cut_rejects", ["stream", "cut"])
    op.create_index("ix_cut_rejects_stream_reason_rows", "cut_rejects", ["stream", "reason", "rows"])
    op.create_table(
        "slices",
        sa.Column("stream", _ID, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("cut", _ID, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("held", sa.Text(), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("event_min", sa.BigInteger(), nullable=True),
        sa.Column("event_max", sa.BigInteger(), nullable=True),
        sa.Column("begun_at", sa.Double(), nullable=False),
        sa.Column("published_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["cut"], ["cuts.id"], name="fk_slices_cut"),
        sa.ForeignKeyConstraint(["stream"], ["streams.id"], name="fk_slices_stream"),
        sa.PrimaryKeyConstraint("stream", "sequence", name="pk_slices"),
    )
    op.create_index(
        "ix_slices_stream_state_sequence_rows_size_published_at",
        "slices",
        ["stream", "state", "sequence", "rows", "size", "published_at"],
    )
    op.create_index(
        "uq_slices_publishing",
        "slices",
        ["stream"],
        unique=True,
        sqlite_where=sa.text("state = 'publishing'"),
        postgresql_where=sa.text("state = 'publishing'"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", _ID, nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("arrived", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("proof", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.Column("released_at", sa.Double(), nullable=True),
        sa.Column("reopened_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["stream", "sequence"], ["slices.stream", "slices.sequence"], name="fk_deliveries_stream_sequence"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("stream", "destination", "sequence", name="uq_deliveries_stream_destination_sequence"),
    )
    op.create_index(
        "ix_deliveries_progress",
        "deliveries",
        ["stream", "destination", "state", "sequence", "rows", "arrived", "refused", "closed_at"],
    )
    op.create_index(
        "ix_deliveries_stream_sequence_destination_state",
        "deliveries",
        ["stream", "sequence", "destination", "state"],
    )
    op.create_table(
        "joined",
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["stream", "sequence"], ["slices.stream", "slices.sequence"], name="fk_joined_stream_sequence"
        ),
        sa.PrimaryKeyConstraint("stream", "day", "sequence", name="pk_joined"),
    )
    op.create_table(
        "parts",
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("event_min", sa.BigInteger(), nullable=False),
        sa.Column("event_max", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("purged_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["stream", "sequence"], ["slices.stream", "slices.sequence"], name="fk_parts_stream_sequence"
        ),
        sa.PrimaryKeyConstraint("stream", "sequence", "number", name="pk_parts"),
    )
    op.create_index(
        "ix_parts_stream_width_event_min_event_max", "parts", ["stream", "width", "event_min", "event_max"]
    )
    op.create_table(
        "delivery_hours",
        sa.Column("delivery", _ID, nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("stream", _ID, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["delivery"], ["deliveries.id"], name="fk_delivery_hours_delivery"),
        sa.ForeignKeyConstraint(["stream"], ["streams.id"], name="fk_delivery_hours_stream"),
        sa.PrimaryKeyConstraint("delivery", "hour", name="pk_delivery_hours"),
    )
    op.create_index(
        "ix_delivery_hours_stream_hour_delivery_rows_refused",
        "delivery_hours",
        ["stream", "hour", "delivery", "rows", "refused"],
    )
    op.create_table(
        "part_hours",
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["stream", "sequence", "number"],
            ["parts.stream", "parts.sequence", "parts.number"],
            name="fk_part_hours_stream_sequence_number",
        ),
        sa.PrimaryKeyConstraint("stream", "sequence", "number", "hour", name="pk_part_hours"),
    )
    op.create_table(
        "pauses",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job", "destination", name="pk_pauses"),
    )
    op.create_table(
        "sends",
        sa.Column("id", _ID, nullable=False),
        sa.Column("delivery", _ID, nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("form", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["delivery"], ["deliveries.id"], name="fk_sends_delivery"),
        sa.PrimaryKeyConstraint("id", name="pk_sends"),
        sa.UniqueConstraint("delivery", "part", "attempt", name="uq_sends_delivery_part_attempt"),
    )

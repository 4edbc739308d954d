"""What the platform holds, in numbers."""

from __future__ import annotations

from typing import Any, Final

from tidepost.sandbox.catalog import BadRequest, Model
from tidepost.sandbox.platform import Platform

_DAYS_SHOWN: Final = 92
_MOST_IDS: Final = 10_000


def model_stats(platform: Platform, model: Model) -> dict[str, Any]:
    """A model's numbers.

    rows:             inferences stored
    distinct:         distinct ids among them
    doubled:          ids that are stored more than once
    labels:           ids that have a label; the rest of `distinct` is `unlabelled`
    repeats_offered:  rows that came with an id that was there already, whatever became of them
    refused_rows:     rows that failed, repeats and unknown ids among them
    files:            accepted = loaded + pending
    """
    queued = [entry.arrival for entry in platform.intake.pending() if entry.model == model.number]
    number = model.number
    with platform.database.cursor() as cur:
        cur.execute("BEGIN")
        totals = cur.execute(
            """SELECT coalesce(sum(repeated), 0), coalesce(sum(refused), 0), coalesce(sum(dropped), 0),
                      coalesce(sum(surplus), 0), count(*) FILTER (via = 'file'),
                      count(*) FILTER (arrival IN (SELECT unnest($queued::BIGINT[])))
               FROM loads WHERE model = $model""",
            {"queued": queued, "model": number},
        ).fetchall()
        # An entry leaves the queue only after its line is in the log: for a moment it is in both.
        repeated, refused_rows, dropped, surplus, loaded, in_both = (int(value) for value in totals[0])
        pending = len(queued) - in_both
        sizes = cur.execute(
            f"""SELECT (SELECT count(*) FROM inferences_{number}), (SELECT count(*) FROM labels_{number}),
                       (SELECT count(*) FROM reference_{number})"""
        ).fetchall()
        rows, labels, reference = (int(value) for value in sizes[0])
        doubled = 0
        if surplus:
            doubled = len(_doubled(cur.execute(_DOUBLED.format(number)).fetchall()))
        batches = cur.execute(
            f"""SELECT coalesce(b.batch_id, i.batch), coalesce(b.status, 'uploading'), b.total_record_count,
                       coalesce(i.rows, 0)
                FROM (SELECT * FROM batches WHERE model = ?) b
                FULL JOIN (SELECT "#batch" AS batch, count(*) AS rows FROM inferences_{number}
                           WHERE "#batch" IS NOT NULL GROUP BY 1) i ON i.batch = b.batch_id
                ORDER BY 1""",
            [number],
        ).fetchall()
        cur.execute("COMMIT")
    keys = ("batch_id", "status", "total_record_count", "rows")
    return {
        "id": model.id,
        "partner_model_id": model.partner_model_id,
        "rows": rows,
        "distinct": rows - surplus,
        "doubled": doubled,
        "repeats_offered": repeated,
        "labels": labels,
        "unlabelled": rows - surplus - labels,
        "refused_rows": refused_rows,
        "dropped_rows": dropped,
        "reference_rows": reference,
        "files": {"accepted": loaded + pending, "loaded": loaded, "pending": pending},
        "batches": [dict(zip(keys, batch, strict=True)) for batch in batches],
    }


def doubled_ids(platform: Platform, model: Model, *, limit: int = _MOST_IDS) -> dict[str, Any]:
    """The exact totals, counted and not remembered, and up to `limit` of the ids stored more than once."""
    if not 0 <= limit <= _MOST_IDS:
        raise BadRequest(f"limit must be between 0 and {_MOST_IDS}")
    with platform.database.cursor() as cur:
        totals = cur.execute(f'SELECT count(*), count(DISTINCT "#id") FROM inferences_{model.number}').fetchall()
        copies = _doubled(cur.execute(_DOUBLED.format(model.number)).fetchall())
    rows, distinct = totals[0]
    shown = [{"partner_inference_id": name, "copies": count} for name, count in copies[:limit]]
    return {"rows": rows, "distinct": distinct, "doubled": len(copies), "ids": shown}


def rows_a_day(platform: Platform, model: Model) -> list[tuple[str, int, int]]:
    """Inferences, and labels of them, by UTC day of the inference's own timestamp: the last days that have any,
    oldest first."""
    day = 'CAST(make_timestamp(epoch_us("#at")) AS DATE) AS day'
    with platform.database.cursor() as cur:
        days = cur.execute(
            f"""SELECT CAST(day AS VARCHAR), rows, coalesce(labels, 0)
                FROM (SELECT {day}, count(*) AS rows FROM inferences_{model.number} GROUP BY 1)
                LEFT JOIN (SELECT {day}, count(*) AS labels FROM labels_{model.number} GROUP BY 1) USING (day)
                ORDER BY day DESC LIMIT {_DAYS_SHOWN}"""
        ).fetchall()
    return [(str(day), int(rows), int(labels)) for day, rows, labels in reversed(days)]


_DOUBLED: Final = 'SELECT "#id", count(*) FROM inferences_{} GROUP BY 1 HAVING count(*) > 1 ORDER BY count(*) DESC, 1'


def _doubled(rows: list[Any]) -> list[tuple[str, int]]:
    return [(str(name), int(copies)) for name, copies in rows]

"""Closing batches, for models whose inferences come in batches.

A batch is closed at a destination once everything published of it has arrived there and a batch with later events has
begun: then nothing more is expected of it. If rows turn up later all the same, it is closed again, with the new
number. What was closed is remembered beside the slices: `_tidepost/batches/{destination}.json`, batch id → rows.
"""

from __future__ import annotations

import json
from collections import Counter

from tidepost.model import Stream
from tidepost.ports import Destination, Ledger, Records
from tidepost.rows.rejects import read_rejects
from tidepost.rows.shape import BATCH


def close_batches(stream: Stream, destination: Destination, ledger: Ledger, records: Records) -> dict[str, int]:
    """Close what is complete and was not closed with this number of rows before; returns batch id → rows.

    Raises Retryable and Misconfigured as the destination does; what was closed until then is remembered.
    """
    key = f"{stream.prefix}/_tidepost/batches/{destination.name}.json"
    closed: dict[str, int] = json.loads(records.get(key) or b"{}")
    batches = ledger.reports.batches(stream, destination.name)
    refused = _refused(stream, destination.name, records) if batches else Counter()
    new: dict[str, int] = {}
    try:
        for batch in batches[:-1]:
            total = batch.rows - refused[batch.id]
            if batch.arrived and closed.get(batch.id) != total:
                destination.close_batch(batch.id, total)
                new[batch.id] = total
    finally:
        if new:
            records.put(key, json.dumps({**closed, **new}, sort_keys=True).encode())
    return new


def _refused(stream: Stream, destination: str, records: Records) -> Counter[str]:
    """Rows that a destination refused, by batch."""
    return Counter(
        json.loads(row)[BATCH]
        for key in records.list(f"{stream.prefix}/_tidepost/refused")
        if key.endswith(f".{destination}.parquet")
        for row in read_rejects(records, key).column("row").to_pylist()
    )

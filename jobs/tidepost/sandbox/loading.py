"""Puts an offer's rows into a model's tables. Every function runs inside its caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from tidepost.sandbox.database import Load, quoted, run
from tidepost.sandbox.offer import Offer
from tidepost.sandbox.settings import OnRepeat

_DRAWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Dropping:
    """The share of rows to leave out silently, drawn by each row's id."""

    share: float = 0.0
    seed: int = 0

    @property
    def kept(self) -> str:
        """The SQL condition of the rows that are not dropped."""
        if not self.share:
            return "true"
        return f"hash(\"#id\" || ' {self.seed}') % {_DRAWS} >= {round(self.share * _DRAWS)}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded, and, where rows are to be named, the positions in the file of those that were not as new."""

    load: Load
    repeated: frozenset[int] = field(default_factory=frozenset)
    unknown: frozenset[int] = field(default_factory=frozenset)


def known_repeats(cur: duckdb.DuckDBPyConnection, offer: Offer) -> int:
    """How many good rows of an offer of inferences repeat an id that is loaded, or came earlier in the offer."""
    good = f'(SELECT "#id" FROM {offer.sql} WHERE "#reason" IS NULL)'
    ((rows, ids),) = offer.run(cur, f'SELECT count(*), count(DISTINCT "#id") FROM {good}')
    return _int(rows) - (_int(ids) - _stored_ids(cur, offer, good))


def unknown_ids(cur: duckdb.DuckDBPyConnection, offer: Offer) -> int:
    """How many good rows of an offer of ground truth name an inference that is not loaded."""
    known = f'SELECT "#id" FROM inferences_{offer.model.number} WHERE "#id" IN (SELECT "#id" FROM {offer.sql})'
    ((rows,),) = offer.run(
        cur, f'SELECT count(*) FROM {offer.sql} WHERE "#reason" IS NULL AND "#id" NOT IN ({known})'
    )
    return _int(rows)


def load_inferences(
    cur: duckdb.DuckDBPyConnection,
    offer: Offer,
    *,
    arrival: int,
    received: datetime,
    on_repeat: OnRepeat,
    dropping: Dropping,
    name_rows: bool = False,
) -> Loaded:
    """Stores the good rows, and the labels that came with them."""
    kept = f'(SELECT * FROM {offer.sql} WHERE "#reason" IS NULL AND {dropping.kept})'
    offered, good, rows, ids = _sizes(cur, offer, dropping)
    new = ids - _stored_ids(cur, offer, kept)
    repeated = rows - new
    chosen, again = kept, frozenset[int]()
    if repeated and on_repeat != "keep":
        again = _set_repeats_aside(cur, offer, kept, name_rows=name_rows)
        chosen = f'(SELECT * FROM {kept} WHERE "#row" NOT IN (SELECT "#row" FROM repeats))'
    columns = "".join(f", {quoted(a.name)}" for a in offer.model.of_inferences)
    position = '$arrival::BIGINT * 4294967296 + "#row"'
    number = offer.model.number
    ((stored,),) = offer.run(
        cur,
        f"""INSERT INTO inferences_{number} BY POSITION
            SELECT "#id", "#at", $received, "#batch", {position}{columns} FROM {chosen}""",
        arrival=arrival,
        received=received,
    )
    if offer.has_labels:
        labels = "".join(f", {quoted(a.name)}" for a in offer.model.labels)
        once = ""
        if repeated and on_repeat == "keep":  # both inferences are kept, but an id has one label
            once = 'QUALIFY row_number() OVER (PARTITION BY "#id" ORDER BY "#row" DESC) = 1'
            ids_labelled = f'SELECT "#id" FROM {chosen} WHERE "#labelled"'
            offer.run(cur, f'DELETE FROM labels_{number} WHERE "#id" IN ({ids_labelled})')
        offer.run(
            cur,
            f"""INSERT INTO labels_{number} BY POSITION
                SELECT "#id", "#at", $received, "#batch", {position}, "#label_at"{labels}
                FROM {chosen} WHERE "#labelled" {once}""",
            arrival=arrival,
            received=received,
        )
    run(cur, "DROP TABLE IF EXISTS repeats")
    refused = offered - good + (repeated if on_repeat == "refuse" else 0)
    load = Load(offered, _int(stored), repeated, _int(stored) - new, refused, good - rows)
    return Loaded(load, repeated=again)


def load_labels(
    cur: duckdb.DuckDBPyConnection,
    offer: Offer,
    *,
    received: datetime,
    dropping: Dropping,
    name_rows: bool = False,
) -> Loaded:
    """Stores the good rows whose inference is loaded. An id has one label, the one that was loaded last, whatever its
    timestamp: a file that waited in the queue overwrites rows that were sent after it."""
    number = offer.model.number
    good = f'(SELECT * FROM {offer.sql} WHERE "#reason" IS NULL)'
    offered, right, rows, ids = _sizes(cur, offer, dropping)
    offer.run(
        cur,
        f"""CREATE OR REPLACE TEMP TABLE known AS
            SELECT "#id", min("#at") AS "#at", arg_min("#batch", "#position") AS "#batch",
                   min("#position") AS "#position"
            FROM inferences_{number} WHERE "#id" IN (SELECT "#id" FROM {good}) GROUP BY "#id" """,
    )
    missing = f'SELECT "#row" FROM {good} WHERE "#id" NOT IN (SELECT "#id" FROM known)'
    unknown = frozenset(_int(row) for (row,) in offer.run(cur, missing)) if name_rows else frozenset[int]()
    ((unknown_rows,),) = offer.run(cur, f"SELECT count(*) FROM ({missing})")
    labels = "".join(f", {quoted(a.name)}" for a in offer.model.labels)
    last = "" if rows == ids else 'QUALIFY row_number() OVER (PARTITION BY "#id" ORDER BY "#row" DESC) = 1'
    offer.run(
        cur,
        f"""CREATE OR REPLACE TEMP TABLE fresh AS
            SELECT "#id", known."#at", $received AS "#received", known."#batch", "#position", "#label_at"{labels}
            FROM (SELECT * EXCLUDE ("#at", "#batch") FROM {good} WHERE {dropping.kept})
            JOIN known USING ("#id") {last}""",
        received=received,
    )
    dropped: object = 0
    if right > rows:
        left_out = f'SELECT count(*) FROM {good} WHERE NOT ({dropping.kept}) AND "#id" IN (SELECT "#id" FROM known)'
        ((dropped,),) = offer.run(cur, left_out)
    run(cur, f'DELETE FROM labels_{number} WHERE "#id" IN (SELECT "#id" FROM fresh)')
    run(cur, f"INSERT INTO labels_{number} BY POSITION SELECT * FROM fresh")
    run(cur, "DROP TABLE known")
    run(cur, "DROP TABLE fresh")
    load = Load(
        offered=offered,
        stored=right - _int(unknown_rows) - _int(dropped),
        refused=offered - right + _int(unknown_rows),
        dropped=_int(dropped),
    )
    return Loaded(load, unknown=unknown)


def load_reference(cur: duckdb.DuckDBPyConnection, offer: Offer, *, arrival: int) -> Loaded:
    """Stores the good rows of a reference set."""
    ((offered,),) = offer.run(cur, f"SELECT count(*) FROM {offer.sql}")
    columns = "".join(f", {quoted(a.name)}" for a in offer.model.attributes)
    ((stored,),) = offer.run(
        cur,
        f"""INSERT INTO reference_{offer.model.number} BY POSITION
            SELECT $arrival::BIGINT * 4294967296 + "#row"{columns} FROM {offer.sql} WHERE "#reason" IS NULL""",
        arrival=arrival,
    )
    return Loaded(Load(_int(offered), _int(stored), refused=_int(offered) - _int(stored)))


def _sizes(cur: duckdb.DuckDBPyConnection, offer: Offer, dropping: Dropping) -> tuple[int, int, int, int]:
    """How many rows are offered, are good, are good and not dropped; and how many ids these last have."""
    kept = f'"#reason" IS NULL AND {dropping.kept}'
    ((offered, good, rows, ids),) = offer.run(
        cur,
        f"""SELECT count(*), count(*) FILTER ("#reason" IS NULL), count(*) FILTER ({kept}),
                   count(DISTINCT "#id") FILTER ({kept}) FROM {offer.sql}""",
    )
    return _int(offered), _int(good), _int(rows), _int(ids)


def _stored_ids(cur: duckdb.DuckDBPyConnection, offer: Offer, rows: str) -> int:
    ((ids,),) = offer.run(
        cur,
        f"""SELECT count(DISTINCT "#id") FROM inferences_{offer.model.number}
            WHERE "#id" IN (SELECT "#id" FROM {rows})""",
    )
    return _int(ids)


def _set_repeats_aside(cur: duckdb.DuckDBPyConnection, offer: Offer, kept: str, *, name_rows: bool) -> frozenset[int]:
    """Fills the temporary table `repeats` with the rows that are not the first of their id."""
    offer.run(
        cur,
        f"""CREATE OR REPLACE TEMP TABLE repeats AS
            SELECT "#row" FROM {kept}
            WHERE "#id" IN (SELECT "#id" FROM inferences_{offer.model.number}
                            WHERE "#id" IN (SELECT "#id" FROM {kept}))
            UNION
            SELECT "#row" FROM {kept} QUALIFY row_number() OVER (PARTITION BY "#id" ORDER BY "#row") > 1""",
    )
    return frozenset(_int(row) for (row,) in run(cur, 'SELECT "#row" FROM repeats')) if name_rows else frozenset()


def _int(value: object) -> int:
    """A count as DuckDB returns it."""
    if not isinstance(value, int):
        raise TypeError(f"a count came back as {type(value).__name__}")
    return value

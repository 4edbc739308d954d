"""What a comparison found: the questions put to its tables once they are filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from tidepost.comparing.lanes import STRETCH
from tidepost.comparing.tables import T, Tables, floor
from tidepost.ranges import Range, Ranges
from tidepost.sql import quote_literal

MOST_RANGES: Final = 16
"""Of missing rows: ranges that are close to each other become one."""
_AT_CURSOR: Final = f"CAST(cursor // {STRETCH} AS BIGINT)"
_AT_SLICE: Final = f"(SELECT map_from_entries(list((p.sequence, p.lane))) FROM {T}places AS p)[sequence]"
"""SQL of the number of a row's lane, by its position or its slice."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One id that differs.

    what:   missing, lost, doubled, others, conflicts, rejected, orphans or gone
    event:  its event time in microseconds; of others, the hour or day in which it is; None where it has none
    detail: why it was rejected, or how many copies there are
    """

    what: str
    id: str | None
    event: int | None
    destination: str | None
    sequence: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Results(Tables):
    """Reads only."""

    def counted_here(self, *, by_lane: bool = False) -> dict[int | None, dict[str, int]]:
        """Rows by hour or day, or by the number of their lane, as `numbers.Here` names them."""
        found: dict[int | None, dict[str, int]] = {}
        for name, rows, at in (
            ("source", f"{T}source", _AT_CURSOR),
            ("rejected", f"{T}source WHERE reason IS NOT NULL", _AT_CURSOR),
            ("gone", f"{T}gone", _AT_SLICE),
            ("published", f"{T}published WHERE inside", _AT_SLICE),
        ):
            for key, count in self._counted(rows, at if by_lane else self._start):
                found.setdefault(key, {})[name] = count
        for name in (
            "duplicates",
            "conflicts",
            "rejected",
            "waiting",
            "missing",
            "superseded",
            "unmatched",
            "orphans",
        ):
            at = _AT_CURSOR if by_lane else self._start
            for key, count in self._counted(f"{T}verdicts WHERE what = '{name}'", at):
                one = found.setdefault(key, {})
                one[name] = one.get(name, 0) + count
        return found

    def counted_there(self, destination: str, *, by_lane: bool = False) -> dict[int | None, dict[str, int]]:
        """The same at one destination, as `numbers.There` names them."""
        found: dict[int | None, dict[str, int]] = {}
        key = _AT_SLICE if by_lane else self._start
        sql = (
            f"SELECT {key}, what, count(*), sum(copies), sum(greatest(copies - 1, 0)) "
            f"FROM {T}outcomes WHERE destination = $destination GROUP BY ALL"
        )
        for at, what, rows, copies, more in self._all(sql, destination=destination):
            one = found.setdefault(at, {})
            one[what] = int(copies) if what == "others" else int(rows)
            if what == "arrived":
                one["doubled"] = int(more)
        return found

    def reasons(self) -> dict[str, int]:
        """Why rows were rejected → rows."""
        sql = (
            f"SELECT reason, count(*) FROM (SELECT reason FROM {T}source WHERE reason IS NOT NULL UNION ALL "
            f"SELECT reason FROM {T}verdicts WHERE what = 'rejected') GROUP BY reason ORDER BY reason"
        )
        return {str(reason): int(rows) for reason, rows in self._all(sql)}

    def by_slice(self, destination: str, what: str) -> dict[int, int]:
        """Slice → rows of it of which something, such as lost, became at a destination."""
        sql = (
            f"SELECT sequence, count(*) FROM {T}outcomes WHERE destination = $destination AND what = $what "
            f"GROUP BY sequence ORDER BY sequence"
        )
        return {int(one): int(rows) for one, rows in self._all(sql, destination=destination, what=what)}

    def missing(self, scanned: Ranges, window: Range | None = None) -> Ranges:
        """Where in the cursor missing rows are: few ranges, within what was scanned.
        window: only those with positions in it"""
        within = "" if window is None else f"AND cursor >= {window.start} AND cursor < {window.end}"
        ((first, last),) = self._all(
            f"SELECT min(cursor), max(cursor) FROM {T}verdicts WHERE what = 'missing' {within}"
        )
        if first is None:
            return Ranges()
        first, last = int(first), int(last) + 1
        step = -(-(last - first) // MOST_RANGES)
        sql = (
            f"SELECT min(cursor), max(cursor) FROM {T}verdicts WHERE what = 'missing' {within} "
            f"GROUP BY (cursor - $first::HUGEINT) // $step::HUGEINT"
        )
        ends = self._all(sql, first=first, step=step)
        found = Ranges.of(Range(int(low) + self._zero, int(high) + self._zero + 1) for low, high in ends)
        return Ranges.of(part for one in found for part in scanned.within(one))

    def differences(self, limit: int | None = None) -> Iterator[Difference]:
        """The ids that differ: by what they are, then by event time."""
        reader = self.connection.execute(
            f"SELECT * FROM ({DIFFERENCES}) ORDER BY weight, event, id {'' if limit is None else f'LIMIT {limit:d}'}"
        ).to_arrow_reader(10_000)
        for batch in reader:
            for one in batch.drop_columns(["weight"]).to_pylist():
                yield Difference(**one)

    def counted_differences(self) -> int:
        return self._count(f"({DIFFERENCES})")

    def keep_numbers(self, numbers: Sequence[dict[str, object]]) -> None:
        """Keep the rows that `NUMBERS` selects."""
        kept = pa.Table.from_pylist(list(numbers)) if numbers else pa.table({"start": pa.array([], pa.int64())})
        self.connection.register(f"{T}numbers", kept)

    def write(self, sql: str, path: Path, form: str) -> None:
        """Write what a query selects to a new file, in a form as DuckDB's COPY has it."""
        self._run(f"COPY ({sql}) TO {quote_literal(str(path))} ({form})")

    @property
    def _start(self) -> str:
        """SQL of the start of the hour or day that a row's event lies in."""
        return floor("event", self.width)

    def _counted(self, rows: str, by: str) -> list[tuple[int | None, int]]:
        return [(key, int(count)) for key, count in self._all(f"SELECT {by}, count(*) FROM {rows} GROUP BY 1")]


DIFFERENCES: Final = (
    f"SELECT what, id, event, NULL::VARCHAR AS destination, NULL::BIGINT AS sequence, "
    f"CASE WHEN what IN ('missing', 'orphans') THEN '' ELSE reason END AS detail, CASE what WHEN 'missing' THEN 0 "
    f"WHEN 'conflicts' THEN 4 ELSE 5 END AS weight FROM {T}verdicts "
    f"WHERE what IN ('missing', 'conflicts', 'rejected', 'orphans') "
    f"UNION ALL SELECT 'rejected', id, event, NULL, NULL, reason, 5 FROM {T}source WHERE reason IS NOT NULL "
    f"UNION ALL SELECT 'gone', id, event, NULL, sequence, '', 6 FROM {T}gone "
    f"WHERE sequence NOT IN (SELECT sequence FROM {T}dropped) "
    f"UNION ALL SELECT 'lost', id, event, destination, sequence, "
    f"CASE WHEN copies > 0 THEN 'another value is there' ELSE '' END, 1 FROM {T}outcomes WHERE what = 'lost' "
    f"UNION ALL SELECT 'doubled', id, event, destination, sequence, copies || ' copies', 2 FROM {T}outcomes "
    f"WHERE what = 'arrived' AND copies > 1 "
    f"UNION ALL SELECT 'others', id, event, destination, NULL, copies || ' copies', 3 FROM {T}outcomes "
    f"WHERE what = 'others'"
)
"""SQL of the ids that differ, as `Difference` names the columns, with `weight`: what should be looked at first."""

DIFFERING: Final = (
    f"SELECT what, id, make_timestamptz(event) AS inference_timestamp, destination, sequence AS slice, detail "
    f"FROM ({DIFFERENCES}) ORDER BY weight, event, id"
)
NUMBERS: Final = f"SELECT * REPLACE (make_timestamptz(start) AS start) FROM {T}numbers"
"""What is written to files."""

"""The tables of a comparison, in DuckDB: ids that spill to disk.

| table     | rows                                                                            |
|-----------|---------------------------------------------------------------------------------|
| source    | of the source: id, event, content, cursor, reason                               |
| published | of the index: id, event, content, sequence; `inside`: to be compared            |
| refused   | ids that destinations refused, by slice and destination                         |
| verdicts  | rows of the source that have no published row of their own, and what they are   |
| gone      | published rows that have no row in the source                                   |
| shown     | ids that a destination shows, with the number of copies                         |
| outcomes  | for each destination, what became of each published row; doubled, others        |
| dropped   | slices of which the source has let go rows, which is no difference then         |
| places    | where slices were read: sequence, the number of the lane                        |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from tidepost.cursor import UUIDS, CursorKind, CursorType

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

T: Final = "tidepost_r_"
"""What the names of the tables begin with."""
TABLES: Final = (
    "source (id VARCHAR, event BIGINT, content UBIGINT, cursor HUGEINT, reason VARCHAR)",
    "published (id VARCHAR, event BIGINT, content UBIGINT, sequence BIGINT, inside BOOLEAN)",
    "refused (sequence BIGINT, destination VARCHAR, id VARCHAR)",
    "verdicts (id VARCHAR, event BIGINT, content UBIGINT, cursor HUGEINT, what VARCHAR, reason VARCHAR)",
    "gone (id VARCHAR, event BIGINT, sequence BIGINT)",
    "outcomes (destination VARCHAR, id VARCHAR, event BIGINT, sequence BIGINT, what VARCHAR, copies BIGINT)",
    "dropped (sequence BIGINT)",
    "places (sequence BIGINT, lane BIGINT)",
)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one connection.

    width: microseconds in an hour or a day, by which rows are counted
    kind:  of the source's cursor
    """

    connection: DuckDBPyConnection
    width: int
    kind: CursorKind

    @property
    def _zero(self) -> int:
        """What is 0 among the cursors of the tables: UUIDs are halved into negative and positive integers."""
        return UUIDS // 2 if self.kind.type is CursorType.UUID else 0

    def _insert(self, table: str, values: dict[str, Any]) -> None:
        """Rows whose columns are lists of one length, or one value for all of them."""
        rows = next(len(each) for each in values.values() if isinstance(each, list))
        columns = {name: each if isinstance(each, list) else [each] * rows for name, each in values.items()}
        self.connection.register(f"{T}batch", pa.table(columns))
        if rows:
            self._run(f"INSERT INTO {T}{table} SELECT {', '.join(columns)} FROM {T}batch")

    def _run(self, sql: str) -> None:
        self.connection.execute(sql).fetchall()

    def _count(self, rows: str) -> int:
        return int(self._all(f"SELECT count(*) FROM {rows}")[0][0])

    def _all(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, values).fetchall()


def floor(column: str, width: int) -> str:
    """SQL of the start of the hour or day that a column of microseconds lies in, before 1970 too."""
    return f"{column} - ((({column} % {width}) + {width}) % {width})"

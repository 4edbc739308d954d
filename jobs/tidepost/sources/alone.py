"""Labels that come by files alone: a source that never holds a row, and whose columns are those of the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb

from tidepost.cursor import MICROSECOND, CursorKind, CursorType
from tidepost.engine import Engine
from tidepost.errors import Misconfigured, Retryable
from tidepost.ports import CURSOR, Drop, Drops, Relation, Survey
from tidepost.sql import quote_identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from tidepost.ranges import Range


class FilesAlone:
    """Satisfies `ports.Source`.

    job:    as messages name it
    needed: the columns that a file of labels has to have
    named:  files that somebody named by hand, beside those that `drops` finds
    known:  the columns as the stream has them since its first slice; empty before it. A file that differs from them
            is judged by itself, and they outlive all files
    staged: the columns that what is staged tells of, where no file is left and a rebuilt ledger does not know them
    """

    def __init__(
        self,
        job: str,
        drops: Drops,
        engine: Engine,
        *,
        needed: Sequence[str],
        named: Callable[[], Iterable[Drop]] = tuple,
        known: Callable[[], Mapping[str, str]] = dict,
        staged: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._job, self._drops, self._engine, self._needed = job, drops, engine, tuple(needed)
        self._named, self._known, self._staged = named, known, staged

    def columns(self) -> Mapping[str, str]:
        """See `Source.columns`. Before the first slice, those of the oldest file that can be read and has all that is
        needed."""
        known = self._known()
        if known:
            return known
        files = sorted({*self._named(), *self._drops.found()}, key=lambda one: (one.modified, one.path))
        with self._engine.connect() as connection:
            for file in files:
                columns = self._columns_of(connection, file)
                if all(name in columns for name in self._needed):
                    return columns
        staged = self._staged()
        if staged:
            return staged
        raise Misconfigured(
            f"{self._job}: none of {len(files)} files of labels can be read and has the columns "
            f"{', '.join(self._needed)}",
            safe="Nothing was staged or sent.",
            hint="Drop a file that has them: it tells the types of their values.",
        )

    def _columns_of(self, connection: DuckDBPyConnection, file: Drop) -> Mapping[str, str]:
        try:
            return self._drops.rows(connection, file)[1]
        except (duckdb.Error, Misconfigured, Retryable):
            return {}  # whoever takes it up says what is wrong with it

    def cursor(self) -> CursorKind:
        """When a label became known, which no column of a source says."""
        return CursorKind(CursorType.TIMESTAMP, MICROSECOND, "UTC")

    def clock(self) -> None:
        """None: it has no clock of its own."""
        return

    def warnings(self) -> Sequence[str]:
        return ()

    def survey(self, window: Range) -> Survey:
        return Survey(None, ())

    @contextmanager
    def read(
        self,
        connection: DuckDBPyConnection,
        window: Range,
        columns: Sequence[str],
    ) -> Iterator[Relation]:
        of = self.columns()
        names = "".join(f"CAST(NULL AS {of[name]}) AS {quote_identifier(name)}, " for name in columns)
        yield Relation(f"SELECT {names}CAST(0 AS BIGINT) AS {quote_identifier(CURSOR)} WHERE false", {})

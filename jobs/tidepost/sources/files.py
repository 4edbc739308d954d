"""Files as a source: which there are, which of them can hold a range, and how DuckDB reads them as one table."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from tidepost.cursor import DAY, HOUR, MICROSECOND, SECOND, CursorType, to_datetime
from tidepost.errors import Misconfigured
from tidepost.paths import HOURS, PathTemplate, Span
from tidepost.ports import FILE, Layout
from tidepost.ranges import Range
from tidepost.sources.footers import Footers
from tidepost.sources.layouts import Layouts
from tidepost.sources.listing import TRIED, File, Store, listed, newest
from tidepost.sources.positions import CursorColumn
from tidepost.sql import quote_identifier, quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

READERS: Final = {"parquet": "read_parquet", "csv": "read_csv", "json": "read_json"}
MANY, SMALL = 50, 25_000
"""Of so many files, none of which has more rows than that, footers say well enough where rows are."""
NEWEST: Final = 3
"""Of a path template, the columns are those of as many of its newest folders."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One of a source's paths, and the store that it is in."""

    template: PathTemplate
    store: Store


class Files:
    """The files of one source.

    format: parquet, csv or json
    column: the cursor
    zone:   the clock that path templates are named by; None: UTC
    slack:  seconds by which rows may lie away from where their path says; None: the template's unit
    cache:  the folder for what is learnt of them; None: it is not kept
    """

    def __init__(
        self,
        patterns: Sequence[Pattern],
        format: str,  # noqa: A002 - it is what definitions call it
        *,
        column: str,
        zone: str | None,
        slack: float | None,
        cache: Path | None,
    ) -> None:
        self._patterns = patterns
        self._reader = READERS[format]
        self._zone = ZoneInfo(zone or "UTC")
        self._slack = slack
        about = json.dumps([[one.template.text for one in patterns], column, zone])
        name = hashlib.sha256(about.encode()).hexdigest()[:32]
        self._described: frozenset[File] | None = None
        self._layouts = Layouts(format)
        self._footers: Footers | None = None
        if format == "parquet":
            far = any(one.store.far for one in patterns)
            self._footers = Footers(column, self._open, cache and cache / f"{name}.parquet", about, far=far)

    # --------------------------------------------------------------------------------------------- listing

    def columns(self, connection: DuckDBPyConnection) -> dict[str, str]:
        """The columns with their types: those of all files, or of a template's newest folders."""
        found = [
            file
            for one in self._patterns
            for file in (
                listed(one.store, one.template, None)
                if one.template.unit is None
                else newest(one.store, one.template, self._now(one.template.unit), NEWEST)
            )
        ]
        if not found:
            raise self._nothing()
        files = self._readable(connection, found)
        self._described = frozenset(files)
        return described(connection, self.rows(self._samples(connection, files), {}))

    def listed(self, connection: DuckDBPyConnection, cursor: CursorColumn, window: Range) -> list[File]:
        """The files that are there now and that can hold rows of a window by their paths, sorted."""
        found = [
            file
            for one in self._patterns
            for file in listed(one.store, one.template, self._span(one.template.unit, cursor, window))
        ]
        if not found and not self._anything():
            raise self._nothing()
        return self._readable(connection, found)

    def _anything(self) -> bool:
        """Whether any time has a file: an empty folder is one thing, a log that is not there another."""
        return any(
            newest(one.store, one.template, self._now(one.template.unit), 1)
            for one in self._patterns
            if one.template.unit is not None
        )

    def _nothing(self) -> Misconfigured:
        return Misconfigured(
            f"source.files: nothing matches {', '.join(one.template.text for one in self._patterns)}",
            hint="Relative patterns start at the project's root.",
        )

    def _readable(self, connection: DuckDBPyConnection, files: Sequence[File]) -> list[File]:
        """Files by name, each once, which the connection can read from now on."""
        found = {file.path: file for file in files}
        for store in dict.fromkeys(one.store for one in self._patterns):
            store.readable(connection)
        return [found[path] for path in sorted(found)]

    def within(self, cursor: CursorColumn, files: Sequence[File], window: Range) -> list[File]:
        """Those of the listed files that can hold rows of a window by their statistics, too."""
        if self._footers is None:
            return list(files)
        return self._footers.within(cursor.kind, files, cursor.near(window))

    def ends(self, cursor: CursorColumn, files: Sequence[File]) -> Range | None:
        """A range that holds all positions of files, by their statistics; None where it is not known."""
        if self._footers is None or cursor.kind.zone is not None:
            return None
        found = self._footers.of(files)
        if any(one.says != cursor.kind.type for one in found):
            return None
        lowest = [one.lowest for one in found if one.lowest is not None]
        highest = [one.highest for one in found if one.highest is not None]
        return Range(min(lowest), max(highest) + 1) if lowest and highest else None

    def counted(self, cursor: CursorColumn, files: Sequence[File], window: Range) -> list[tuple[Range, int]] | None:
        """The positions of each file's rows, in order, and how many they are, by footers alone. None where these do
        not tell it exactly, or too coarsely: for few or large files, files that overlap, or that lie across the
        window's ends."""
        if self._footers is None or cursor.kind.zone is not None or len(files) < MANY:
            return None
        found: list[tuple[Range, int]] = []
        for one in self._footers.of(files):
            if one.says != cursor.kind.type or one.nulls is None or one.rows > SMALL:
                return None
            if one.lowest is not None and one.highest is not None:
                found.append((Range(one.lowest, one.highest + 1), one.rows - one.nulls))
        found.sort()
        apart = all(left.end <= right.start for (left, _), (right, _) in pairwise(found))
        inside = not found or (found[0][0].start >= window.start and found[-1][0].end <= window.end)
        return found if apart and inside else None

    def layouts(self, connection: DuckDBPyConnection, files: Sequence[File]) -> dict[str, Layout]:
        """path → the columns of that file alone."""
        if self._footers is None:
            kinds = {file.path: f"{file.version} {file.path}" for file in files}
        else:
            found = zip(files, self._footers.of(files), strict=True)
            kinds = {file.path: footer.schema for file, footer in found}
        return self._layouts.of(connection, kinds)

    def nulls(self, connection: DuckDBPyConnection, cursor: CursorColumn, files: Sequence[File]) -> int:
        """The rows of listed files whose cursor is NULL: by statistics, counted where there are none."""
        found, unsure = 0, list(files)
        if self._footers is not None and files:
            footers = self._footers.of(files)
            if any(one.named for one in footers):
                found = sum(one.nulls or 0 for one in footers)
                unsure = [file for file, one in zip(files, footers, strict=True) if one.nulls is None and one.named]
        if not unsure:
            return found
        where = f"{quote_identifier(cursor.name)} IS NULL"
        rows = self.rows(unsure, {})
        ((counted,),) = connection.execute(f"SELECT count(*) FROM ({rows}) WHERE {where}").fetchall()
        return found + int(counted)

    def _open(self, file: File) -> str | IO[bytes]:
        store = next(one.store for one in self._patterns if file.path.startswith(one.template.root))
        return store.open(file)

    def _now(self, unit: str) -> Span:
        """The last units, and the next."""
        now, hours = datetime.now(self._zone).replace(tzinfo=None), HOURS[unit]
        return Span(now - timedelta(hours=hours * (TRIED - 2)), now + timedelta(hours=hours))

    def _span(self, unit: str | None, cursor: CursorColumn, window: Range) -> Span | None:
        """What paths may say of the rows of a window; None where paths say nothing."""
        if unit is None:
            return None
        kind = cursor.kind
        if kind.type is CursorType.INTEGER:
            raise Misconfigured(
                f"source.files: {{start:…}} needs a cursor that is a time; {cursor.name!r} is {cursor.type}",
                hint="Name the files without a placeholder, or choose another cursor.",
            )
        slack = HOURS[unit] * HOUR if self._slack is None else int(self._slack * SECOND)
        if kind.type is CursorType.DATE:
            return Span(_moment(window.start * DAY - slack), _moment(window.end * DAY + slack))
        if self._zone.key != "UTC":
            slack += HOUR  # clocks are set forward and back
        end = -(-window.end // MICROSECOND) * MICROSECOND  # rounded up, as the start is rounded down
        return Span(self._local(window.start - slack), self._local(end + slack))

    def _local(self, position: int) -> datetime:
        moment = _moment(position)
        try:
            return moment.replace(tzinfo=ZoneInfo("UTC")).astimezone(self._zone).replace(tzinfo=None)
        except OverflowError:
            return moment

    # ------------------------------------------------------------------------------------------------- SQL

    def rows(self, files: Sequence[File], known: Mapping[str, str], options: str = "", *, alike: bool = False) -> str:
        """The rows of files as a SELECT.

        known:   the source's columns and their types; those that come from folders such as `month=01` have the
                 types that all folders together give them: of some alone, '01' might become 1
        options: more of them, for the reader
        alike:   all have the same columns, so that DuckDB need not open each of them to learn that
        """
        names = {part.partition("=")[0] for file in files for part in file.path.split("/")[:-1] if "=" in part}
        types = ", ".join(f"{quote_literal(name)}: {known[name]}" for name in sorted(names & known.keys()))
        hive = f", hive_types = {{{types}}}" if types else ""
        paths = ", ".join(quote_literal(file.path) for file in files)
        return f"SELECT * FROM {self._reader}([{paths}], union_by_name = {not alike}{hive}{options})"

    def typed(
        self,
        connection: DuckDBPyConnection,
        files: Sequence[File],
        known: Mapping[str, str],
        names: Sequence[str],
        *,
        named: bool = False,
    ) -> str:
        """The columns of these names as a SELECT, with the source's types; without files, no rows of them.

        named: each row with the name of its file, too
        Raises Misconfigured where a column holds what does not fit into the type that the source has.
        """
        if not files:
            return f"SELECT {', '.join(_as_known(name, known[name], None) for name in names)} WHERE false"
        found, samples = known, self._samples(connection, files)
        if frozenset(files) != self._described:
            found = described(connection, self.rows(samples, known))
        have = {name.lower(): of for name, of in found.items()}  # files may spell a column in several ways
        other = {name: have[name.lower()] for name in names if have.get(name.lower(), known[name]) != known[name]}
        for name, of in other.items():
            if not self._fits(connection, of, known[name]):
                raise Misconfigured(
                    f"source.files: column {name!r} is {of} in some files, and {known[name]} in those that say what "
                    "columns there are",
                    hint="Read the files with source.query, which can cast it.",
                )
        options = ""
        if other and self._footers is None:
            options = self._as_text(other, found, known)
            have |= {name.lower(): known[name] for name in other}
        columns = [_as_known(name, known[name], have.get(name.lower())) for name in names]
        if named:
            columns.append(quote_identifier(FILE))
            options += f", filename = {quote_literal(FILE)}"
        return f"SELECT {', '.join(columns)} FROM ({self.rows(files, known, options, alike=len(samples) == 1)})"

    def _fits(self, connection: DuckDBPyConnection, of: str, known: str) -> bool:
        """Whether each value of a type is one of another, so that no cast rounds anything."""
        if self._footers is None and of in ("VARCHAR", "JSON"):
            return True  # perhaps without any value; what is in the text is parsed as the known type, or refused
        sql = f"SELECT CAST(NULL AS {of}) AS c UNION ALL SELECT CAST(NULL AS {known})"
        return described(connection, sql)["c"] == known

    def _as_text(self, other: Mapping[str, str], found: Mapping[str, str], known: Mapping[str, str]) -> str:
        """The reader's options by which text is read as the source's types, not as what some files alone look like:
        in these, '01' might be 1."""
        lower = {name.lower(): known[name] for name in other}
        if self._reader == "read_json":
            types = {name: lower.get(name.lower(), of) for name, of in found.items()}
        else:
            types = {name: lower[name.lower()] for name in found if name.lower() in lower}
        listed = ", ".join(f"{quote_literal(name)}: {quote_literal(of)}" for name, of in types.items())
        return f", {'columns' if self._reader == 'read_json' else 'types'} = {{{listed}}}"

    def _samples(self, connection: DuckDBPyConnection, files: Sequence[File]) -> list[File]:
        """Files that together have the same columns as all: of parquet, one for each kind of schema and folder."""
        if self._footers is None:
            return list(files)
        folders = {file.path.rpartition("/")[0] for file in files}
        kinds = _kinds(connection, {value for folder in folders for _, value in _hive(folder)})
        likeness = {folder: tuple((name, kinds[value]) for name, value in _hive(folder)) for folder in folders}
        chosen: dict[object, File] = {}
        for file, footer in zip(files, self._footers.of(files), strict=True):
            chosen.setdefault((footer.schema, likeness[file.path.rpartition("/")[0]]), file)
        return list(chosen.values())


def _moment(position: int) -> datetime:
    try:
        return to_datetime(position).replace(tzinfo=None)
    except OverflowError:
        return datetime.min if position < 0 else datetime.max  # noqa: DTZ901 - paths are named by naive moments


def _hive(folder: str) -> list[tuple[str, str]]:
    """The columns that a path's folders name: `year=2024/month=05` → year, month."""
    return [(name, value) for part in folder.split("/") for name, mark, value in [part.partition("=")] if mark]


def _kinds(connection: DuckDBPyConnection, values: Collection[str]) -> dict[str, str]:
    """What is alike of texts as DuckDB tells types by them: the form of a date, a time or an integer; empty for what
    is none of them."""
    kinds = dict.fromkeys(values, "")
    for of in ("DATE", "TIMESTAMP", "BIGINT") if values else ():
        sql = f"SELECT v FROM (SELECT unnest($values) AS v) WHERE TRY_CAST(v AS {of}) IS NOT NULL"
        for (value,) in connection.execute(sql, {"values": list(values)}).fetchall():
            kinds[value] += f"{of} {re.sub('[0-9]', '9', value)} "
    return kinds


def described(connection: DuckDBPyConnection, rows: str) -> dict[str, str]:
    """The columns of a SELECT, with their DuckDB types."""
    return {str(row[0]): str(row[1]) for row in connection.execute(f"DESCRIBE SELECT * FROM ({rows})").fetchall()}


def _as_known(name: str, known: str, have: str | None) -> str:
    """A column with the type that the source has, though the files that are read may lack it."""
    column = quote_identifier(name)
    if have == known:
        return column
    return f"CAST({'NULL' if have is None else column} AS {known}) AS {column}"

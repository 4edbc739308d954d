"""A Kafka topic as a source of lanes: each partition is one, and its offsets are the positions.

A range of offsets is read by assigning the partition, never by joining the group: what is read is what the ledger
says, whoever else consumes the topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import duckdb
import pyarrow as pa

from tidepost.cursor import CursorKind, CursorType
from tidepost.errors import Misconfigured
from tidepost.ports import CURSOR, FAULT, Extent, Relation, Survey
from tidepost.ranges import Range
from tidepost.sources.kafka.client import Cluster, partitions_of
from tidepost.sources.kafka.columns import Column, headers_of, keyed, select
from tidepost.sources.kafka.group import Following, member, named
from tidepost.sources.kafka.messages import Arriving, Texts, schema
from tidepost.sql import quote_identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ARRIVING = "tidepost_messages"
"""The name of the arriving messages in the caller's DuckDB connection."""
KIND = CursorKind(CursorType.INTEGER)


@dataclass(frozen=True, slots=True)
class Reading:
    """What every lane of a topic shares.

    job:       its name, for what to type
    on_poison: `reject`, or `stop` before it
    lose:      records positions that are gone and were given up; None where nobody gave them up
    texts:     makes values texts of JSON; None where they are
    """

    cluster: Cluster
    columns: Mapping[str, Column]
    job: str
    on_poison: str = "reject"
    lose: Callable[[str, Range], None] | None = None
    texts: Texts | None = None

    def missing(self, name: str, window: Range) -> None:
        """As `ports.OfLanes.missing`."""
        if self.lose is not None:
            self.lose(name, window)
            return
        raise Misconfigured(
            f"{self.job}: {window.end - window.start} offsets of {name}, {window.start} to {window.end - 1}, are "
            "gone before they were read: the topic's retention was faster",
            safe="Nothing after them was read; the mark stays before them.",
            hint=f"To go on without them, which is recorded:  tidepost run {self.job} --accept-loss",
        )


class KafkaSource:
    """Satisfies `ports.Source` and `ports.OfLanes`."""

    def __init__(self, reading: Reading, following: Following | None = None) -> None:
        self._reading = reading
        self._cluster = reading.cluster
        self._following = following

    def columns(self) -> Mapping[str, str]:
        return {name: column.duckdb for name, column in self._reading.columns.items()}

    def cursor(self) -> CursorKind:
        return KIND

    def clock(self) -> float | None:
        return None

    def warnings(self) -> Sequence[str]:
        return ()

    def survey(self, window: Range) -> Survey:
        self._refuse()

    def read(self, connection: DuckDBPyConnection, window: Range, columns: Sequence[str]) -> NoReturn:
        self._refuse()

    def lanes(self) -> Mapping[str, Extent]:
        mine = None if self._following is None else self._following.partitions()
        if mine is not None and not mine:
            return {}
        with self._cluster.consumer() as consumer:
            return {
                f"{self._cluster.topic}/{partition}": self._cluster.held(consumer, partition)
                for partition in self._cluster.partitions(consumer)
                if mine is None or partition in mine
            }

    def lane(self, name: str, *, empty: bool = False, again: bool = False) -> KafkaLane:
        if not self._ours(name):
            raise Misconfigured(
                f"{self._reading.job}: {name} is to be read, and the topic is {self._cluster.topic} now",
                safe="Nothing was lost.",
                hint="Put source.kafka.topic back, and run once more before it changes.",
            )
        return KafkaLane(self, self._reading, name, empty=empty, again=again)

    def missing(self, name: str, window: Range) -> None:
        self._reading.missing(name, window)

    def holds(self, name: str) -> bool:
        return self._following is None or (
            self._ours(name) and partitions_of([name])[0] in self._following.partitions()
        )

    @contextmanager
    def share(self, only: Sequence[int] | None) -> Iterator[KafkaSource]:
        with member(self._cluster) if only is None else named(self._cluster, only) as following:
            yield KafkaSource(self._reading, following)

    def mirror(self, marks: Mapping[str, int]) -> None:
        ours = {
            partitions_of([name])[0]: mark for name, mark in marks.items() if self._ours(name) and self.holds(name)
        }
        if not ours:
            return
        if self._following is not None:
            self._following.commit(ours)
        else:
            with self._cluster.consumer() as consumer:
                self._cluster.commit(consumer, ours)

    def _ours(self, name: str) -> bool:
        return name.rpartition("/")[0] == self._cluster.topic

    def _refuse(self) -> NoReturn:
        raise Misconfigured(
            f"{self._reading.job}: offsets belong to a partition, so that a range of them alone names no rows",
            safe="Nothing was changed.",
        )


class KafkaLane:
    """One partition. Satisfies `ports.Source`."""

    def __init__(self, whole: KafkaSource, reading: Reading, name: str, *, empty: bool, again: bool) -> None:
        self._whole = whole
        self._reading = reading
        self._name = name
        self._empty = empty
        self._again = again
        (self._partition,) = partitions_of([name])

    def columns(self) -> Mapping[str, str]:
        return self._whole.columns()

    def cursor(self) -> CursorKind:
        return KIND

    def clock(self) -> float | None:
        return None

    def warnings(self) -> Sequence[str]:
        return ()

    def survey(self, window: Range) -> Survey:
        """Counts offsets: some of them may hold no message (of transactions, or compacted)."""
        with self._reading.cluster.consumer() as consumer:
            has = self._reading.cluster.held(consumer, self._partition)
        inside = window.clamp(Range(has.first, has.end)) if has.first < has.end else None
        if inside is None:
            return Survey(None, ())
        return Survey(inside.end - 1, ((inside.start, inside.end - inside.start),))

    @contextmanager
    def read(self, connection: DuckDBPyConnection, window: Range, columns: Sequence[str]) -> Iterator[Relation]:
        reading, headers = self._reading, headers_of(tuple(self._reading.columns.values()))
        cluster = reading.cluster
        sql = select(reading.columns, columns, topic=cluster.topic, partition=self._partition, rows=ARRIVING)
        if reading.on_poison == "stop":
            sql = self._stopping(sql)
        with cluster.consumer() as consumer:
            arriving = Arriving(
                cluster,
                consumer,
                self._partition,
                window,
                headers,
                keyed(reading.columns.values()),
                (lambda _: None) if self._again else (lambda gone: reading.missing(self._name, gone)),
                reading.texts,
            )
            if not self._empty:
                arriving.begin()
            batches = iter(()) if self._empty else arriving.batches()
            connection.register(ARRIVING, pa.RecordBatchReader.from_batches(schema(len(headers)), batches))
            try:
                yield Relation(sql, {}, judged=True)
            except duckdb.Error as error:
                if arriving.failed is not None:
                    raise arriving.failed from error
                raise self._poisoned(error) from error
            finally:
                connection.unregister(ARRIVING)

    def _stopping(self, sql: str) -> str:
        """The same, failing at the first message that is poison."""
        fault, at = quote_identifier(FAULT), quote_identifier(CURSOR)
        said = f"error('{POISON}' || {at} || ': ' || {fault})"
        return f"SELECT * FROM ({sql}) WHERE CASE WHEN {fault} IS NULL THEN true ELSE {said} END"

    def _poisoned(self, error: duckdb.Error) -> Exception:
        _, found, what = str(error).partition(POISON)
        if not found:
            return error
        return Misconfigured(
            f"{self._reading.job}: {self._name}, offset {what.splitlines()[0]}",
            safe="Nothing was lost: the mark stays before it.",
            hint="`source.kafka.on_poison: reject` sets such messages aside and goes on.",
        )


POISON = "tidepost poison at "

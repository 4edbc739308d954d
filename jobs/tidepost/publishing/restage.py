"""Staging again what was purged: the same rows, by id and content, from the source, under the same names.

The slice's range is read through the job's shape; of what comes, exactly the rows that the sidecars name are kept. If
one of them is gone or has changed, nothing is brought back: what was published is immutable. Labels that were held or
dropped come from the file that their slice was made of, which has to be the same.

Files are finished out of sight, their new sizes go to the manifest, the files become visible, and one ledger
transaction records it. Killed between any two, it is done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from tidepost.engine import BATCH_ROWS
from tidepost.errors import Misconfigured
from tidepost.labels.holding import LANE as HELD
from tidepost.labels.holding import read_held
from tidepost.leases import Keeper
from tidepost.model import Cut, Delivery, Part, Slice, Stream
from tidepost.ports import OfLanes, PartRef, Relation, lane_of
from tidepost.publishing.intake import TAKEN_ONCE
from tidepost.publishing.publish import manifest_key
from tidepost.publishing.stage import Stage
from tidepost.rows.index import CONTENT, content_of, sidecar_of
from tidepost.rows.shape import ID, REASON, Shape
from tidepost.rows.writer import ParquetFile, staged_schema
from tidepost.sql import quote_identifier

_CONTENT = quote_identifier("tidepost:content")
_PART = "CAST(regexp_extract(_part, '-([0-9]+)[.]parquet$', 1) AS INTEGER)"


@dataclass(frozen=True, slots=True)
class Restage:
    """What staging again needs. For one thread: it shares the stage's connection to DuckDB."""

    stage: Stage
    keeper: Keeper

    def needed(self, delivery: Delivery) -> bool:
        """Whether parts of a delivery's slice are purged."""
        return bool(_purged(self.stage.ledger.deliveries.contents(delivery)[0]))

    def bring_back(self, stream: Stream, delivery: Delivery) -> bool:
        """Give the purged parts of a delivery's slice their files again; False where none is purged.

        Raises Misconfigured, telling how many rows differ, where the source does not hold exactly these rows any
        more; Retryable for a source or a disk that does not answer; HeldElsewhere where another run does the same.
        Nothing has changed then.
        """
        deliveries = self.stage.ledger.deliveries
        listed = deliveries.contents(delivery)[0]
        if not _purged(listed):
            return False
        cut = listed.cut
        with self.keeper.holding("cut", cut) as lease:
            known = deliveries.contents(delivery)[0]  # as it is now that nobody else works on it
            gone = _purged(known)
            if gone:
                folder = self.stage.staging.scratch(stream, cut, lease.fence)
                with self.stage.told(f"staging slice {known.sequence} again"):
                    finished = self._write(stream, known, gone, folder)
                parts = [self.stage.staging.prepare(stream, part, file) for part, file in finished]
                self.keeper.guard(lease)
                self._rewrite_manifest(stream, known.sequence, parts)
                for part in parts:
                    self.stage.staging.reveal(stream, part)
                self.keeper.guard(lease)
                self.stage.ledger.slices.restaged(stream, known.sequence, parts)
                self.stage.staging.clear(stream, cut, lease.fence)
        return True

    def _write(self, stream: Stream, known: Slice, gone: Sequence[Part], folder: Path) -> list[tuple[Part, Path]]:
        """The files of purged parts, finished in a folder. Raises Misconfigured where they would not be the same."""
        connection, target = self.stage.connection, self.stage.shape(stream)
        names = ", ".join(quote_identifier(name) for name in target.staged)
        sidecars = [sidecar_of(PartRef(known.sequence, part)) for part in gone]
        wanted = self.stage.staging.relation(connection, stream, sidecars)
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE tidepost_wanted AS SELECT {ID} AS id, lower(hex({CONTENT})) AS content, "
            f"{_PART} AS part FROM ({wanted.sql})",
            dict(wanted.values),
        )
        with self._rows(target, stream, known) as relation:
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE tidepost_again AS SELECT *, {content_of(tuple(target.staged))} "
                f"AS {_CONTENT} FROM (SELECT {names} FROM ({relation.sql}) "
                f"WHERE {quote_identifier(REASON)} IS NULL AND {ID} IN (SELECT id FROM tidepost_wanted)) AS r "
                f"QUALIFY row_number() OVER (PARTITION BY {ID}, {_CONTENT}) = 1",
                dict(relation.values),
            )
        self._refuse_others(stream, known)
        return [self._file(part, folder, tuple(target.staged)) for part in gone]

    @contextmanager
    def _rows(self, target: Shape, stream: Stream, known: Slice) -> Iterator[Relation]:
        """The rows of a slice's range as they are staged: from the source, or from the file that it was made of.
        Raises Misconfigured where that file is not the same any more."""
        if known.lane in TAKEN_ONCE:
            yield self._of_file(target, stream, known)
            return
        source = lane_of(self.stage.source, known.lane, again=True)
        with source.read(self.stage.connection, known.range, target.reads) as relation:
            yield Relation(target.sql(relation.sql, judged=relation.judged), relation.values)

    def _of_file(self, target: Shape, stream: Stream, known: Slice) -> Relation:
        """The rows of a file of labels that was dropped, while it is the one that was taken up, or was held."""
        try:
            if known.lane == HELD:
                read_held(self.stage.records, stream, known.range.start)
            cut = Cut(known.cut, known.kind, known.range, known.lane)
            return self.stage.intake.of_file(target, stream, cut)
        except Misconfigured as error:
            raise Misconfigured(
                f"{stream.job}: the files of slice {known.sequence} were purged, and {error.message}",
                safe="Nothing was sent: what was published is immutable.",
                hint="Bring it back as it was, the time of its last change included, or the data files from a copy "
                "of the staging.",
            ) from None

    def _refuse_others(self, stream: Stream, known: Slice) -> None:
        """Raises Misconfigured where a row is wanted that the source does not hold."""
        ((absent, changed),) = self.stage.connection.execute(
            f"SELECT count(*) FILTER (id NOT IN (SELECT {ID} FROM tidepost_again)), "
            f"count(*) FILTER (id IN (SELECT {ID} FROM tidepost_again)) FROM tidepost_wanted "
            f"WHERE (id, content) NOT IN (SELECT ({ID}, {_CONTENT}) FROM tidepost_again)"
        ).fetchall()
        if absent or changed:
            raise Misconfigured(
                f"{stream.job}: the files of slice {known.sequence} were purged, and its source is not what it was: "
                f"of {known.rows} rows {absent} are gone and {changed} have changed{self._begins(known)}",
                safe="Nothing was sent: what was published is immutable.",
                hint="Bring the rows back to the source as they were, or the data files from a copy of the staging.",
            )

    def _begins(self, known: Slice) -> str:
        """Of a lane, what it has let go of the slice's range."""
        source = self.stage.source
        held = source.lanes().get(known.lane) if known.lane and isinstance(source, OfLanes) else None
        if held is None or held.first <= known.range.start:
            return ""
        begins = known.range.start
        return f"; {known.lane} holds nothing below {held.first} any more, and the slice begins at {begins}"

    def _file(self, part: Part, folder: Path, columns: Sequence[str]) -> tuple[Part, Path]:
        names = ", ".join(f"a.{quote_identifier(name)}" for name in columns)
        reader = self.stage.connection.execute(
            f"SELECT {names} FROM tidepost_again AS a JOIN tidepost_wanted AS w "
            f"ON a.{ID} = w.id AND a.{_CONTENT} = w.content WHERE w.part = $part",
            {"part": part.number},
        ).to_arrow_reader(BATCH_ROWS)
        schema = staged_schema(reader.schema, columns)
        file, rows = ParquetFile(folder / f"{part.number:05d}.parquet", schema), 0
        for batch in reader:
            file.write(pa.Table.from_batches([batch]).cast(schema))
            rows += batch.num_rows
        sha256 = file.close()
        if rows != part.rows:
            raise Misconfigured(
                f"staging: the sidecar of {part.path} tells of {rows} rows, and {part.rows} were published",
                safe="Nothing was changed.",
                hint="Bring the sidecar back from a copy of the staging.",
            )
        return replace(part, size=file.size, sha256=sha256, token="", purged=False), file.path

    def _rewrite_manifest(self, stream: Stream, sequence: int, parts: Sequence[Part]) -> None:
        """The same slice in files of other sizes; what else the manifest says stays."""
        key, again = manifest_key(stream, sequence), {part.number: part for part in parts}
        data = self.stage.records.get(key)
        if data is None:
            raise Misconfigured(
                f"staging: {key} is missing: slice {sequence} was published",
                safe="Nothing was changed.",
                hint="Bring the file back from a copy of the staging.",
            )
        content = json.loads(data)
        for one in content["parts"]:
            if one["number"] in again:
                one |= {"size": again[one["number"]].size, "sha256": again[one["number"]].sha256}
        self.stage.records.put(key, json.dumps(content, sort_keys=True).encode())


def _purged(of: Slice) -> list[Part]:
    return [part for part in of.parts if part.purged]

"""A parquet file that was offered: its columns checked against the model's, its rows against the rules.

Rules as Arthur documents them: a prediction, an id and a timestamp are never null, a timestamp has a zone, a batch
model's row names its batch. A column that breaks them fails the file; a row fails alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from tidepost.sandbox.catalog import STORED_AS, BadRequest, Column, Model, Stream
from tidepost.sandbox.database import quoted, run

_WHOLE = frozenset("TINYINT SMALLINT INTEGER BIGINT UTINYINT USMALLINT UINTEGER".split())
_TAKEN_AS = {
    "INTEGER": _WHOLE,
    "FLOAT": _WHOLE | {"FLOAT", "DOUBLE"},
    "STRING": frozenset({"VARCHAR"}),
    "UNSTRUCTURED_TEXT": frozenset({"VARCHAR"}),
    "BOOLEAN": frozenset({"BOOLEAN"}),
    "TIMESTAMP": frozenset({"TIMESTAMP WITH TIME ZONE"}),
}


@dataclass(frozen=True, slots=True)
class Offer:
    """The rows of a parquet file whose columns were found right.

    batch_id:  the batch that the request names; it wins over a column of that name
    present:   the names of the columns that hold values
    """

    path: Path
    model: Model
    stream: Stream
    batch_id: str | None
    present: frozenset[str]

    @property
    def sql(self) -> str:
        """A subquery (needs `$path`, perhaps `$batch`) with `#row`, `#reason` (null: the row is good), `#id`, `#at`,
        `#batch`, `#label_at`, `#labelled` and every attribute by its name and in the type it is stored in."""
        attributes = "".join(
            f", {self._value(a.name, a.value_type)} AS {quoted(a.name)}" for a in self.model.attributes
        )
        batch = "CAST($batch AS VARCHAR)" if self.batch_id is not None else self._value("batch_id", "STRING")
        labelled = " AND ".join(f"{label} IS NOT NULL" for label in self._labels()) or "false"
        return f"""(SELECT file_row_number AS "#row", {self._reason()} AS "#reason",
            {self._value("partner_inference_id", "STRING")} AS "#id",
            {self._value("inference_timestamp", "TIMESTAMP")} AS "#at", {batch} AS "#batch",
            {self._value("ground_truth_timestamp", "TIMESTAMP")} AS "#label_at", {labelled} AS "#labelled"{attributes}
            FROM read_parquet($path, file_row_number = true))"""

    def run(self, cur: duckdb.DuckDBPyConnection, sql: str, **values: object) -> list[tuple[object, ...]]:
        """Runs a query that holds `self.sql`."""
        return run(cur, sql, path=str(self.path), batch=self.batch_id, **values)

    def failures(self, cur: duckdb.DuckDBPyConnection) -> dict[str, int]:
        """How many rows break a rule, by rule."""
        rows = self.run(cur, f'SELECT "#reason", count(*) FROM {self.sql} GROUP BY 1 ORDER BY 1')
        return {str(reason): int(str(count)) for reason, count in rows if reason is not None}

    def batches(self, cur: duckdb.DuckDBPyConnection) -> list[str]:
        """The batches that the rows name."""
        if self.stream != "inferences" or (self.batch_id is None and "batch_id" not in self.present):
            return []
        rows = self.run(cur, f'SELECT DISTINCT "#batch" FROM {self.sql} WHERE "#batch" IS NOT NULL ORDER BY 1')
        return [str(batch) for (batch,) in rows]

    @property
    def has_labels(self) -> bool:
        """Whether any row may carry ground truth."""
        return any(attribute.name in self.present for attribute in self.model.labels)

    def _labels(self) -> list[str]:
        if not self.has_labels:
            return []
        return [self._value(attribute.name, attribute.value_type) for attribute in self.model.labels]

    def _value(self, name: str, value_type: str) -> str:
        return f"CAST({quoted(name) if name in self.present else 'NULL'} AS {STORED_AS[value_type]})"

    def _reason(self) -> str:
        cases: list[tuple[str, str]] = []
        for column in self.model.columns(self.stream, batch_named=self.batch_id is not None):
            if column.nullable:
                continue
            name = quoted(column.name)
            cases.append((f"{name} IS NULL" if column.name in self.present else "true", f"{column.name} is null"))
            if column.name == "partner_inference_id":
                cases.append((f"{name} = ''", f"{column.name} is empty"))
            if column.value_type == "FLOAT" and column.name in self.present:
                cases.append((f"NOT isfinite(CAST({name} AS DOUBLE))", f"{column.name} is not a finite number"))
        if self.stream == "inferences" and (labels := self._labels()):
            known_at = self._value("ground_truth_timestamp", "TIMESTAMP")
            some = " OR ".join(f"{label} IS NOT NULL" for label in labels)
            every = " AND ".join(f"{label} IS NOT NULL" for label in labels)
            cases.append((f"({some}) AND NOT ({every})", "some ground truth attributes are null and others are not"))
            cases.append((f"({some}) AND {known_at} IS NULL", "ground_truth_timestamp is null"))
        branches = " ".join(f"WHEN {condition} THEN '{message}'" for condition, message in cases)
        return f"CASE {branches} END" if cases else "CAST(NULL AS VARCHAR)"


def inspect(
    cur: duckdb.DuckDBPyConnection, path: Path, model: Model, stream: Stream, *, batch_id: str | None
) -> Offer:
    """The offer in a parquet file; BadRequest when it cannot be read, or a column is missing, unknown or of another
    type. A column that is null throughout fits every type, as writers choose one for it at random."""
    try:
        found = {
            str(name): str(kind)
            for name, kind, *_ in run(cur, "DESCRIBE SELECT * FROM read_parquet($path)", path=str(path))
        }
    except duckdb.Error as error:
        raise BadRequest("the file is not a readable parquet file") from error
    columns = {column.name: column for column in model.columns(stream, batch_named=batch_id is not None)}
    for name in found:
        if name not in columns:
            raise BadRequest(f"column {name!r} is not an attribute of the model")
    empty = _null_throughout(cur, path, found, columns)
    for name, column in columns.items():
        if name not in found:
            if column.required:
                raise BadRequest(f"column {name!r} is missing")
        elif name not in empty and found[name] not in _TAKEN_AS[column.value_type]:
            raise BadRequest(_wrong_type(column, found[name]))
    if stream == "inferences":
        _check_labels(model, found)
    return Offer(path, model, stream, batch_id, frozenset(found) - empty)


def _null_throughout(
    cur: duckdb.DuckDBPyConnection, path: Path, found: dict[str, str], columns: dict[str, Column]
) -> frozenset[str]:
    odd = [name for name, kind in found.items() if kind not in _TAKEN_AS[columns[name].value_type]]
    if not odd:
        return frozenset()
    counts = ", ".join(f"count({quoted(name)})" for name in odd)
    try:
        (row,) = run(cur, f"SELECT {counts} FROM read_parquet($path)", path=str(path))
    except duckdb.Error as error:
        raise BadRequest("the file is not a readable parquet file") from error
    return frozenset(name for name, count in zip(odd, row, strict=True) if count == 0)


def _wrong_type(column: Column, found: str) -> str:
    if column.value_type == "TIMESTAMP" and found.startswith("TIMESTAMP"):
        return f"column {column.name!r} is a timestamp without a time zone"
    return f"column {column.name!r} must be of type {column.value_type}, not {found}"


def _check_labels(model: Model, found: dict[str, str]) -> None:
    given = [attribute.name for attribute in model.labels if attribute.name in found]
    if given and "ground_truth_timestamp" not in found:
        raise BadRequest(f"column 'ground_truth_timestamp' is missing, although {given[0]!r} is there")
    missing = [attribute.name for attribute in model.labels if attribute.name not in found]
    if given and missing:
        raise BadRequest(f"column {missing[0]!r} is missing, although {given[0]!r} is there")

"""Staged rows as Arize takes them, batch by batch: cast, and without those that break one of its rules.

The rules are those of Arize's Python SDKs 7.54 and 8.61, which refuse a whole frame for one such row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tidepost.destinations.arize.columns import roles
from tidepost.destinations.arize.options import ArizeOptions
from tidepost.destinations.arize.schema import Columns
from tidepost.destinations.arize.types import Role, wire_type
from tidepost.errors import Refused

LONGEST_ID: Final = 512
LONGEST_TAG: Final = 20_000
LAST_RANK: Final = 100
YEAR: Final = 365 * 86_400
OLDEST, NEWEST = 5 * YEAR, YEAR
"""Seconds before and after now that a timestamp may lie."""

_GREATEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Rows:
    """How the batches of one file become those that go.

    schema: of what goes, without metadata
    now:    seconds since 1970
    """

    options: ArizeOptions
    columns: Columns
    schema: pa.Schema
    now: float

    @classmethod
    def of(cls, options: ArizeOptions, columns: Columns, staged: pa.Schema, now: float) -> Rows:
        """For a file of that schema. Raises Refused, naming every column that is not there or does not fit."""
        fields, wrong = [], []
        for name, role in roles(options, columns).items():
            at = staged.get_field_index(name)
            type_ = None if at < 0 else wire_type(role, staged.field(at).type)
            if type_ is None:
                wrong.append(name if at < 0 else f"{name} ({staged.field(at).type})")
            else:
                fields.append(pa.field(name, type_))
        if wrong:
            raise Refused(f"columns are not there, or of a type that Arize does not take: {', '.join(wrong)}")
        return cls(options, columns, pa.schema(fields), now)

    def faults(self, batch: pa.RecordBatch) -> tuple[pa.BooleanArray | None, Counter[str]]:
        """Which rows may go (None: all of them), and what is wrong with how many of the others."""
        bad, counted = None, Counter[str]()
        for reason, mask in self._faults(batch):
            fresh = pc.fill_null(mask, False)
            if bad is not None:
                fresh = pc.and_not(fresh, bad)
            rows = pc.sum(fresh).as_py() or 0
            if rows:
                counted[reason] += rows
                bad = fresh if bad is None else pc.or_(bad, fresh)
        return (None if bad is None else pc.invert(bad)), counted

    def sendable(self, batch: pa.RecordBatch, kept: pa.BooleanArray | None) -> pa.RecordBatch:
        """The rows that may go, in the types in which they go."""
        if kept is not None:
            batch = batch.filter(kept)
        arrays = [_cast(batch.column(field.name), field.type) for field in self.schema]
        return pa.record_batch(arrays, schema=self.schema)

    def _faults(self, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.BooleanArray]]:
        yield from _unnamed("id", batch.column(self.columns.prediction_id))
        if self._ranking:
            yield from _unnamed("group", batch.column(self.columns.group))
            rank = batch.column(self.columns.rank)
            yield (
                f"the rank is not from 1 to {LAST_RANK}",
                pc.or_kleene(pc.is_null(rank), _outside(rank, 1, LAST_RANK)),
            )
        if self.columns.timestamp:
            yield from self._untimely(batch.column(self.columns.timestamp))
        for what, names in self._needed():
            yield f"there is no {what}", _all_missing([batch.column(name) for name in names])
        for name, role in roles(self.options, self.columns).items():
            column = batch.column(name)
            if role is Role.TAG and pa.types.is_string(column.type):
                yield (
                    f"{name} has more than {LONGEST_TAG} characters",
                    pc.greater(pc.utf8_length(column), LONGEST_TAG),
                )
            elif pa.types.is_decimal(column.type) or pa.types.is_uint64(column.type):
                yield f"{name} is beyond what 64 bits hold", _beyond(column)

    def _untimely(self, times: pa.Array) -> Iterator[tuple[str, pa.BooleanArray]]:
        unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[times.type.unit]
        first, last = int((self.now - OLDEST) * unit), int((self.now + NEWEST) * unit)
        yield "the timestamp is missing", pc.is_null(times)
        yield "the timestamp is more than 5 years ago or 1 year ahead", _outside(times.cast(pa.int64()), first, last)

    def _needed(self) -> Iterator[tuple[str, list[str]]]:
        """Of which columns a row must have at least one."""
        of = self.columns
        ranked = [of.group, of.rank] if self._ranking else []
        predicted = [name for name in (of.prediction_label, of.prediction_score, *ranked) if name]
        actual = [name for name in (of.actual_label, of.actual_score) if name]
        if self.options.environment == "production":
            yield "prediction, actual or SHAP value", [*predicted, *actual, *of.shap.values()]
        else:
            yield "prediction", predicted
            yield "actual value", actual

    @property
    def _ranking(self) -> bool:
        """Whether these are predictions of a ranking, each with its place in its group."""
        return bool(self.columns.group and self.columns.rank) and self.options.model_type == "ranking"


def _unnamed(what: str, ids: pa.Array) -> Iterator[tuple[str, pa.BooleanArray]]:
    yield f"the {what} is missing", pc.is_null(ids)
    if pa.types.is_string(ids.type):
        length = pc.utf8_length(ids)
        yield f"the {what} has not 1 to {LONGEST_ID} characters", _outside(length, 1, LONGEST_ID)


def _all_missing(columns: list[pa.Array]) -> pa.BooleanArray:
    missing = [pc.is_null(column, nan_is_null=True) for column in columns]
    found = missing[0]
    for one in missing[1:]:
        found = pc.and_(found, one)
    return found


def _outside(values: pa.Array, low: int, high: int) -> pa.BooleanArray:
    return pc.or_(pc.less(values, low), pc.greater(values, high))


def _beyond(column: pa.Array) -> pa.BooleanArray:
    """Which integers no signed one of 64 bits holds; of decimals with a fraction, whose type says it, none."""
    if pa.types.is_uint64(column.type):
        return pc.greater(column, pa.scalar(_GREATEST, pa.uint64()))
    if column.type.scale or column.type.precision <= 18:
        return pa.repeat(pa.scalar(False), len(column))
    wide = column.cast(pa.decimal128(38, 0))
    low, high = (pa.scalar(Decimal(one), pa.decimal128(38, 0)) for one in (-_GREATEST - 1, _GREATEST))
    return pc.or_(pc.less(wide, low), pc.greater(wide, high))


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    return column if column.type == type_ else column.cast(type_)

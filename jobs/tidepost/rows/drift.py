"""Drift: what the source's columns are now, compared with what they were, with the mapping, and file by file.

The mapping's own part, a mapped column that is gone or of a type that does not fit, is `shape.shape`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tidepost.definition.job import Job, MappingDefinition
from tidepost.errors import Misconfigured
from tidepost.ports import Layout
from tidepost.rows.recast import INTEGERS, has_one_text
from tidepost.rows.shape import MISSING, WRONG, Shape

NULL = '"NULL"'
"""The type of a parquet column that holds no value at all, and so fits every type."""
NAIVE = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"})
ANY_INTEGER = frozenset({*INTEGERS, "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"})


def check_pinned(staged: Mapping[str, str], pinned: Mapping[str, str]) -> None:
    """Raises Misconfigured where the mapping gives other columns or types than those that the stream's first slice
    pinned (empty before it)."""
    changed = [
        f"{name} was {pinned.get(name, 'not sent')} in the slices before, and is {staged.get(name, 'not sent')} now"
        for name in dict.fromkeys([*pinned, *staged])
        if pinned and pinned.get(name) != staged.get(name)
    ]
    if changed:
        raise Misconfigured(
            f"mapping: it does not give what the slices before hold:{_listed(changed)}",
            safe="Nothing was staged or sent.",
            hint="What a stream sends is fixed by its first slice. Put the mapping back (a new column goes under "
            "mapping.ignore); or rename the job, which uploads everything under its new name from the start, to a "
            "model of its own.",
        )


def check_source(job: Job, before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Compare the source's columns (name → DuckDB type) with those that an earlier run left, empty for the first run.

    Returns what changed of the columns that are not read, in words, to be told once. Raises Misconfigured where a
    column that ids or times are made of changed its type, and for new columns where the job wants it so.
    """
    if not before:
        return ()
    mapping = job.mapping
    _check_keys(mapping, before, now)
    new = [name for name in now if name not in before and name not in (*_used(job), *mapping.ignore)]
    if new and job.drift == "fail":
        raise Misconfigured(
            "source: it has new columns, which are neither mapped nor ignored:"
            + _listed(f"{name} ({now[name]})" for name in new),
            safe="Nothing was staged or sent.",
            hint=f"Leave them out with `mapping: {{ignore: [{', '.join([*mapping.ignore, *new])}]}}`; what a stream "
            "sends is fixed by its first slice, so that sending them takes a job of another name.",
        )
    left = [name for name in before if name not in _used(job)]
    return (
        *(f"column {name} ({now[name]}) is new in the source; it is not sent" for name in new),
        *(
            f"column {name} ({before[name]}) is gone from the source; it was never sent"
            for name in left
            if name not in now
        ),
        *(
            f"column {name} was {before[name]} in the source and is {now[name]}; it is not sent"
            for name in left
            if name in now and now[name] != before[name]
        ),
    )


def _used(job: Job) -> tuple[str, ...]:
    return (*job.mapping.columns, job.cursor.column)


def _check_keys(mapping: MappingDefinition, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Ids and times of another type may be others: rows that were sent would not be recognised."""
    changed = [
        f"{name} was {before[name]} and is {now[name]}"
        for name in mapping.keys
        if name in before and name in now and not _same_values(before[name], now[name])
    ]
    if changed:
        raise Misconfigured(
            f"source: columns that ids or inference timestamps are made of changed their types:{_listed(changed)}",
            safe="Nothing was staged or sent.",
            hint="Cast them in source.query to what they were: other ids would send rows again.",
        )


def _same_values(before: str, now: str) -> bool:
    """Whether values of both types make the same text, and the same instant."""
    return (
        before == now
        or {before, now} <= ANY_INTEGER
        or {before, now} <= NAIVE
        or all(of == "VARCHAR" or of.startswith("ENUM") for of in (before, now))
    )


# ---------------------------------------------------------------------------------------------------- file by file


@dataclass(slots=True)
class Misfit:
    """A column of which some files do not fit, though all files together do.

    reason: as rejects have it
    column: the source's
    files:  file → its own type of the column, "" where it lacks it
    key:    rows without it cannot be told apart, so that they are not set aside either
    """

    reason: str
    column: str
    wanted: str
    key: bool
    files: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        file, own = next(iter(self.files.items()))
        more = f" and in {len(self.files) - 1} more" if len(self.files) > 1 else ""
        what = f"is {own}, and {self.wanted} elsewhere," if own else "is missing"
        return f"column {self.column!r} {what} in {file}{more}"


def misfits(target: Shape, layouts: Mapping[str, Layout], *, row_by_row: bool) -> tuple[Misfit, ...]:
    """What does not fit of files whose own columns are `layouts`.

    row_by_row: values that have only one text may stand for text
    """
    found: dict[str, Misfit] = {}
    for file, layout in layouts.items():
        for one, own in _misfits(target, layout, row_by_row):
            found.setdefault(one.reason, one).files[file] = own
    return tuple(found.values())


def _misfits(target: Shape, layout: Layout, row_by_row: bool) -> Iterator[tuple[Misfit, str]]:
    for name in target.keys:
        if name.lower() not in layout:
            yield Misfit(f"{MISSING}:{name}", name, "", key=True), ""
    for column in target.columns:
        own = layout.get(column.source.lower())
        if column.of is None or column.source in target.keys:
            continue
        if own is None:
            if not column.optional:
                yield Misfit(f"{MISSING}:{column.name}", column.source, column.type, key=False), ""
        elif not column.declared and not _united(own, column.type, row_by_row):
            yield Misfit(f"{WRONG}:{column.name}", column.source, column.type, key=False), own


def _united(own: str, staged: str, row_by_row: bool) -> bool:
    """Whether a file's column becomes `staged` without a change of meaning, when DuckDB unites it with others.

    Numbers stay numbers; but everything can become text. Every other change shows in all files together.
    """
    if staged != "VARCHAR" or own in ("", NULL, "UUID") or own.startswith("ENUM"):
        return True
    return own == "VARCHAR" or (row_by_row and has_one_text(own))


def check_files(job: Job, found: tuple[Misfit, ...]) -> None:
    """Raises Misconfigured for files that do not fit, unless their rows are to be set aside."""
    fatal = [one for one in found if one.key or job.drift != "quarantine"]
    if fatal:
        raise Misconfigured(
            f"source.files: some do not fit the mapping:{_listed(map(str, fatal))}",
            safe="Nothing of them was staged or sent.",
            hint="Mend the files; or say `drift: quarantine`, which sets such rows aside; or, in the mapping, "
            "{column: …, optional: true} for a column that may be missing, {column: …, type: …} for one of several "
            "types.",
        )


def _listed(lines: Iterator[str] | list[str]) -> str:
    return "".join(f"\n  - {line}" for line in lines)

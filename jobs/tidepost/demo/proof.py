"""The demo's proof: what the logs hold, what was published and what the platform holds, compared row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from tidepost.cursor import HOUR, format_instant, to_datetime
from tidepost.demo.flights import NEW_YORK
from tidepost.demo.landings import never_labelled
from tidepost.labels.dropping import LANE, number_of
from tidepost.model import MICROSECONDS_AN_HOUR, Stream, StreamName
from tidepost.ranges import Range, Ranges
from tidepost.sql import quote_identifier

if TYPE_CHECKING:
    from tidepost.world import World


@dataclass(frozen=True, slots=True)
class Day:
    """Rows whose flights leave on one date in New York.

    labelled:    of them, with a label at the platform
    never:       of them, that get no label: cancelled, or landed without a recorded delay
    """

    date: date
    logged: int
    published: int
    arrived: int
    labelled: int = 0
    never: int = 0

    @property
    def to_come(self) -> int:
        """Flights whose label is still to come: in the air, or in a report that is not due."""
        return self.logged - self.labelled - self.never


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels that the log holds, and those that the platform holds.

    missing: of the log, and not there
    wrong:   there with another value
    unknown: there, and not in the log
    """

    logged: int
    arrived: int
    missing: int
    wrong: int
    unknown: int

    @property
    def equal(self) -> bool:
        return not (self.missing or self.wrong or self.unknown)


@dataclass(frozen=True, slots=True)
class Proof:
    """What the log holds, what was published and what the platform holds, day by day.

    missing: ids of the log that the platform does not hold
    unknown: ids that the platform holds and the log does not
    twice:   rows at the platform beyond the first of their id
    labels:  None where there are none
    """

    days: tuple[Day, ...]
    missing: int
    unknown: int
    twice: int
    labels: Labels | None = None

    @property
    def logged(self) -> int:
        return sum(day.logged for day in self.days)

    @property
    def published(self) -> int:
        return sum(day.published for day in self.days)

    @property
    def arrived(self) -> int:
        return sum(day.arrived for day in self.days)

    @property
    def labelled(self) -> int:
        return sum(day.labelled for day in self.days)

    @property
    def never(self) -> int:
        return sum(day.never for day in self.days)

    @property
    def to_come(self) -> int:
        return sum(day.to_come for day in self.days)

    @property
    def equal(self) -> bool:
        """Whether every row of the log arrived, once, and every label as it is."""
        same = all(day.logged == day.published == day.arrived for day in self.days)
        return same and not (self.missing or self.unknown or self.twice) and (not self.labels or self.labels.equal)


def prove(world: World, stream: Stream, up_to: int, *, labels_up_to: int | None) -> Proof:
    """Count the logs' rows with cursors below `up_to` (nanoseconds), the published ones by the ledger, and ask the
    platform for what it holds: counts by hour, every id, and every label.

    labels_up_to: as `up_to`, of labels; None where there are none
    Raises Retryable where the platform does not answer.
    """
    (destination,) = world.destinations
    flights = _flights(world, up_to)
    logged = Counter(hour for hour, _ in flights.values())
    published = Counter[int]()
    for one in world.ledger.slices.published(stream, None).parts:
        published.update(one.part.hours)
    hours = sorted({*logged, *published})
    arrived: Mapping[int, int] = {}
    there: Counter[str] = Counter()
    if hours:
        window = Range(hours[0], hours[-1] + 1)
        arrived = destination.counts(StreamName.INFERENCES, window)
        for some in destination.ids(StreamName.INFERENCES, _micros(window)):
            there.update(some)
    shown: Values = {}
    labels = None
    if world.labels is not None and labels_up_to is not None:
        due, shown = _labels(world.labels, labels_up_to)
        labels = _compared(due, shown)
    labelled = Counter(flights[id_][0] for id_ in shown if id_ in flights)
    never = Counter(hour for hour, no_label in flights.values() if no_label)
    by_day = [_by_date(of) for of in (logged, published, arrived, labelled, never)]
    dates = sorted({day for of in by_day for day in of})
    return Proof(
        days=tuple(Day(day, *(of[day] for of in by_day)) for day in dates),
        missing=len(flights.keys() - there.keys()),
        unknown=len(there.keys() - flights.keys()),
        twice=there.total() - len(there),
        labels=labels,
    )


def _flights(world: World, up_to: int) -> dict[str, tuple[int, bool]]:
    """The log's ids, each with the hour of its event and whether it never gets a label, read past everything that the
    engine does with them."""
    mapping, cursor = world.job.mapping, quote_identifier(world.job.cursor.column)
    id_ = mapping.partner_inference_id.sql(world.source.columns(), quote_identifier)
    event = quote_identifier(mapping.inference_timestamp.column)
    names = list(world.job.source.files or ())
    with world.engine.connect() as connection:
        connection.register("never", never_labelled())
        rows = connection.execute(
            f"SELECT {id_} AS id, epoch_us({event}) // {MICROSECONDS_AN_HOUR} AS hour, "
            f"(carrier, flight, origin, date) IN (SELECT (carrier, flight, origin, date) FROM never) AS never "
            f"FROM read_parquet($names) WHERE {cursor} < CAST($up_to AS TIMESTAMPTZ)",
            {"names": names, "up_to": format_instant(up_to)},
        ).to_arrow_table()
    ids, hours, never = (rows.column(name).to_pylist() for name in ("id", "hour", "never"))
    return dict(zip(ids, zip(hours, never, strict=True), strict=True))


Values = Mapping[str, tuple[object, ...]]
"""Labels by id."""


def _labels(world: World, up_to: int) -> tuple[Values, Values]:
    """The labels that the log holds, and those that the platform holds."""
    mapping, cursor = world.job.mapping, quote_identifier(world.job.cursor.column)
    logs, reports = list(world.job.source.files or ()), _reports(world)
    id_ = mapping.partner_inference_id.sql(world.source.columns(), quote_identifier)
    event = quote_identifier(mapping.inference_timestamp.column)
    values = ", ".join(quote_identifier(one.column) for one in mapping.non_inputs)
    query = f"SELECT {id_}, epoch_us({event}) // {MICROSECONDS_AN_HOUR}, {values} FROM"
    until = f"WHERE {cursor} < CAST($2 AS TIMESTAMPTZ)"
    with world.engine.connect() as connection:
        rows = connection.execute(f"{query} read_parquet($1) {until}", [logs, format_instant(up_to)]).fetchall()
        if reports:
            rows += connection.execute(f"{query} read_csv($1)", [reports]).fetchall()
    due = {found_id: tuple(label) for found_id, _, *label in rows}
    if not due:
        return {}, {}
    hours = [hour for _, hour, *_ in rows]
    (destination,) = world.destinations
    shown: dict[str, tuple[object, ...]] = {}
    for table in destination.labels(_micros(Range(min(hours), max(hours) + 1))):
        labels = zip(*(table.column(one.name).to_pylist() for one in mapping.non_inputs), strict=True)
        shown.update(zip(table.column("partner_inference_id").to_pylist(), labels, strict=True))
    return due, shown


def _reports(world: World) -> list[str]:
    """The reports that are due by now, or were taken up by a run whose clock stood later."""
    truth = world.job.ground_truth
    stream = world.ledger.plans.find(world.job.name, StreamName.GROUND_TRUTH)
    if truth is None or truth.files is None or world.drops is None or stream is None:
        return []
    taken = world.ledger.plans.coverage(stream).scanned.get(LANE, Ranges())
    quiet = world.clock() - truth.files.quiet.total_seconds()
    return [one.path for one in world.drops.found() if one.modified <= quiet or number_of(one) in taken]


def _compared(due: Values, shown: Values) -> Labels:
    return Labels(
        logged=len(due),
        arrived=len(shown),
        missing=len(due.keys() - shown.keys()),
        wrong=sum(shown[id_] != label for id_, label in due.items() if id_ in shown),
        unknown=len(shown.keys() - due.keys()),
    )


def _micros(hours: Range) -> Range:
    return Range(hours.start * MICROSECONDS_AN_HOUR, hours.end * MICROSECONDS_AN_HOUR)


def _by_date(hours: Mapping[int, int]) -> Counter[date]:
    """Rows by date in New York: its midnights are whole hours in UTC, so no hour belongs to two dates."""
    found: Counter[date] = Counter()
    for hour, rows in hours.items():
        found[to_datetime(hour * HOUR).astimezone(NEW_YORK).date()] += rows
    return found

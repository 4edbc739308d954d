"""What tasks write to their logs: a line for each cut and each slice, and tables. No row's values, no secrets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tidepost.texts import count, short, size, span

if TYPE_CHECKING:
    from tidepost.comparing.numbers import Reconciled
    from tidepost.cursor import CursorKind
    from tidepost.events import Event
    from tidepost.model import Cut, Delivery, Tally
    from tidepost.steps import Standing, Uploaded


class Log(Protocol):
    """Where lines go: a task's logger."""

    def log(self, level: int, msg: str, *args: Any) -> Any: ...


@dataclass(slots=True)
class Teller:
    """Takes what a piece of a run tells, from any of its threads, and writes it as lines."""

    log: Log
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Event) -> None:
        from tidepost.events import PartSent, Settled, Waiting, Warned  # noqa: PLC0415 - while tasks run

        with self._lock:
            match event:
                case PartSent():
                    self.tell(f"{event.destination} accepted {event.part.path}: {count(event.part.rows, 'row')}")
                case Waiting():
                    self.tell(
                        f"{count(event.rows, 'row')} of {count(event.deliveries, 'slice')} are loading at "
                        f"{event.destination}; another {span(event.seconds)} at most"
                    )
                case Settled():
                    self._settled(event.delivery)
                case Warned():
                    self.tell(event.text, logging.WARNING)
                case _:
                    pass

    def tell(self, text: str, level: int = logging.INFO) -> None:
        self.log.log(level, "%s", text)

    def _settled(self, one: Delivery) -> None:
        if one.state == "held":
            self.tell(f"slice {one.sequence} is held at {one.destination}: {one.reason}", logging.WARNING)
            return
        refused = f", {one.refused:,} refused" if one.refused else ""
        self.tell(f"slice {one.sequence}: {count(one.arrived, 'row')} arrived at {one.destination}{refused}")


def beside(tally: Tally | Uploaded) -> str:
    """What else a scan saw than rows to publish: `3 duplicates, 1 rejected`."""
    rejects = sum(tally.rejected.values())
    parts = [count(tally.duplicates, "duplicate")] if tally.duplicates else []
    parts += [f"{tally.known:,} known"] if tally.known else []
    parts += [f"{rejects:,} rejected"] if rejects else []
    return ", ".join(parts)


def cut_line(one: Uploaded) -> str:
    """One cut in a line."""
    where = f"cut {one.cut} {short(one.start)} → {short(one.end)}"
    if one.elsewhere is not None:
        return f"{where}: left alone, {one.elsewhere}"
    if one.before:
        again = f"and is sent now ({count(one.sent, 'delivery', 'deliveries')})" if one.sent else "nothing is sent"
        return f"{where}: was done before, {again}"
    became = "nothing new" if one.slice is None else f"published as slice {one.slice} ({size(one.size)})"
    also = f" ({beside(one)})" if beside(one) else ""
    return f"{where}: {count(one.rows, 'row')}{also} {became} in {span(one.seconds)}"


def planned_lines(cuts: Sequence[Cut], kind: CursorKind) -> list[str]:
    """A line for each cut that would be done."""
    return [
        f"would scan {cut.kind} {short(kind.format(cut.range.start))} → {short(kind.format(cut.range.end))}: "
        f"about {count(cut.estimated or 0, 'row')}"
        for cut in cuts
    ]


def summary(standing: Standing, cuts: int, marks: Mapping[str, str | None]) -> str:
    """What became of a run, as a table."""
    tally = standing.tally
    rows = [
        ("cuts", f"{cuts:,}"),
        ("rows scanned", f"{tally.scanned:,}"),
        ("published", f"{tally.published:,}"),
        ("duplicates", f"{tally.duplicates:,}"),
        ("known from earlier scans", f"{tally.known:,}"),
        *([("older than a label that is known", f"{tally.superseded:,}")] if tally.superseded else []),
        *([("held until the inference is there", f"{tally.waiting:,}")] if tally.waiting else []),
        *((f"rejected: {reason}", f"{number:,}") for reason, number in tally.rejected.items()),
        ("deliveries", f"{standing.deliveries:,}"),
        ("rows arrived", f"{standing.arrived:,}"),
        ("rows refused", f"{standing.refused:,}"),
        ("deliveries held", f"{standing.held:,}"),
        *([("deliveries whose turn is later", f"{standing.behind:,}")] if standing.behind else []),
        *((f"mark at {name}", short(mark or "none yet")) for name, mark in marks.items()),
    ]
    return table(rows)


def compared(result: Reconciled) -> str:
    """What a comparison found, as a table."""
    here = [(name, getattr(result.total.here, name)) for name in result.total.here.names()]
    rows = [(f"here: {name}", f"{number:,}") for name, number in here]
    for where, there in result.total.there.items():
        rows += [(f"{where}: {name.replace('_', ' ')}", f"{getattr(there, name):,}") for name in there.names()]
    return table(rows)


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, the second flush right, a line each."""
    wide, high = (max((len(row[at]) for row in rows), default=0) for at in (0, 1))
    return "\n".join(f"  {name:<{wide}}  {value:>{high}}" for name, value in rows)

"""What a run tells, as lines of the log; on a terminal as a progress bar with rows, bytes, rate and time left."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tidepost.cli.log import LogFormat, tell
from tidepost.cli.output import LANES, count, short, span
from tidepost.events import CutStaged, Event, Following, PartSent, Planned, Settled, Waiting, Warned
from tidepost.model import Delivery, DeliveryState

if TYPE_CHECKING:
    from tidepost.cursor import CursorKind

_CUT = logging.INFO


class Bar(Protocol):
    """What shows how far a run is."""

    def expect(self, rows: int) -> None: ...
    def advance(self, what: str, rows: int, size: int) -> None: ...
    def arrived(self, rows: int) -> None: ...


@dataclass(slots=True)
class Teller:
    """Takes a run's events, from any of its threads, and tells them.

    planned: the newest plan
    held:    deliveries that were held while it listened
    """

    kind: CursorKind
    bar: Bar | None
    planned: Planned | None = None
    held: list[Delivery] = field(default_factory=list)
    _cuts: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case Planned():
                    self._plan(event)
                case CutStaged():
                    self._cut(event)
                case PartSent():
                    text = f"{event.destination} accepted {event.part.path}: {count(event.part.rows, 'row')}"
                    _tell(logging.DEBUG, text, "sent", slice=event.sequence, rows=event.part.rows)
                case Waiting():
                    text = (
                        f"{count(event.rows, 'row')} of {count(event.deliveries, 'slice')} are loading at "
                        f"{event.destination}; another {span(event.seconds)} at most"
                    )
                    _tell(logging.DEBUG, text, "loading", rows=event.rows, slices=event.deliveries)
                case Settled():
                    self._settled(event.delivery)
                case Warned():
                    _tell(logging.WARNING, event.text, "warning")
                case Following(lanes):
                    text = f"following {', '.join(lanes)}" if lanes else "no partition is given to this process now"
                    _tell(logging.INFO, text, "following", lanes=list(lanes))

    def _plan(self, event: Planned) -> None:
        self.planned = event
        if self.bar is not None:
            self.bar.expect(sum(cut.estimated or 0 for cut in event.cuts))
        if event.resumed:
            text = f"finishing {count(event.resumed, 'cut or delivery', 'cuts and deliveries')} of earlier runs first"
            _tell(logging.INFO, text, "resumed", number=event.resumed)
        if event.null_cursors:
            text = f"{count(event.null_cursors, 'row')} of the source have no cursor (NULL) and cannot be found by it"
            _tell(logging.WARNING, text, "null_cursors", rows=event.null_cursors)

    def _cut(self, event: CutStaged) -> None:
        self._cuts += 1
        cut, tally = event.cut, event.tally
        number = f"{self._cuts}/{len(self.planned.cuts) if self.planned else self._cuts}"
        lane = f"{cut.lane} " if cut.lane else ""
        between = f"{short(self.kind.format(cut.range.start))} → {short(self.kind.format(cut.range.end))}"
        where = LANES.get(cut.lane) or f"{lane}{between}"
        beside = [count(tally.duplicates, "duplicate")] if tally.duplicates else []
        beside += [f"{tally.known:,} known"] if tally.known else []
        beside += [f"{tally.rejects:,} rejected"] if tally.rejects else []
        rows = count(tally.published, "row") + (f" ({', '.join(beside)})" if beside else "")
        became = "nothing new" if event.slice is None else f"published as slice {event.slice.sequence}"
        kind = "" if cut.kind == "incremental" else f"{cut.kind} "
        if self.bar is not None:
            self.bar.advance(f"{kind}cut {number}", tally.scanned, 0 if event.slice is None else event.slice.size)
        _tell(
            logging.DEBUG if self.bar is not None else _CUT,
            f"{kind}cut {number} {where} {rows} {became}",
            "cut",
            cut=cut.id,
            **({"lane": cut.lane} if cut.lane else {}),
            start=self.kind.format(cut.range.start),
            end=self.kind.format(cut.range.end),
            rows=tally.published,
            duplicates=tally.duplicates,
            known=tally.known,
            rejected=tally.rejects,
            slice=None if event.slice is None else event.slice.sequence,
            bytes=0 if event.slice is None else event.slice.size,
            seconds=round(event.seconds, 3),
        )

    def _settled(self, delivery: Delivery) -> None:
        fields = {"slice": delivery.sequence, "rows": delivery.rows, "arrived": delivery.arrived}
        if delivery.state is DeliveryState.HELD:
            self.held.append(delivery)
            text = f"slice {delivery.sequence} is held at {delivery.destination}: {delivery.reason}"
            _tell(logging.WARNING, text, "held", **fields)
            return
        if self.bar is not None:
            self.bar.arrived(delivery.arrived)
        refused = f", {delivery.refused:,} refused" if delivery.refused else ""
        text = (
            f"slice {delivery.sequence}: {count(delivery.arrived, 'row')} arrived at {delivery.destination}{refused}"
        )
        _tell(logging.DEBUG, text, "arrived", **fields)


def _tell(level: int, text: str, event: str, **fields: Any) -> None:
    tell(level, text, event=event, **fields)


@contextmanager
def teller(kind: CursorKind, log_format: LogFormat) -> Iterator[Teller]:
    """A teller for one run, with a progress bar where standard error is a terminal and the log is for people."""
    if log_format is LogFormat.JSON or not sys.stderr.isatty():
        yield Teller(kind, None)
        return
    from tidepost.cli.bar import progress_bar  # noqa: PLC0415 - only terminals show one

    with progress_bar() as bar:
        yield Teller(kind, bar)

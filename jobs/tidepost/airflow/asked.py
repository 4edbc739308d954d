"""What a DAG run asks of a job.

| the run                 | mode                              | range                                  |
|-------------------------|-----------------------------------|----------------------------------------|
| scheduled, or by assets | incremental                       | none: the ledger says what is new      |
| of a backfill           | range, unless its form names one  | its own data interval                  |
| by hand                 | what the form says                | what the form says                     |

A run is for both streams of a job with labels, unless its form names one; files are for labels.

Nothing here needs Airflow to be imported.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from tidepost.errors import Misconfigured
from tidepost.model import StreamName

if TYPE_CHECKING:
    from tidepost.cursor import CursorKind
    from tidepost.ranges import Range

BOTH: Final = "both"
"""What the form calls both streams."""

BACKFILL: Final = "backfill"
"""The type of the runs that `airflow backfill create` makes, also of older runs that it takes over."""

KEYS: Final = ("mode", "from", "to", "by_event", "dry_run", "stream", "files")
"""What the form asks for."""


class Mode(StrEnum):
    """What a run does: upload what is new; look at a range again; send again what the platform lost; compare all
    sides."""

    INCREMENTAL = "incremental"
    RANGE = "range"
    RESEND = "resend"
    RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run asks.

    start, end: the range `[start, end)` as text, both or neither; always with `range`, never with `incremental`
    by_event:   the range is of the rows' own time (of labels, the ground-truth timestamp), not of the cursor
    dry_run:    only say what would be done
    key:        of the request that planning keeps: the same for every try of a run, and when it is cleared
    run_type:   Airflow's word: scheduled, manual, backfill, …
    stream:     the one that the form names; None: both
    files:      of labels, which are to be uploaded
    """

    mode: Mode
    start: str | None
    end: str | None
    by_event: bool
    dry_run: bool
    key: str
    run_type: str
    stream: StreamName | None = None
    files: tuple[str, ...] = ()

    def concerns(self, stream: str) -> bool:
        """Whether a stream of the job has anything to do."""
        if self.files:
            return stream == StreamName.GROUND_TRUTH
        return self.stream is None or stream == self.stream

    def key_for(self, stream: str) -> str:
        """The key of a stream's request."""
        return self.key if stream == StreamName.INFERENCES else f"{self.key}/{stream}"

    def window(self, kind: CursorKind) -> Range | None:
        """The range of the cursor that is asked for; None where none is. Not for ranges by event.

        Where the cursor is a date and a text is a time, the range is of the whole days that it touches.
        Misconfigured: a text names no position, or the range is empty.
        """
        from tidepost.ranges import Range  # noqa: PLC0415

        if self.start is None or self.end is None:
            return None
        if self.run_type == BACKFILL and not kind.timed:
            raise Misconfigured(
                f"a backfill's data intervals are times, and the cursor is of type {kind.type}",
                safe="Nothing was scanned.",
                hint='Trigger the DAG by hand, with mode "range" and the first and last position.',
            )
        start, end = _position(kind, self.start), _position(kind, self.end, last=True)
        if end <= start:
            raise _empty(self.start, self.end)
        return Range(start, end)


def asked(context: Mapping[str, Any]) -> Asked:
    """What the run of a task's context asks. Misconfigured: the form's values do not go together."""
    run, params = context["dag_run"], context.get("params") or {}
    run_type = str(getattr(run.run_type, "value", run.run_type))
    mode = Mode(params.get("mode") or Mode.INCREMENTAL)
    start, end = params.get("from") or None, params.get("to") or None
    by_event, dry_run = bool(params.get("by_event")), bool(params.get("dry_run"))
    stream = _stream(params.get("stream"))
    files = tuple(str(one) for one in params.get("files") or ())
    if run_type == BACKFILL:
        mode = Mode.RANGE if mode is Mode.INCREMENTAL else mode
        start, end = (_text(run.data_interval_start), _text(run.data_interval_end))
    _check_keys(run.conf or {})
    _check(mode, start, end, by_event=by_event)
    _check_labels(mode, stream, files)
    what: dict[str, Any] = {"mode": mode.value, "from": start, "to": end, "by_event": by_event}
    what |= {"stream": stream} if stream else {}
    what |= {"files": files} if files else {}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    key = f"{run.dag_id}/{run.run_id}/{digest}"
    if run_type == BACKFILL:
        key += f"/{run.clear_number or 0}"
    return Asked(mode, start, end, by_event, dry_run, key, run_type, stream, files)


def _stream(given: str | None) -> StreamName | None:
    if not given or given == BOTH:
        return None
    try:
        return StreamName(given)
    except ValueError:
        raise Misconfigured(
            f"{given!r} is no stream of a job",
            safe="Nothing was done.",
            hint="Its streams are inferences and ground_truth.",
        ) from None


def _check_keys(conf: Mapping[str, Any]) -> None:
    """Airflow lets a run be given any key; one that is misspelt must not go unseen. Raises Misconfigured."""
    for key in conf:
        near = difflib.get_close_matches(key, KEYS, n=1) if key not in KEYS else []
        if near:
            raise Misconfigured(
                f'the run was given "{key}"; did you mean "{near[0]}"?',
                safe="Nothing was done.",
                hint="Trigger it again.",
            )


def _check(mode: Mode, start: str | None, end: str | None, *, by_event: bool) -> None:
    """What the form's JSON Schema cannot say. Raises Misconfigured."""
    if mode is Mode.INCREMENTAL and (start or end):
        raise Misconfigured(
            'from and to do not go with mode "incremental", which takes what is new',
            safe="Nothing was done.",
            hint='Trigger it again with mode "range", or without from and to.',
        )
    if (start is None) != (end is None) or (mode is Mode.RANGE and start is None):
        what = f"{'to' if start else 'from'} is missing" if start or end else "from and to are missing"
        raise Misconfigured(
            f'{what}: mode "{mode}" needs both', safe="Nothing was done.", hint="Trigger it again with both."
        )
    if by_event and mode in (Mode.INCREMENTAL, Mode.RANGE):
        raise Misconfigured(
            f'"by event" does not go with mode "{mode}": the source is scanned by its cursor',
            safe="Nothing was done.",
            hint='It is for the modes "resend" and "reconcile".',
        )
    if start and end and (first := _instant(start)) and (last := _instant(end)) and last <= first:
        raise _empty(start, end)


def _check_labels(mode: Mode, stream: StreamName | None, files: tuple[str, ...]) -> None:
    """What is for one of the streams alone. Raises Misconfigured."""
    if files and (mode is not Mode.INCREMENTAL or stream is StreamName.INFERENCES):
        what = f'mode "{mode}"' if mode is not Mode.INCREMENTAL else "inferences"
        raise Misconfigured(
            f"files are of labels, and do not go with {what}",
            safe="Nothing was done.",
            hint='Trigger it again with mode "incremental", or without files.',
        )


def _empty(start: str, end: str) -> Misconfigured:
    return Misconfigured(
        f"the range from {start} to {end} is empty",
        safe="Nothing was done.",
        hint="`to` is where the range ends, not part of it: it must lie after `from`.",
    )


def _instant(text: str) -> datetime | None:
    """The time that a text names, in UTC where it names no zone; None for a position of another kind."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _position(kind: CursorKind, text: str, *, last: bool = False) -> int:
    from tidepost.cursor import CursorType, parse_instant  # noqa: PLC0415

    if kind.type is CursorType.DATE and len(text.strip()) > len("2013-01-03"):
        try:
            instant = parse_instant(text, zone=kind.zone or "UTC")
        except ValueError as error:
            raise Misconfigured(f"{text!r} is not a date: {error}") from None
        return kind.floor(instant - 1) + 1 if last else kind.floor(instant)
    return kind.parse(text)


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

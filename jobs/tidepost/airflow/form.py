"""The form that asks what a run by hand is to do: Params whose JSON Schema the form, REST and the command line check.

A schema sees one value at a time. What does not go together is refused by the first task, at once and without a retry
(see `asked.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from airflow.sdk import Param

from tidepost.airflow.asked import BOTH, Mode
from tidepost.model import StreamName

if TYPE_CHECKING:
    from tidepost.definition.job import Job

_TIME: Final = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?{ZONE})?"
_ZONE: Final = r"\s*(Z|[+-]\d{2}(:?\d{2})?)"
_NUMBER: Final = r"-?\d{1,38}"
_UUID: Final = r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

_DRAFT: Final = {"$schema": "http://json-schema.org/draft-07/schema#"}
"""Airflow checks each schema whenever a DAG is read, and the newest draft takes it three times as long."""

_MODES: Final = {
    Mode.INCREMENTAL: "incremental: upload what is new",
    Mode.RANGE: "range: look at a range again, and upload what was not uploaded yet",
    Mode.RESEND: "resend: ask the platform, and send again what it lost",
    Mode.RECONCILE: "reconcile: compare source, published and arrived rows; change nothing",
}


def form(job: Job, streams: Sequence[StreamName] = (StreamName.INFERENCES,)) -> dict[str, Param]:
    """The form of a job's DAG that uploads some of its streams. Positions are checked as far as the definition tells
    what the cursors are."""
    seen = [of for name in streams if (of := job if name is StreamName.INFERENCES else job.of_labels()) is not None]
    patterns, like = list(dict.fromkeys(_position(of)[0] for of in seen)), _position(seen[0])[1]
    pattern = patterns[0] if len(patterns) == 1 else f"({'|'.join(patterns)})"
    asks = _usual(pattern, like)
    if len(streams) > 1:
        asks["stream"] = Param(
            BOTH,
            **_DRAFT,
            type="string",
            enum=[BOTH, *(one.value for one in streams)],
            values_display={BOTH: "both", **{one.value: one.value.replace("_", " ") for one in streams}},
            title="Stream",
            description="Which rows the run is for. A range is of each stream's own cursor.",
        )
    if StreamName.GROUND_TRUTH in streams:
        asks["files"] = Param(
            None,
            **_DRAFT,
            type=["null", "array"],
            items={"type": "string", "minLength": 1},
            title="Files of labels",
            description="Files to upload labels from, wherever they lie, one a line: addresses in S3, or paths as "
            "the workers see them, from the project's root. With files, a run uploads labels alone.",
        )
    return asks


def _usual(pattern: str, like: str) -> dict[str, Param]:
    """What every form asks."""
    where = "Needed by range; resend and reconcile take everything without it."
    return {
        "mode": Param(
            Mode.INCREMENTAL.value,
            **_DRAFT,
            type="string",
            enum=[mode.value for mode in Mode],
            values_display={mode.value: _MODES[mode] for mode in Mode},
            title="Mode",
            description="What the run does.",
        ),
        "from": Param(
            None,
            **_DRAFT,
            type=["null", "string"],
            pattern=pattern,
            title="From",
            description=f"Where the range starts, such as {like}. {where}",
        ),
        "to": Param(
            None,
            **_DRAFT,
            type=["null", "string"],
            pattern=pattern,
            title="To",
            description=f"Where the range ends; not part of it. {where}",
        ),
        "by_event": Param(
            False,
            **_DRAFT,
            type="boolean",
            title="By event",
            description="The range is of the time of the inferences, or of what labels tell of, not of the cursor. "
            "For resend and reconcile.",
        ),
        "dry_run": Param(
            False,
            **_DRAFT,
            type="boolean",
            title="Dry run",
            description="Only say what would be done; change nothing.",
        ),
    }


def _position(job: Job) -> tuple[str, str]:
    """The pattern of a position of a job's cursor, or of a time, and an example."""
    cursor = job.cursor
    time = _TIME.replace("{ZONE}", f"({_ZONE})?" if cursor.timezone else _ZONE)
    if cursor.type == "integer" or isinstance(cursor.start, int):
        return f"^({_NUMBER}|{time})$", "4711"
    if cursor.type == "uuid" or len(cursor.start) == 36:
        return f"^({_UUID}|{time})$", "01890a5d-ac96-774b-bcce-b302099a8057"
    return f"^{time}$", "2026-01-31" if cursor.type == "date" else "2026-01-31T05:00:00Z"

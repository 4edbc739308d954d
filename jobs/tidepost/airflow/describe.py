"""A job in a few lines of Markdown, for the page of its DAG. References stay references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tidepost.definition.job import Job, SourceDefinition
from tidepost.definition.units import duration_text

_RUNS: Final = """\
Each run uploads what is new, as the ledger knows it: a missed run is made up by the next, and a run that is cleared
after it ended sends nothing. *Trigger* asks for a mode and a range; a *backfill* looks at each interval again. No row
is sent twice by any of them.
"""


def describe(job: Job, file: str) -> str:
    """The page of a job that `file` defines: its path from the project's root."""
    cursor = job.cursor
    rows = [
        ("defined in", f"`{file}`"),
        ("source", _source(job.source)),
        (
            "new rows by",
            f"`{cursor.column}` from {cursor.start}; settle {duration_text(cursor.settle)}, "
            f"lookback {duration_text(cursor.lookback)}",
        ),
        ("id", f"`{job.mapping.partner_inference_id.text}`"),
        ("inputs", _names([one.name for one in job.mapping.inputs])),
        ("predictions", _names([one.name for one in job.mapping.predictions])),
        ("non-inputs", _names([one.name for one in job.mapping.non_inputs])),
        *(("sends to", f"{to.type}, model `{to.model_name}` at `{to.url}`") for to in job.destinations),
        ("schedule", f"`{job.schedule}`, {job.timezone}" if job.schedule else "by hand"),
    ]
    labels = job.ground_truth
    if labels is not None:
        files = "" if labels.files is None else f"files: {_names(labels.files.paths)}"
        rows += [
            ("ground truth", _names([one.name for one in labels.attributes])),
            ("labels from", "; ".join(filter(None, [_source(labels.source) if labels.source else "", files]))),
            ("new labels by", f"`{labels.cursor.column}` from {labels.cursor.start}" if labels.cursor else ""),
            ("labels' schedule", f"`{labels.schedule}`, {job.timezone}" if labels.schedule else ""),
        ]
    if job.airflow.freshness is not None:
        rows.append(("arrives within", duration_text(job.airflow.freshness)))
    if job.owner:
        rows.append(("owner", job.owner))
    table = "\n".join(["| | |", "|---|---|", *(f"| {key} | {_cell(text)} |" for key, text in rows if text)])
    of_labels = labels.source if labels is not None else None
    parts = [job.description or "", table, _query(job.source), _query(of_labels) if of_labels else "", _RUNS]
    return "\n\n".join(part for part in parts if part)


def _source(source: SourceDefinition) -> str:
    if source.kafka is not None:
        return f"topic `{source.kafka.topic}` at `{source.kafka.bootstrap}`"
    place = f" of `{source.database}`" if source.database else f" of `{source.postgres}`" if source.postgres else ""
    if source.files is not None:
        return f"{source.format}: {_names(source.files)}"
    return f"table `{source.table}`{place}" if source.table else f"query{place}, below"


def _query(source: SourceDefinition) -> str:
    return "" if source.query is None else f"```sql\n{source.query.strip()}\n```"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

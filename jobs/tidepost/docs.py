"""The reference documentation of job files, written from the models that read them.

    python -m tidepost.docs --write docs

writes `job-definition.md` and `job.schema.json` there; a test keeps the committed ones equal to it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from tidepost.definition.arize import ArizeDefinition
from tidepost.definition.fields import Schema
from tidepost.definition.job import Job, json_schema_text
from tidepost.definition.kafka import KafkaColumn, KafkaDefinition
from tidepost.definition.labelling import FilesDefinition, GroundTruthDefinition
from tidepost.definition.mapping import ATTRIBUTES_SCHEMA, RESERVED, MappingDefinition, TimestampDefinition
from tidepost.definition.project import ProjectDefinition
from tidepost.definition.reference import SECRET_PATTERN
from tidepost.definition.sections import (
    AirflowDefinition,
    ArthurDefinition,
    CursorDefinition,
    LimitsDefinition,
    ModelReference,
    SourceDefinition,
    StagingDefinition,
)
from tidepost.definition.units import DURATION_PATTERN, PERCENT_PATTERN, SIZE_PATTERN, size_text

MINIMAL: Final = """\
version: 1
name: flights
source: log/flights/*.parquet
cursor: {column: logged_at, start: 2013-01-01}
mapping:
  partner_inference_id: flight_id
  inference_timestamp: scheduled
  inputs: [distance, dep_hour]
  predictions: [delay_probability]
destination:
  type: arthur
  url: ${ARTHUR_URL}
  api_key: ${ARTHUR_API_KEY}
  model: flights-delay
"""
"""A whole job in fewer than 15 lines."""

FULL: Final = """\
# yaml-language-server: $schema=../docs/job.schema.json
version: 1
name: flights-full
description: Will this departure be late by more than 15 minutes?
owner: delays@example.com
tags: [production, flights]
schedule: "15 * * * *"
timezone: America/New_York

source:
  query: SELECT * FROM inferences JOIN flights USING (flight_id)
  database: log/inferences.duckdb

cursor:
  column: logged_at
  type: timestamp
  timezone: America/New_York     # the column has no zone of its own
  start: 2013-01-01T00:00:00     # in that zone
  settle: 15m
  lookback: 2d

mapping:
  partner_inference_id: "{carrier}{flight:04d}-{origin}-{date:%Y%m%d}"
  inference_timestamp: {column: scheduled, timezone: America/New_York}
  inputs:
    distance: {column: distance_mi, type: integer}
    dep_hour: hour
    wind_speed: {type: float, optional: true}
  predictions:
    delay_probability: {column: probability, type: float}
  non_inputs: [carrier, origin, dest]
  batch_id: "{date}"
  ignore: [debug_info]

drift: fail

staging:
  partition: day
  file_rows: 200000
  file_bytes: 64MiB
  keep: 2w

destination:
  type: arthur
  name: arthur-eu
  url: ${ARTHUR_URL:-https://arthur.example.com}
  organization: ${ARTHUR_ORGANIZATION_ID}
  api_key: ${ARTHUR_API_KEY}
  model: {id: 3d1b2c5e-8f0a-4b7e-9c55-0d6f3f5a7e21}
  connections: 8
  timeout: 2m30s
  retries: 3
  loading: 20m
  poll: 5s
  shared: true
  on_unknown: stop
  ca_file: certs/platform.pem

limits:
  cut_rows: 100000
  rejects: 0.5%
  non_finite: "null"
  memory: 1GB
  threads: 4

ground_truth:
  source: labels/landed/*.parquet
  cursor: {column: known_at, start: 2013-01-01T05:00:00Z}
  partner_inference_id: "{carrier}{flight:04d}-{origin}-{date:%Y%m%d}"
  ground_truth_timestamp: landed_at
  attributes:
    was_late: {column: late, type: integer}
  files: {paths: drops/labels-*.csv, format: csv, known_at: recorded_at, quiet: 10m}
  schedule: "@daily"
  orphan_after: 4w
  horizon: 26w
  limits: {rejects: 2%}

airflow:
  pool: uploads
  retries: 3
  retry_delay: 2m
  timeout: 3h
  parallel: 8
  runs: 2
  freshness: 2h
  notify: [delays@example.com]
"""
"""Every key once."""

ARIZE: Final = """\
version: 1
name: flights-arize
source: log/flights/*.parquet
cursor: {column: logged_at, start: 2024-01-01}
mapping:
  partner_inference_id: flight_id
  inference_timestamp: scheduled
  inputs: [distance, dep_hour]
  predictions: [late, delay_probability]
  non_inputs: [carrier, actual, distance_contribution, route, place]

destination:
  type: arize
  name: arize-eu
  url: https://api.eu-west-1a.arize.com
  api_key: ${ARIZE_API_KEY}
  space_id: ${ARIZE_SPACE_ID}
  model: flights-delay
  version: "3"
  environment: validation
  model_type: ranking
  prediction_label: late
  prediction_score: delay_probability
  actual_label: actual
  actual_score: actual
  shap: {distance: distance_contribution}
  group: route
  rank: place
  batch_id: 2024-q1
  request_rows: 250000
  request_bytes: 256MB
  connections: 8
  timeout: 2m30s
  retries: 3
  poll: 5s
  on_unknown: resend
  ca_file: certs/platform.pem
"""
"""Every key of a destination at Arize, though no job needs them all."""

PROJECT: Final = """\
version: 1
ledger: postgresql+psycopg://tidepost:${LEDGER_PASSWORD}@db.example.com/tidepost
staging: /data/tidepost
defaults:
  schedule: "@hourly"
  cursor: {settle: 10m, lookback: 1d}
  destination:
    type: arthur
    url: ${ARTHUR_URL}
    api_key: ${ARTHUR_API_KEY}
"""
_HEAD: Final = """\
# Job definition

<!-- Written by `python -m tidepost.docs --write docs` from the models that read job files. -->

A job is one model's upload, defined in one YAML file, by custom in the folder `jobs` of a project. A project is a
folder with a [`tidepost.yaml`](#tidepostyaml). Editors complete and check job files by
[`job.schema.json`](job.schema.json).

The smallest job:

```yaml
{minimal}```

Every problem of a file is reported at once, each with its place, and with the nearest key where one is misspelt:

```
jobs/flights.yaml:4:29: cursor.setle: no such key; did you mean "settle"?
jobs/flights.yaml:12:3: destination.api_key: is not a reference; put the secret in a variable and write ${{NAME}} here
```
"""

_ATTRIBUTES: Final = """\
## Attributes

`inputs`, `predictions` and `non_inputs` each take one of three forms; the names are those of the model's attributes
at the destination.

```yaml
inputs: [distance, dep_hour]                              # columns that are named as the attributes are
inputs: {distance: distance_mi, dep_hour: hour}           # name: column
inputs: {distance: {column: distance_mi, type: integer}}  # column, by default the name; type, by default the column's
```

A list may also hold mappings with `name`, `column` and `type`. Types are `string`, `integer`, `float`, `boolean` and
`timestamp`. A name stands once, whatever the case of its letters, and is none of tidepost's own:
{reserved}.
"""

_TEMPLATES: Final = """\
## Id templates

Text without braces is the name of a column. Text with braces is put together:

| template | meaning |
|---|---|
| `{carrier}{flight}-{origin}` | columns between constant text |
| `{flight:05d}` | an integer, padded with zeros to five characters; a minus sign is one of them |
| `{scheduled:%Y-%m-%d}` | a date, or a timestamp in UTC; `%Y %m %d %H %M %S %f %j %y %%` are known |
| `{scheduled:%Y%m%d\\|America/New_York}` | a timestamp in that zone |
| `{{` and `}}` | a brace |

Text is taken as it is. Integers are plain digits, decimals lose trailing zeros (`1.50` is `1.5`), booleans are
`true` and `false`, UUIDs are lower case, dates `2013-01-31`. A timestamp with a zone becomes `2013-01-31T05:00:00Z`,
in UTC and with as many decimals as it has; one without a zone keeps its own digits and gets no `Z`. Floating point
columns are refused. A row that lacks a column of its id has no id and is rejected.

Text that begins with `{` must be in quotes.
"""

_VALUES: Final = """\
## Values

| kind | written as |
|---|---|
| duration | `30s`, `10m`, `2h`, `1h30m`, `3d`, `1w` |
| size | `128MB` (128,000,000 bytes), `64MiB` (67,108,864 bytes), or a number of bytes |
| percentage | `1%`, `0.5%` |
| reference | `${NAME}`: an environment variable; `${airflow:ID}`: the URL of one of Airflow's connections; \
`${airflow:ID.FIELD}`: its `host`, `port`, `login`, `password`, `schema`, or a key of its extra. Except for secrets \
with a default, `${NAME:-default}`. Looked up when a run starts; what is empty counts as missing |

References may stand in a source's `files` and `database`, in a destination's `url`, `organization`, `space_id`,
`model`, `version`, `batch_id` and `ca_file`, and in the `ledger` and `staging` of `tidepost.yaml`. `api_key`,
`postgres` and `s3` must be one.

A task on Airflow asks Airflow for its connections, wherever it keeps them. The command line reads the same ones from
variables as Airflow does, `AIRFLOW_CONN_ID`, as a URI or as JSON. As a URL, a connection of the type `postgres` is a
PostgreSQL URL with user and password, one of the type `tidepost_arthur`, `http` or `https` the address alone.

Relative paths begin at the project's root.

Files are YAML 1.2, which changes no value unasked: `no`, `on`, `12:30` and `2013-01-01` are text, `010` is ten. Each
key stands once, and none is left empty. Anchors and aliases work; merge keys (`<<`) are refused.
"""

_PROJECT: Final = """\
## tidepost.yaml

It marks the root of a project. Commands find it from the working directory upwards, or by `TIDEPOST_PROJECT`.

```yaml
{example}```

{table}
`defaults` are merged under every job, mapping by mapping: a job's own values win, lists and texts are replaced as a
whole, and `null` undoes a default.
"""

_SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "source": SourceDefinition,
    "source.kafka": KafkaDefinition,
    "source.kafka.columns": KafkaColumn,
    "cursor": CursorDefinition,
    "mapping": MappingDefinition,
    "mapping.inference_timestamp": TimestampDefinition,
    "staging": StagingDefinition,
    "destination": ArthurDefinition,
    "destination.model": ModelReference,
    "destination at Arize": ArizeDefinition,
    "limits": LimitsDefinition,
    "ground_truth": GroundTruthDefinition,
    "ground_truth.files": FilesDefinition,
    "airflow": AirflowDefinition,
}

_PATTERNS: Final = {
    DURATION_PATTERN: "duration",
    SIZE_PATTERN: "size",
    PERCENT_PATTERN: "percentage",
    SECRET_PATTERN: "reference",
}


def job_definition_markdown() -> str:
    """The whole page `job-definition.md`; the same on every machine."""
    reserved = ", ".join(f"`{name}`" for name in sorted(RESERVED))
    parts = [
        _HEAD.format(minimal=MINIMAL),
        "## The file\n\n" + _table(Job),
        *(f"## {key}\n\n{model.__doc__}\n\n{_table(model)}" for key, model in _SECTIONS.items()),
        _ATTRIBUTES.replace("{reserved}", reserved),
        _TEMPLATES,
        _VALUES,
        _PROJECT.format(example=PROJECT, table=_table(ProjectDefinition)),
        f"## Every key once\n\n```yaml\n{FULL}```\n",
        f"And every key of a destination at Arize, though no job needs them all:\n\n```yaml\n{ARIZE}```\n",
    ]
    return "\n".join(parts)


def _table(model: type[BaseModel]) -> str:
    schema = model.model_json_schema(mode="validation", schema_generator=Schema)
    required = schema.get("required", [])
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, about in schema["properties"].items():
        default = "required" if key in required else _default(about)
        meaning = " ".join([about["description"], *_examples(about)])
        cells = (f"`{key}`", _type(about), default, meaning)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _type(about: dict[str, Any]) -> str:
    """What may be written, in a few words, from the JSON Schema of a key."""
    if about.get("anyOf") == ATTRIBUTES_SCHEMA["anyOf"]:
        return "[attributes](#attributes)"
    if "anyOf" in about or "oneOf" in about:
        listed = about.get("anyOf") or about["oneOf"]
        kinds = [_type(one) for one in listed if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in about or "const" in about:
        return " or ".join(f"`{word}`" for word in about.get("enum", [about.get("const")]))
    if about.get("type") == "array":
        return f"list of {_type(about['items'])}"
    if about.get("pattern") in _PATTERNS:
        return _PATTERNS[about["pattern"]]
    names = {"string": "text", "integer": "number", "boolean": "`true` or `false`", "object": "mapping"}
    return names[about["type"]] if "type" in about else _link(about["$ref"].rpartition("/")[2])


def _link(name: str) -> str:
    """A mapping, with a link to its section, by its model's name."""
    anchors = {model.__name__: key.replace(".", "").replace(" ", "-").lower() for key, model in _SECTIONS.items()}
    return f"[mapping](#{anchors[name]})" if name in anchors else "mapping"


def _default(about: dict[str, Any]) -> str:
    value = about.get("default")
    if value is None or value in ({}, []):
        return ""
    if isinstance(value, int) and SIZE_PATTERN in str([one.get("pattern") for one in about.get("anyOf", [])]):
        value = size_text(value)
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _examples(about: dict[str, Any]) -> list[str]:
    shown = [one if isinstance(one, str) else json.dumps(one).replace('"', "") for one in about.get("examples", [])]
    return [f"For example {', '.join(f'`{one}`' for one in shown)}."] if shown else []


def main() -> None:
    """Writes both files into the folder that `--write` names."""
    parser = argparse.ArgumentParser(prog="python -m tidepost.docs", description="Write the reference of job files.")
    parser.add_argument("--write", metavar="DIR", type=Path, required=True)
    folder: Path = parser.parse_args().write
    for name, text in generated().items():
        (folder / name).write_text(text, encoding="utf-8")


def generated() -> dict[str, str]:
    """The generated files by name, as they are committed in `docs`."""
    return {"job-definition.md": job_definition_markdown(), "job.schema.json": json_schema_text()}


if __name__ == "__main__":
    main()

"""A job file becomes a frozen Job, or one error that names all that is wrong, where, and how to mend it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import cast
from uuid import UUID

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from tidepost.definition.job import (
    ArizeDefinition,
    Attribute,
    Job,
    ModelReference,
    RejectLimit,
    Secret,
    Template,
    json_schema_text,
    load_job,
    schema,
)
from tidepost.definition.project import Project, find_project
from tidepost.docs import ARIZE, FULL, MINIMAL, PROJECT, generated
from tidepost.errors import Misconfigured

BASE = """\
version: 1
name: flights
source: log/flights/*.parquet
cursor:
  column: logged_at
  start: 2013-01-01
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

Load = Callable[[str], Job]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "tidepost.yaml").write_text("version: 1\n")
    (tmp_path / "jobs").mkdir()
    return find_project(tmp_path, {})


@pytest.fixture
def load(project: Project) -> Load:
    def load(text: str) -> Job:
        (project.root / "jobs" / "flights.yaml").write_text(text, encoding="utf-8")
        return load_job(Path("jobs/flights.yaml"), project)

    return load


def changed(old: str, new: str, text: str = BASE) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


def refusal(load: Load, text: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        load(text)
    return caught.value.message


# What a file may say


def test_the_smallest_job_has_fewer_than_15_lines(load: Load) -> None:
    assert len(MINIMAL.splitlines()) < 15
    job = load(MINIMAL)
    assert job.source.files == ("log/flights/*.parquet",)
    assert job.source.format == "parquet"
    assert job.cursor.settle == timedelta(minutes=10)
    assert job.cursor.lookback == timedelta(days=1)
    assert job.destinations[0].name == "arthur"
    assert job.destinations[0].model == ModelReference(partner_id="flights-delay")
    assert job.limits.rejects == RejectLimit(percent=Decimal(1))
    assert job.staging.file_bytes == 128_000_000
    assert job.schedule is None


def test_the_full_example_uses_every_key(load: Load) -> None:
    job = load(FULL)
    written = json.loads(job.model_dump_json(exclude_unset=True))
    lacking = {f"source.{key}" for key in ("files", "format", "slack", "table", "postgres", "kafka", "s3")}
    lacking |= {"destination.model.partner_id", "destinations"}
    for section in ("", "source", "cursor", "mapping", "staging", "destination", "destination.model", "limits"):
        values, model = written, cast(BaseModel, job)
        for key in section.split(".") if section else ():
            if key == "destination":  # the short form, which becomes the long one
                model = job.destinations[0]
                values = json.loads(model.model_dump_json(exclude_unset=True))
            else:
                values, model = values[key], getattr(model, key)
        prefix = f"{section}." if section else ""
        assert {f"{prefix}{key}" for key in type(model).model_fields} - lacking == {
            f"{prefix}{key}" for key in values
        }
    assert job.destinations[0].timeout == timedelta(minutes=2, seconds=30)
    assert job.staging.file_bytes == 64 * 2**20
    assert job.limits.non_finite == "null"


def test_the_example_for_arize_uses_every_key_of_it(load: Load) -> None:
    job = load(ARIZE)
    assert isinstance(job.destinations[0], ArizeDefinition)
    assert job.destinations[0].model_fields_set == set(ArizeDefinition.model_fields)
    assert job.destinations[0].shap == (("distance", "distance_contribution"),)
    assert len({load(ARIZE), load(ARIZE)}) == 1
    resolved = job.resolved({"ARIZE_SPACE_ID": "s"})
    assert resolved.identity["destinations"] == {
        "arize-eu": {"type": "arize", "space": "s", "model": "flights-delay"}
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type: arize", "type: arthur", "destination.space_id: no such key"),
        ("retries: 3", "retrys: 3", 'destination.retrys: no such key; did you mean "retries"?'),
        ("  space_id: ${ARIZE_SPACE_ID}\n", "", "12:1: destination.space_id: is missing"),
        ("model_type: ranking", "model_type: rank", "did you mean ranking?"),
        ("model_type: ranking", "model_type: regression", "has one of prediction_label and prediction_score"),
        ("  group: route\n", "", "21:3: destination.model_type: a ranking needs `group` and `rank`"),
        ("prediction_label: late", "prediction_label: lat", '"lat" is none of mapping.predictions'),
        ("  prediction_label: late\n", "", 'mapping.predictions: "late" has no place at Arize'),
        ("shap: {distance", "shap: {distanz", '"distanz" is none of mapping.inputs'),
        ("shap: {distance: distance_contribution}", "shap: {distance: x}", '"x" is none of mapping.non_inputs'),
        ("shap: {distance: distance_contribution}", "shap: [distance]", "must be a mapping of features"),
        ("rank: place", "rank: placé", '28:3: destination.rank: "placé" is none of'),
        ("  actual_label: actual\n  actual_score: actual\n", "", "destination.actual_label: is needed: a validation"),
        ("${ARIZE_API_KEY}", "abc", "destination.api_key: is not a reference"),
    ],
)
def test_what_is_wrong_with_a_destination_at_arize_is_named_with_its_place(
    load: Load, old: str, new: str, message: str
) -> None:
    assert old in ARIZE
    with pytest.raises(Misconfigured) as raised:
        load(ARIZE.replace(old, new, 1))
    assert message in str(raised.value)


def test_a_job_is_the_same_after_its_json_is_read_back(load: Load) -> None:
    for text in (MINIMAL, FULL, ARIZE):
        job = load(text)
        assert Job.model_validate_json(job.model_dump_json()).model_dump() == job.model_dump()


def test_equal_files_give_equal_jobs_which_can_be_pickled(load: Load) -> None:
    assert load(FULL) == load(FULL) == pickle.loads(pickle.dumps(load(FULL)))
    assert len({load(FULL), load(FULL)}) == 1


def test_a_job_cannot_be_changed(load: Load) -> None:
    with pytest.raises(ValidationError):
        load(BASE).name = "other"  # type: ignore[misc]


def test_a_job_knows_its_file_and_its_root_but_does_not_dump_them(load: Load, project: Project) -> None:
    job = load(BASE)
    assert job.path == project.root / "jobs" / "flights.yaml"
    assert job.root == project.root
    assert str(project.root) not in job.model_dump_json()


def test_a_job_that_was_not_loaded_has_no_file(load: Load) -> None:
    job = Job.model_validate(load(BASE).model_dump())
    with pytest.raises(RuntimeError, match="not loaded"):
        _ = job.path
    assert job.where("cursor", "start") == "cursor.start"


@pytest.mark.parametrize(
    "path", ["jobs/flights.yaml", "elsewhere/other-name.yml", "top.yaml"], ids=["usual", "elsewhere", "top"]
)
def test_a_file_may_be_anywhere_and_need_not_be_named_as_its_job(project: Project, path: str) -> None:
    (project.root / "elsewhere").mkdir()
    (project.root / path).write_text(BASE)
    assert load_job(Path(path), project).name == "flights"


def test_a_file_outside_the_project_is_named_by_its_whole_path(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("outside") / "x.yaml"
    path.write_text("version: 1\n")
    with pytest.raises(Misconfigured, match=f"^{path}:1:1: name: is missing"):
        load_job(path, project)


@pytest.mark.parametrize(
    ("source", "files", "kind"),
    [
        ("log/*.parquet", ("log/*.parquet",), "parquet"),
        ("[a.csv, b.csv.gz]", ("a.csv", "b.csv.gz"), "csv"),
        ("a.NDJSON.zst", ("a.NDJSON.zst",), "json"),
        ("{files: a.jsonl}", ("a.jsonl",), "json"),
        ("{files: [log/*], format: csv}", ("log/*",), "csv"),
        ("{files: '${DIR}/x', format: parquet}", ("${DIR}/x",), "parquet"),
    ],
)
def test_files_are_given_by_text_list_or_mapping(load: Load, source: str, files: tuple[str, ...], kind: str) -> None:
    job = load(changed("log/flights/*.parquet", source))
    assert (job.source.files, job.source.format) == (files, kind)


def test_paths_that_say_times_need_a_cursor_that_is_one(load: Load) -> None:
    written = changed("log/flights/*.parquet", "{files: 's3://b/{start:%Y/%m/%d}/${X}/*.json.gz', slack: 2h}")
    job = load(written)
    assert (job.source.files, job.source.format) == (("s3://b/{start:%Y/%m/%d}/${X}/*.json.gz",), "json")
    assert job.source.slack == timedelta(hours=2)
    with pytest.raises(Misconfigured, match=r"source\.files: holds \{start:…\}, which needs a cursor that is a time"):
        load(written.replace("start: 2013-01-01", "start: 7"))


def test_attributes_have_three_forms_and_a_list_may_mix(load: Load) -> None:
    both = (Attribute(name="a", column="a"), Attribute(name="b", column="c", type="float"))
    for form in (
        "[a, {name: b, column: c, type: float}]",
        "{a: a, b: {column: c, type: float}}",
        "{a: {}, b: {column: c, type: float}}",
    ):
        assert load(changed("[distance, dep_hour]", form)).mapping.inputs == both


def test_a_text_stands_for_a_column_and_for_a_partner_id(load: Load) -> None:
    job = load(BASE)
    assert job.mapping.inference_timestamp.column == "scheduled"
    assert job.mapping.partner_inference_id == Template("flight_id")
    assert load(changed("model: flights-delay", "model: {id: abc}")).destinations[0].model == ModelReference(id="abc")


def test_the_names_of_yaml_1_1_booleans_are_ordinary_columns(load: Load) -> None:
    job = load(changed("[distance, dep_hour]", "[no, on, y, 12:30]"))
    assert [attribute.column for attribute in job.mapping.inputs] == ["no", "on", "y", "12:30"]


@pytest.mark.parametrize(
    ("start", "kind", "expected"),
    [
        ("2013-01-01T05:00:00Z", "timestamp", datetime(2013, 1, 1, 5, tzinfo=UTC)),
        ("2013-01-01T05:00:00.123456+02:00", "timestamp", datetime(2013, 1, 1, 3, 0, 0, 123456, tzinfo=UTC)),
        ("2013-01-01 05:00Z", "timestamp", datetime(2013, 1, 1, 5, tzinfo=UTC)),
        ("2013-01-01", "timestamp", datetime(2013, 1, 1, tzinfo=UTC)),
        ("2013-01-01", "date", date(2013, 1, 1)),
        ("0", "integer", 0),
        ("01890a5d-ac96-774b-bcce-b302099a8057", "uuid", UUID("01890a5d-ac96-774b-bcce-b302099a8057")),
    ],
)
def test_the_start_is_of_the_cursors_type(load: Load, start: str, kind: str, expected: object) -> None:
    cursor = load(changed("start: 2013-01-01", f"start: {start}\n  type: {kind}")).cursor
    assert cursor.type is not None
    assert cursor.start_for(cursor.type) == expected


def test_a_start_without_zone_is_in_the_cursors_zone(load: Load) -> None:
    for start, hour in (("2013-01-01T05:00:00", 10), ("2013-01-01", 5)):
        cursor = load(changed("start: 2013-01-01", f"start: {start}\n  timezone: America/New_York")).cursor
        assert cursor.start == start
        assert cursor.start_for("timestamp") == datetime(2013, 1, 1, hour, tzinfo=UTC)


def test_a_start_that_does_not_fit_the_type_found_in_the_source_is_refused(load: Load) -> None:
    with pytest.raises(Misconfigured, match="no start for a cursor of type integer, which needs a whole number"):
        load(BASE).cursor.start_for("integer")


@pytest.mark.parametrize("schedule", ["@hourly", "@daily", "*/5 * * * *", "0 3 * * mon-fri", "0 0 29 2 *"])
def test_schedules_are_cron_or_two_words(load: Load, schedule: str) -> None:
    assert load(BASE + f'schedule: "{schedule}"\n').schedule == schedule


# What a file may not say


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "1:1: version: 2 is not known here; write 1"),
        ("version: 1", "version: true", '1:1: version: "true" is not known here; write 1'),
        ("version: 1\n", "", "1:1: version: is missing"),
        ("name: flights", "name: ../x", '2:1: name: "../x" is not a name'),
        ("name: flights", "name: Flights", '2:1: name: "Flights" is not a name'),
        ("name: flights", "name: " + "x" * 64, "is not a name"),
        ("name: flights", 'name: "flights\\n"', "is not a name"),
        ("name: flights", "name: 2013", "2:1: name: must be text; put it in quotes"),
        ("name: flights", "nam: flights", '2:1: nam: no such key; did you mean "name"?'),
        ("version: 1", "version: 1\nsettle: 5m", '2:1: settle: no such key here; it belongs in "cursor"'),
        ("version: 1", "version: 1\nzzz: 5m", "2:1: zzz: no such key; the keys here are version, name,"),
        ("version: 1", "version: 1\npath: x", "2:1: path: no such key"),
        ("version: 1", "version: 1\ntags: x", "2:1: tags: must be a list"),
        ("version: 1", "version: 1\nschedule: hourly", '2:1: schedule: "hourly" is not a schedule'),
        ("version: 1", "version: 1\nschedule: '@weekly'", "is not a schedule"),
        ("version: 1", "version: 1\nschedule: '0 0 * * * *'", "is not a schedule"),
        ("version: 1", "version: 1\nschedule: '61 * * * *'", "is not a schedule"),
        ("version: 1", "version: 1\nschedule: '0 0 30 2 *'", "never comes"),
        ("version: 1", "version: 1\ntimezone: Amerika/New_York", "did you mean America/New_York?"),
        ("version: 1", "version: 1\ntimezone: ../etc/passwd", "is not a time zone"),
        ("version: 1", "version: 1\ntimezone: localtime", "is not a time zone"),
        ("version: 1", "version: 1\ntimezone: America", "is not a time zone"),
        ("log/flights/*.parquet", "5", "3:1: source: must be a mapping of keys to values"),
        ("log/flights/*.parquet", "{}", "3:1: source: has none of files, query, table and kafka"),
        ("log/flights/*.parquet", "{files: a.csv, query: SELECT 1}", "source: has files and query; give exactly one"),
        ("log/flights/*.parquet", "{query: SELECT 1, format: csv}", "3:27: source.format: only files have a format"),
        ("log/flights/*.parquet", "{files: a.csv, database: x}", "source.database: belongs to a query or a table"),
        ("log/flights/*.parquet", "{table: t}", "3:10: source.table: needs `database`"),
        (
            "log/flights/*.parquet",
            "{files: a.csv, postgres: '${DB}'}",
            "source.postgres: belongs to a query or a table",
        ),
        ("log/flights/*.parquet", "{table: t, postgres: '${DB}', database: x}", "there is `database` already"),
        (
            "log/flights/*.parquet",
            "{table: t, postgres: 'postgresql://me:x@h/d'}",
            "3:20: source.postgres: is not a ref",
        ),
        ("start: 2013-01-01", "start: 2013-01-01\n  type: uuid", "which needs a UUID like"),
        ("log/flights/*.parquet", "[]", "source: is empty; name at least one file"),
        ("log/flights/*.parquet", "log/*", "source: the names do not say one format"),
        ("log/flights/*.parquet", "[a.csv, b.json]", "source: the names do not say one format"),
        ("log/flights/*.parquet", "a.parquet.gz", "source: the names do not say one format"),
        ("log/flights/*.parquet", "[a.csv, '']", "3:17: source[1]: is empty"),
        ("log/flights/*.parquet", "'log/{end:%Y}/*.csv'", "source: holds {end:%Y}, which is no placeholder"),
        ("log/flights/*.parquet", "['a.csv', '{start:%H}.csv']", "source[1]: names units of time without the larger"),
        ("log/flights/*.parquet", "gs://b/*.csv", "source: begins with gs://, which cannot be read"),
        ("log/flights/*.parquet", "{files: a.csv, slack: 1h}", "source.slack: belongs to files whose paths hold"),
        ("log/flights/*.parquet", "'${9}/a.csv'", "source: holds a ${ that begins no reference"),
        ("log/flights/*.parquet", "{files: a.csv, options: {}}", "source.options: no such key"),
        ("column: logged_at", "colum: logged_at", '5:3: cursor.colum: no such key; did you mean "column"?'),
        ("column: logged_at", "column: no\n  setle: 1m", '6:3: cursor.setle: no such key; did you mean "settle"?'),
        ("column: logged_at", "column: null", "5:3: cursor.column: may not be null"),
        ("column: logged_at", "column: a\n  settle: 10", "6:3: cursor.settle: must be text like 10m"),
        ("column: logged_at", "column: a\n  settle: 10x", '6:3: cursor.settle: "10x" is not a duration'),
        ("column: logged_at", "column: a\n  settle: -10m", "is not a duration"),
        ("column: logged_at", "column: a\n  lookback: 9999999d", "is longer than a hundred years"),
        (
            "column: logged_at",
            "column: a\n  type: text",
            '"text" is not known here; write timestamp or date or integer',
        ),
        ("column: logged_at", "column: a\n  type: timestmp", "did you mean timestamp?"),
        ("column: logged_at", "column: a\n  type: date\n  timezone: UTC", "7:3: cursor.timezone: only a timestamp"),
        ("start: 2013-01-01", "start: 2013-01-01T05:00:00", '6:3: cursor.start: "2013-01-01T05:00:00" has no zone'),
        ("start: 2013-01-01", "start: 2013-02-30", "is neither a date like"),
        ("start: 2013-01-01", "start: yesterday", "is neither a date like"),
        ("start: 2013-01-01", "start: 2013-01-01T05:00:00.1234567Z", "is finer than a microsecond"),
        ("start: 2013-01-01", "start: 1.5", "cursor.start: must be a time like"),
        ("start: 2013-01-01", "start: true", "cursor.start: must be a time like"),
        (
            "start: 2013-01-01",
            "start: 5\n  type: date",
            '6:3: cursor.start: "5" is no start for a cursor of type date',
        ),
        ("start: 2013-01-01", "type: integer\n  start: 2013-01-01", "which needs a whole number"),
        ("  start: 2013-01-01\n", "", "4:1: cursor.start: is missing"),
        ("flight_id", "{carrier}", "8:3: mapping.partner_inference_id: must be a column, or a template in quotes"),
        ("flight_id", '"{carrier:%Q}"', "whose %Q is none of"),
        ("flight_id", '"{{}}"', "names no column, so every row would have the same id"),
        ("scheduled", "{column: s, timezone: EST5}", '9:36: mapping.inference_timestamp.timezone: "EST5" is not'),
        ("scheduled", "[s]", "mapping.inference_timestamp: must be text, or a mapping with `column`"),
        ("[distance, dep_hour]", "distance", "mapping.inputs: must be a list of columns, or a mapping"),
        ("[distance, dep_hour]", "[a, b, 5]", "10:18: mapping.inputs[2]: must be a mapping of keys to values"),
        ("[distance, dep_hour]", "[a, {column: x}]", "10:15: mapping.inputs[1].name: is missing"),
        (
            "[distance, dep_hour]",
            "{a: {colum: x}}",
            '10:16: mapping.inputs.a.colum: no such key; did you mean "column"?',
        ),
        ("[distance, dep_hour]", "{a: {name: x}}", "10:16: mapping.inputs.a.name: has its name already"),
        ("[distance, dep_hour]", "{a: 5}", "10:12: mapping.inputs.a: must be text; put it in quotes"),
        ("[distance, dep_hour]", "{a: {type: text}}", '10:16: mapping.inputs.a.type: "text" is not known here'),
        ("[distance, dep_hour]", "[a, A]", '10:15: mapping.inputs[1]: "A" is already in inputs'),
        (
            "[distance, dep_hour]",
            "[delay_probability]",
            '11:17: mapping.predictions[0]: "delay_probability" is already',
        ),
        ("[distance, dep_hour]", "{Batch_ID: x}", '10:12: mapping.inputs.Batch_ID: "Batch_ID" is a name of tidepost'),
        ("[delay_probability]", "[]", "11:3: mapping.predictions: is empty; name at least one prediction"),
        (
            "type: arthur",
            "type: arizona",
            '13:3: destination.type: "arizona" is not known here; write arthur or',
        ),
        ("  type: arthur\n", "", "12:1: destination.type: is missing"),
        ("type: arthur", "type: arthur\n  name: A", '14:3: destination.name: "A" is not a name'),
        (
            "type: arthur",
            "type: arthur\n  conections: 2",
            'destination.conections: no such key; did you mean "connections"?',
        ),
        ("type: arthur", "type: arthur\n  connections: 0", "14:3: destination.connections: must be at least 1"),
        ("type: arthur", "type: arthur\n  connections: 65", "destination.connections: must be at most 64"),
        ("type: arthur", "type: arthur\n  connections: '4'", "destination.connections: must be a whole number"),
        ("type: arthur", "type: arthur\n  connections: 4.0", "destination.connections: must be a whole number"),
        ("type: arthur", "type: arthur\n  retries: true", "destination.retries: must be a whole number"),
        ("type: arthur", "type: arthur\n  shared: yes", "destination.shared: must be true or false"),
        ("type: arthur", "type: arthur\n  poll: 0s", "destination.poll: must be longer than nothing"),
        ("type: arthur", "type: arthur\n  on_unknown: retry", "write stop or resend"),
        ("${ARTHUR_URL}", "${ARTHUR_URL", "14:3: destination.url: holds a ${ that begins no reference"),
        ("${ARTHUR_URL}", "arthur.example.com", "14:3: destination.url: is no address"),
        ("model: flights-delay", "model: {}", "16:3: destination.model: give exactly one of partner_id and id"),
        ("model: flights-delay", "model: {id: a, partner_id: b}", "give exactly one of partner_id and id"),
        ("model: flights-delay", "model: 7", "destination.model: must be text, or a mapping with `partner_id`"),
        ("version: 1", "version: 1\nlimits: {rejects: 1.5}", "2:10: limits.rejects: must be a percentage"),
        ("version: 1", "version: 1\nlimits: {rejects: -1}", "limits.rejects: must be at least 0"),
        ("version: 1", "version: 1\nlimits: {rejects: 101%}", '"101%" is not between 0% and 100%'),
        ("version: 1", "version: 1\nlimits: {rejects: few}", '"few" is neither a percentage'),
        ("version: 1", "version: 1\nlimits: {memory: 256}", None),
        ("version: 1", "version: 1\nlimits: {memory: 0}", "limits.memory: must be at least 1"),
        ("version: 1", "version: 1\nlimits: {memory: 256XB}", '"256XB" is not a size'),
        ("version: 1", "version: 1\nlimits: {non_finite: null}", None),
        ("version: 1", "version: 1\nlimits: {non_finite: drop}", "write reject or null"),
        ("version: 1", "version: 1\nstaging: {partition: week}", "write day or hour"),
        ("version: 1", "version: 1\nstaging: []", "2:1: staging: must be a mapping of keys to values"),
        ("version: 1", "version: 1\nstaging: null", "2:1: staging: may not be null"),
    ],
)
def test_each_fault_is_named_with_its_place_and_what_to_write(
    load: Load, old: str, new: str, message: str | None
) -> None:
    text = changed(old, new)
    if message is None:
        load(text)
    else:
        found = refusal(load, text)
        assert message in found
        assert len(found.splitlines()) == 1
        assert found.startswith("jobs/flights.yaml:")


def test_all_faults_of_a_file_are_named_at_once_in_its_order(load: Load) -> None:
    text = changed("name: flights", "name: ../x")
    text = changed("start: 2013-01-01", "start: 2013-01-01\n  setle: 5m\n  setle: 6m", text)
    text = changed("predictions:", "predictons:", text)
    text = changed("  model: flights-delay\n", "  model:\n", text)
    assert refusal(load, text).splitlines() == [
        'jobs/flights.yaml:2:1: name: "../x" is not a name; write 1 to 63 lower-case letters, digits, _ and -, '
        "not _ or - first",
        'jobs/flights.yaml:7:3: cursor.setle: no such key; did you mean "settle"?',
        "jobs/flights.yaml:8:3: cursor.setle: the key is already on line 7; a key may stand once",
        'jobs/flights.yaml:13:3: mapping.predictons: no such key; did you mean "predictions"?',
        "jobs/flights.yaml:18:3: destination.model: is empty; give it a value, write null, or leave it out",
    ]


# Secrets and references

LITERAL = "sk-live-4711"


@pytest.mark.parametrize(
    "given",
    [LITERAL, f"Bearer {LITERAL}", f"${{KEY:-{LITERAL}}}", f"${{KEY}}{LITERAL}", "'${A}${B}'", f"[{LITERAL}]"],
)
def test_a_literal_secret_is_refused_and_never_repeated(load: Load, given: str) -> None:
    message = refusal(load, changed("${ARTHUR_API_KEY}", given))
    assert message.startswith("jobs/flights.yaml:15:3: destination.api_key: is not a reference")
    assert "sk-live" not in message


@pytest.mark.parametrize("key", ["api_kee", "apikey", "password"])
def test_a_secret_under_a_misspelt_key_is_not_repeated(load: Load, key: str) -> None:
    assert "sk-live" not in refusal(load, changed("api_key: ${ARTHUR_API_KEY}", f"{key}: {LITERAL}"))


def test_a_secret_in_an_address_is_refused_and_not_repeated(load: Load) -> None:
    message = refusal(load, changed("${ARTHUR_URL}", f"https://me:{LITERAL}@arthur.example.com"))
    assert "destination.url: holds a user or password" in message
    assert "sk-live" not in message


def test_a_secret_never_shows_more_than_its_reference(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", LITERAL)
    monkeypatch.setenv("ARTHUR_URL", "https://arthur.example.com")
    for job in (load(BASE), load(BASE).resolved()):
        key = job.destinations[0].api_key
        assert key == Secret("${ARTHUR_API_KEY}")
        shown = [repr(job), str(job), job.model_dump_json(), str(job.model_dump()), str(key), repr(key), f"{key}"]
        assert not any("sk-live" in text for text in shown)
        assert json.loads(job.model_dump_json())["destinations"][0]["api_key"] == "${ARTHUR_API_KEY}"


def test_references_stay_as_written_until_they_are_resolved(load: Load, project: Project) -> None:
    text = changed("log/flights/*.parquet", "['${LOG}/*.parquet', /abs/*.parquet, '${FAR:-s3://bucket}/*.parquet']")
    text = changed(
        "model: flights-delay", "model: ${MODEL}\n  ca_file: certs/ca.pem\n  organization: ${ORG:-none}", text
    )
    job = load(text)
    assert job.destinations[0].url == "${ARTHUR_URL}"
    assert job.source.files == ("${LOG}/*.parquet", "/abs/*.parquet", "${FAR:-s3://bucket}/*.parquet")
    resolved = job.resolved({"LOG": "log/2013", "ARTHUR_URL": "https://arthur.example.com", "MODEL": "m"})
    assert resolved.source.files == (f"{project.root}/log/2013/*.parquet", "/abs/*.parquet", "s3://bucket/*.parquet")
    assert resolved.destinations[0].url == "https://arthur.example.com"
    assert resolved.destinations[0].identity == {
        "type": "arthur",
        "organization": "none",
        "model": {"partner_id": "m"},
    }
    assert resolved.destinations[0].ca_file == f"{project.root}/certs/ca.pem"
    assert resolved.path == job.path


def test_a_database_begins_at_the_root(load: Load, project: Project) -> None:
    job = load(changed("log/flights/*.parquet", "{table: t, database: log/../x.duckdb}"))
    assert job.resolved({"ARTHUR_URL": "http://x"}).source.database == f"{project.root}/x.duckdb"


def test_all_missing_variables_are_named_with_their_places(load: Load) -> None:
    job = load(changed("model: flights-delay", "model: ${MODEL}"))
    with pytest.raises(Misconfigured) as caught:
        job.resolved({"MODEL": ""})
    assert caught.value.message.splitlines() == [
        "jobs/flights.yaml:14:3: destination.url: ARTHUR_URL is not set in the environment",
        "jobs/flights.yaml:16:3: destination.model.partner_id: MODEL is not set in the environment",
    ]


# Identity


def test_the_hash_is_of_what_shapes_rows_only(load: Load) -> None:
    same = load(BASE).definition_hash
    assert len(same) == 64
    for old, new in (
        ("name: flights", "name: other\nowner: x\nschedule: '@daily'"),
        ("start: 2013-01-01", "start: 2014-01-01\n  settle: 1h"),
        ("type: arthur", "type: arthur\n  connections: 9"),
        ("log/flights/*.parquet", "{files: [log/flights/*.parquet], format: parquet}"),
        ("scheduled", "{column: scheduled}"),
        ("[distance, dep_hour]", "{dep_hour: dep_hour, distance: {column: distance}}"),
    ):
        assert load(changed(old, new)).definition_hash == same
    for old, new in (
        ("log/flights/*.parquet", "log/flights/*.csv"),
        ("column: logged_at", "column: updated_at"),
        ("column: logged_at", "column: logged_at\n  type: timestamp"),
        ("flight_id", '"{flight_id}"'),
        ("[distance, dep_hour]", "[distance]"),
        ("scheduled", "{column: scheduled, timezone: UTC}"),
    ):
        assert load(changed(old, new)).definition_hash != same


def test_the_hash_is_the_same_on_every_machine(load: Load) -> None:
    job = load(BASE)
    assert job.resolved({"ARTHUR_URL": "https://here"}).definition_hash == job.definition_hash
    assert job.definition_hash == "0d727f5a4134fb1fc7f1adb5e39df7f2db8ee1241a197836981ce85cc5aac4a0"


def test_the_identity_is_what_may_not_change_under_a_job(load: Load) -> None:
    job = load(changed("model: flights-delay", "model: ${MODEL}\n  organization: org"))
    assert job.resolved({"ARTHUR_URL": "http://x", "MODEL": "m"}).identity == {
        "cursor": {"column": "logged_at", "type": None},
        "partner_inference_id": "flight_id",
        "destinations": {"arthur": {"type": "arthur", "organization": "org", "model": {"partner_id": "m"}}},
    }
    json.dumps(job.identity)


def test_a_later_fault_is_named_as_one_of_the_file(load: Load) -> None:
    job = load(BASE)
    assert job.where("mapping", "inputs", 1) == "jobs/flights.yaml:10:22: mapping.inputs[1]"
    assert job.where("cursor", "timezone") == "jobs/flights.yaml:4:1: cursor.timezone"
    assert job.where("mapping", "partner_inference_id") == "jobs/flights.yaml:8:3: mapping.partner_inference_id"


# Limits


def test_a_limit_is_exceeded_above_it_not_at_it() -> None:
    share, number = RejectLimit(percent=Decimal("0.1")), RejectLimit(rows=3)
    assert not share.exceeded(rejects=1, candidates=1000)
    assert share.exceeded(rejects=1, candidates=999)
    assert not number.exceeded(rejects=3, candidates=3)
    assert number.exceeded(rejects=4, candidates=10**9)
    assert not RejectLimit(rows=0).exceeded(rejects=0, candidates=0)


def test_a_limit_is_one_thing() -> None:
    for wrong in ({}, {"rows": 1, "percent": Decimal(1)}, {"rows": -1}, {"percent": Decimal(101)}):
        with pytest.raises(ValueError, match=r"."):
            RejectLimit(**wrong)


# Documentation and editors


def test_the_committed_documentation_is_what_the_models_say() -> None:
    docs = Path(__file__).parents[2] / "docs"
    for name, text in generated().items():
        assert (docs / name).read_text(encoding="utf-8") == text, "run: python -m tidepost.docs --write docs"


def test_the_generator_writes_the_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tidepost.docs", "--write", str(tmp_path)], check=True)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == generated()


@pytest.mark.parametrize(
    ("message", "placed"),
    [
        ("cursor.column: it is gone", "jobs/flights.yaml:4:10: cursor.column: it is gone"),
        ("mapping.inputs: x: it is gone", "jobs/flights.yaml:8:3: mapping.inputs: x: it is gone"),
        ("mapping: it does not give", "jobs/flights.yaml:5:1: mapping: it does not give"),
        ("destination.url: is no URL", "jobs/flights.yaml:12:3: destination.url: is no URL"),
        ("kafka: there is no topic t", "jobs/flights.yaml:3:1: source.kafka: there is no topic t"),
        ("flights: slice 1 is held", "flights: slice 1 is held"),
        ("source postgresql://h/d: it is gone", "source postgresql://h/d: it is gone"),
        ("sources.files: x", "sources.files: x"),
    ],
)
def test_an_error_that_begins_with_a_key_is_told_with_its_place(load: Load, message: str, placed: str) -> None:
    job = load(MINIMAL)
    with pytest.raises(Misconfigured) as caught, job.placed(), job.placed():
        raise Misconfigured(message, safe="safe", hint="hint")
    assert str(caught.value) == f"{placed}\n  safe\n  hint"


def test_a_topic_is_its_own_cursor_and_every_other_source_names_one(load: Load) -> None:
    cursor = "cursor:\n  column: logged_at\n  start: 2013-01-01\n"
    topic = "{kafka: {bootstrap: b, topic: t, columns: {flight_id: id}}}"
    plain = changed("log/flights/*.parquet", topic, changed(cursor, ""))
    assert (load(plain).cursor.column, load(plain).cursor.start) == ("offset", 0)
    later = changed("mapping:", "cursor: {start: 7, lookback: 2h}\nmapping:", plain)
    assert (load(later).cursor.start, load(later).cursor.lookback) == (7, timedelta(hours=2))
    assert "cursor: is missing" in refusal(load, changed(cursor, ""))

    def fits(text: str) -> bool:
        return not list(jsonschema.Draft202012Validator(schema()).iter_errors(yaml.safe_load(text)))

    dated = "start: '2013-01-01'"
    assert fits(plain)
    assert fits(changed("start: 2013-01-01", dated))
    assert not fits(changed(cursor, ""))


def test_the_documentation_names_every_key_and_shows_both_examples() -> None:
    page = generated()["job-definition.md"]
    assert MINIMAL in page
    assert FULL in page
    assert ARIZE in page
    assert PROJECT in page
    for definition in (schema(), *schema()["$defs"].values()):
        for key in definition["properties"]:
            assert f"| `{key}` |" in page


def test_the_schema_is_closed_described_and_lists_the_short_forms() -> None:
    found = schema()
    assert json.loads(json_schema_text()) == found
    assert found["additionalProperties"] is False
    for definition in (found, *found["$defs"].values()):
        assert definition["additionalProperties"] is False
        assert all("description" in about for about in definition["properties"].values())
    shorts = {"source": {"string", "array"}, "cursor": set()}
    for key, expected in shorts.items():
        assert {one["type"] for one in found["properties"][key].get("anyOf", []) if "type" in one} == expected
    inputs = found["$defs"]["MappingDefinition"]["properties"]["inputs"]["anyOf"]
    assert [one["type"] for one in inputs] == ["array", "object"]
    assert found["$defs"]["ArthurDefinition"]["properties"]["timeout"]["default"] == "5m"
    assert "path" not in found["properties"]


def test_the_examples_of_the_schema_are_accepted(load: Load) -> None:
    def accepted(model: str, key: str, example: object) -> None:
        sections = {"CursorDefinition": "cursor", "MappingDefinition": "mapping"}
        data = json.loads(load(BASE).model_dump_json())
        into = (
            data if not model else data["destinations"][0] if model == "ArthurDefinition" else data[sections[model]]
        )
        into[key] = example
        if model == "CursorDefinition" and key == "start" and example == 0:
            into["type"] = "integer"
        if key in ("predictions", "non_inputs"):
            data["mapping"]["inputs"] = []
        Job.model_validate(data)

    found = schema()
    for model in ("", "CursorDefinition", "MappingDefinition", "ArthurDefinition"):
        for key, about in (found["$defs"][model] if model else found)["properties"].items():
            for example in about.get("examples", []):
                accepted(model, key, example)


def test_the_examples_of_a_destination_at_arize_are_accepted(load: Load) -> None:
    for key, about in schema()["$defs"]["ArizeDefinition"]["properties"].items():
        for example in about.get("examples", []):
            data = json.loads(load(ARIZE).model_dump_json())
            data["destinations"][0][key] = example
            Job.model_validate(data)


# Cost


def test_reading_a_definition_loads_no_engine() -> None:
    heavy = {"duckdb", "pyarrow", "croniter", "sqlalchemy"}
    code = f"import sys, tidepost.definition.project; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_reading_a_job_takes_few_steps(load: Load, project: Project) -> None:
    load(FULL)
    calls = 0

    def counted(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        load_job(Path("jobs/flights.yaml"), project)
    finally:
        sys.setprofile(None)
    assert calls < 6_000  # of Python's functions and of C's; about 4,600

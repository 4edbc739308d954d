"""A project is found from anywhere inside it, and one broken file does not hide the others."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tidepost.definition.job import ModelReference
from tidepost.definition.project import find_project
from tidepost.definition.reference import Secret, resolve
from tidepost.definition.units import duration_text, parse_duration, parse_size, size_text
from tidepost.docs import MINIMAL, PROJECT
from tidepost.errors import Misconfigured


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tidepost.yaml").write_text("version: 1\n")
    (tmp_path / "jobs").mkdir()
    return tmp_path


def define(root: Path, file: str, text: str = MINIMAL, *, name: str = "flights") -> None:
    (root / "jobs" / file).write_text(text.replace("name: flights", f"name: {name}"))


def configure(root: Path, text: str) -> None:
    (root / "tidepost.yaml").write_text(f"version: 1\n{text}")


def refusal(root: Path, env: dict[str, str] | None = None) -> str:
    with pytest.raises(Misconfigured) as caught:
        find_project(root, env or {}).ledger_url(env or {})
    return str(caught.value)


# Finding the root


def test_the_root_is_the_nearest_folder_upwards_with_a_tidepost_yaml(root: Path) -> None:
    inner = root / "jobs" / "a" / "b"
    inner.mkdir(parents=True)
    (root / "jobs" / "a" / "tidepost.yaml").write_text("version: 1\n")
    assert find_project(inner, {}).root == root / "jobs" / "a"
    assert find_project(root / "jobs", {}).root == root
    assert find_project(root / "jobs" / "flights.yaml", {}).root == root


def test_the_working_directory_is_where_the_search_begins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEPOST_PROJECT", raising=False)
    monkeypatch.chdir(root / "jobs")
    assert find_project().root == root


def test_without_a_project_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        find_project(tmp_path, {})
    assert str(caught.value) == (
        f"no tidepost.yaml in {tmp_path} or any folder above it\n  Make a project:  tidepost init DIR"
    )


def test_the_environment_names_another_project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert find_project(elsewhere, {"TIDEPOST_PROJECT": str(root)}).root == root
    with pytest.raises(Misconfigured, match=f"TIDEPOST_PROJECT names {elsewhere}, where there is no tidepost.yaml"):
        find_project(root, {"TIDEPOST_PROJECT": str(elsewhere)})


# Ledger and staging


def test_ledger_and_staging_are_at_the_root_whatever_the_working_directory(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    project = find_project(root, {})
    assert project.ledger == project.ledger_url({}) == f"sqlite:///{root}/.tidepost/ledger.db"
    assert project.staging == project.staging_url({}) == f"{root}/.tidepost/staging"


@pytest.mark.parametrize(
    ("ledger", "expected"),
    [
        ("sqlite:////abs/ledger.db", "sqlite:////abs/ledger.db"),
        ("sqlite:///x/../ledger.db?timeout=5", "sqlite:///{root}/ledger.db?timeout=5"),
        ("sqlite+pysqlite:///ledger.db", "sqlite+pysqlite:///{root}/ledger.db"),
        ("postgresql+psycopg://db.example.com/tidepost", "postgresql+psycopg://db.example.com/tidepost"),
        ("postgresql://me:${PASSWORD}@db/tidepost", "postgresql://me:hush@db/tidepost"),
        ("${URL}", "sqlite:///{root}/by-reference.db"),
        ("sqlite:///${FOLDER:-data}/ledger.db", "sqlite:///{root}/data/ledger.db"),
    ],
)
def test_a_ledger_is_a_url_whose_sqlite_path_begins_at_the_root(root: Path, ledger: str, expected: str) -> None:
    configure(root, f"ledger: {ledger}\n")
    env = {"PASSWORD": "hush", "URL": "sqlite:///by-reference.db"}
    assert find_project(root, env).ledger_url(env) == expected.replace("{root}", str(root))


@pytest.mark.parametrize(
    ("staging", "expected"),
    [("data", "{root}/data"), ("/data", "/data"), ("s3://bucket/x", "s3://bucket/x"), ("${S}/x", "{root}/s/x")],
)
def test_staging_is_a_folder_or_a_url(root: Path, staging: str, expected: str) -> None:
    configure(root, f"staging: {staging}\n")
    assert find_project(root, {}).staging_url({"S": "s"}) == expected.replace("{root}", str(root))


def test_unfinished_files_lie_below_the_root_or_where_the_environment_says(root: Path) -> None:
    configure(root, "staging: s3://bucket/x\n")
    assert find_project(root, {}).scratch({}) == root / ".tidepost" / "scratch"
    assert find_project(root, {}).scratch({"TIDEPOST_SCRATCH": "/tmp/x"}) == Path("/tmp/x")


def test_the_environment_overrides_both_and_its_values_are_not_printed(root: Path) -> None:
    env = {"TIDEPOST_LEDGER": "postgresql://me:hush@db/x", "TIDEPOST_STAGING": "elsewhere"}
    project = find_project(root, env)
    assert project.ledger_url(env) == "postgresql://me:hush@db/x"
    assert project.staging_url(env) == f"{root}/elsewhere"
    assert "hush" not in repr(project)


@pytest.mark.parametrize("ledger", ["mysql://db/x", "ledger.db", "sqlite://", "sqlite:///:memory:", "sqlite:///"])
def test_a_ledger_that_would_forget_or_is_unknown_is_refused(root: Path, ledger: str) -> None:
    configure(root, f'ledger: "{ledger}"\n')
    assert refusal(root).startswith("tidepost.yaml:2:1: ledger: ")
    assert refusal(root, {"TIDEPOST_LEDGER": ledger}).startswith("tidepost.yaml")


@pytest.mark.parametrize(
    "ledger",
    [
        "postgresql://me:hush@db/x",
        "postgresql://me:hu@sh@db/x",
        "postgresql://me:${PASSWORD:-hush}@db/x",
        "postgresql://db/x?user=me&password=hush",
    ],
)
def test_a_password_in_a_ledgers_url_is_refused_and_never_repeated(root: Path, ledger: str) -> None:
    configure(root, f"ledger: {ledger}\n")
    message = refusal(root)
    assert message.startswith("tidepost.yaml:2:1: ledger: holds a password")
    assert "hu" not in message


def test_a_missing_variable_is_named_with_its_key(root: Path) -> None:
    configure(root, "ledger: ${NOWHERE}\n")
    assert "tidepost.yaml: ledger: NOWHERE is not set in the environment" in refusal(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("leger: x\n", 'tidepost.yaml:2:1: leger: no such key; did you mean "ledger"?'),
        ("staging: ''\n", "tidepost.yaml:2:1: staging: is empty"),
        ("defaults: []\n", "tidepost.yaml:2:1: defaults: must be a mapping"),
        (
            "defaults: {mapping: {}}\n",
            "tidepost.yaml:2:12: defaults.mapping: no such key; the keys here are schedule",
        ),
        (
            "defaults: {cursor: {setle: 1m}}\n",
            'tidepost.yaml:2:21: defaults.cursor.setle: no such key; did you mean "settle"?',
        ),
        ("defaults:\n  limits: {rejects: x}\n", 'tidepost.yaml:3:12: defaults.limits.rejects: "x" is neither'),
        ("defaults: {destination: {api_key: hush}}\n", "defaults.destination.api_key: is not a reference"),
    ],
)
def test_each_fault_of_tidepost_yaml_is_named_even_without_a_job(root: Path, text: str, message: str) -> None:
    configure(root, text)
    found = refusal(root)
    assert found.startswith("tidepost.yaml:2") or found.startswith("tidepost.yaml:3")
    assert message in found
    assert "hush" not in found


# Defaults


def test_defaults_are_merged_under_a_job_mapping_by_mapping(root: Path) -> None:
    (root / "tidepost.yaml").write_text(PROJECT)
    define(root, "flights.yaml", MINIMAL.replace("start: 2013-01-01", "start: 2013-01-01, settle: 1h"))
    job = find_project(root, {}).job("flights")
    assert job.schedule == "@hourly"
    assert job.cursor.settle == timedelta(hours=1)
    assert job.cursor.lookback == timedelta(days=1)


def test_a_job_may_leave_out_what_the_defaults_give(root: Path) -> None:
    (root / "tidepost.yaml").write_text(PROJECT)
    define(root, "flights.yaml", MINIMAL[: MINIMAL.index("destination:")] + "destination: {model: m}\n")
    job = find_project(root, {}).job("flights")
    assert job.destinations[0].api_key == Secret("${ARTHUR_API_KEY}")
    assert job.destinations[0].url == "${ARTHUR_URL}"


def test_null_undoes_a_default_and_a_text_replaces_a_mapping(root: Path) -> None:
    configure(root, 'defaults: {schedule: "@daily", destination: {model: {id: x}}}\n')
    define(root, "flights.yaml", MINIMAL + "schedule: null\n")
    job = find_project(root, {}).job("flights")
    assert job.schedule is None
    assert job.destinations[0].model == ModelReference(partner_id="flights-delay")


def test_a_fault_of_a_default_is_named_where_it_is_written(root: Path) -> None:
    configure(root, "defaults:\n  cursor:\n    timezone: UTC\n")
    define(root, "flights.yaml", MINIMAL.replace("start: 2013-01-01", "start: 2013-01-01, type: date"))
    (problem,) = find_project(root, {}).problems()
    assert problem.message.startswith("tidepost.yaml:4:5: cursor.timezone: only a timestamp cursor has a zone")


# Jobs


def test_one_broken_file_does_not_hide_the_others(root: Path) -> None:
    define(root, "b.yaml", name="b")
    define(root, "a.yml", name="a")
    define(root, "broken.yaml", "version: 1\nname: [\n")
    define(root, "wrong.yaml", "version: 1\nname: wrong\n")
    define(root, ".hidden.yaml", "not a job")
    define(root, "notes.txt", "not a job")
    project = find_project(root, {})
    assert [job.name for job in project.jobs()] == ["a", "b"]
    assert [problem.message.partition(":")[0] for problem in project.problems()] == [
        "jobs/broken.yaml",
        "jobs/wrong.yaml",
    ]
    assert project.job("a").path == root / "jobs" / "a.yml"


def test_two_files_of_one_name_are_both_refused_and_both_named(root: Path) -> None:
    define(root, "a.yaml")
    define(root, "b.yaml")
    define(root, "c.yaml", name="other")
    project = find_project(root, {})
    assert [job.name for job in project.jobs()] == ["other"]
    (problem,) = project.problems()
    assert problem.message == 'jobs/a.yaml and jobs/b.yaml: both are named "flights"; a name belongs to one job'
    with pytest.raises(Misconfigured, match=r"jobs/a.yaml and jobs/b.yaml"):
        project.job("flights")


def test_a_broken_twin_makes_a_name_ambiguous_too(root: Path) -> None:
    define(root, "a.yaml")
    define(root, "b.yaml", "version: 1\nname: flights\n")
    assert find_project(root, {}).jobs() == ()


def test_a_job_that_is_not_there_is_named_with_the_nearest_and_with_files_that_cannot_be_read(root: Path) -> None:
    define(root, "flights.yaml")
    define(root, "broken.yaml", "a: [\n")
    with pytest.raises(Misconfigured) as caught:
        find_project(root, {}).job("fligths")
    assert f'no job "fligths" in {root}/jobs; did you mean flights?' in str(caught.value)
    assert "jobs/broken.yaml:2:1: is not YAML" in str(caught.value)


@pytest.mark.parametrize("name", ["../flights", "", "jobs/flights.yaml"])
def test_a_path_is_no_name(root: Path, name: str) -> None:
    define(root, "flights.yaml")
    with pytest.raises(Misconfigured, match="no job"):
        find_project(root, {}).job(name)


def test_a_job_with_a_wrong_file_says_what_is_wrong(root: Path) -> None:
    define(root, "flights.yaml", MINIMAL.replace("cursor:", "cursr:"))
    with pytest.raises(Misconfigured, match=r'^jobs/flights.yaml:4:1: cursr: no such key; did you mean "cursor"'):
        find_project(root, {}).job("flights")


def test_a_project_without_a_folder_of_jobs_has_none(tmp_path: Path) -> None:
    (tmp_path / "tidepost.yaml").write_text("version: 1\n")
    assert find_project(tmp_path, {}).definitions().jobs == ()


# References and units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain $text", "plain $text"),
        ("${A}", "1"),
        ("x${A}-${B}", "x1-2"),
        ("${NONE:-some default}", "some default"),
        ("${EMPTY:-d}", "d"),
        ("${NONE:-}", ""),
        ("${A:-d}", "1"),
        ("${REF}", "${A}"),
    ],
)
def test_references_are_replaced_once(text: str, expected: str) -> None:
    assert resolve(text, {"A": "1", "B": "2", "EMPTY": "", "REF": "${A}"}) == expected


def test_missing_variables_are_all_named_and_no_value_is() -> None:
    with pytest.raises(Misconfigured) as caught:
        resolve("${A}${B}${C}${C:-x}", {"A": "hush"}, where="jobs/f.yaml:1:1: key")
    assert caught.value.message == "jobs/f.yaml:1:1: key: B, C are not set in the environment"


@pytest.mark.parametrize("text", ["${}", "${A", "${9}", "${A-B}", "${A:-${B}}"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="begins no reference"):
        resolve(text, {"A": "1", "B": "2"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("30s", 30), ("1h30m", 5400), ("1w", 604_800), ("1w2d3h4m5s", 788_645), ("90m", 5400)],
)
def test_durations_are_read_and_written_back(text: str, seconds: int) -> None:
    value = parse_duration(text)
    assert value == timedelta(seconds=seconds)
    assert parse_duration(duration_text(value)) == value


@pytest.mark.parametrize("text", ["", "10", "m", "1m1h", "1h1h", "-1h", "1.5h", "1 h", "PT1H", "1H", "1h\n", "٣h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("128MB", 128_000_000), ("64MiB", 2**26), ("1 gb", 10**9), ("10kb", 10_000)]
)
def test_sizes_are_read_and_written_back(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(size_text(size)) == size


@pytest.mark.parametrize("text", ["", "128", "1.5MB", "-1MB", "1M", "MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)

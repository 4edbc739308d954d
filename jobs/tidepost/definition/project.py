"""A project: the folder with a `tidepost.yaml`, which says where ledger and staging are and what jobs share.

Everything relative begins at that folder, never at the working directory: a second ledger would send everything
again.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, ValidationError

from tidepost.definition.explain import faults, validated
from tidepost.definition.fields import Referring, SecretReference, Section, Version, fault
from tidepost.definition.job import Job, absolute, define_job
from tidepost.definition.reference import SECRET_PATTERN, Secret, resolve
from tidepost.definition.sections import DESTINATIONS
from tidepost.definition.yamlfile import Document, Places, Problem, Value, misconfigured, read_yaml
from tidepost.errors import Misconfigured

PROJECT_FILE: Final = "tidepost.yaml"
JOBS_FOLDER: Final = "jobs"
LEDGERS: Final = ("sqlite", "postgresql")


def _ledger(text: str) -> str:
    address = text.partition("?")[0].partition("://")[2]
    password = address.rpartition("@")[0].partition(":")[2]
    for literal in (password, *re.findall(r"[?&]password=([^&]*)", text)):
        if literal and not re.fullmatch(SECRET_PATTERN, literal):
            raise fault("holds a password; put it in a variable and write ${NAME} in its place")
    return text


class DefaultsDefinition(Section):
    """What every job of the project begins with, mapping by mapping: keys as in a job, whose own values win."""

    schedule: Any = Field(None, description="As a job's `schedule`.")
    timezone: Any = Field(None, description="As a job's `timezone`.")
    cursor: Any = Field(None, description="As a job's `cursor`, such as its `settle` and `lookback`.")
    staging: Any = Field(None, description="As a job's `staging`.")
    destination: Any = Field(None, description="As a job's `destination`.")
    limits: Any = Field(None, description="As a job's `limits`.")
    airflow: Any = Field(None, description="As a job's `airflow`.")


class ProjectDefinition(Section):
    """`tidepost.yaml`, which marks the root of a project."""

    version: Version = Field(description="The version of this format.")
    ledger: Annotated[Referring, AfterValidator(_ledger)] = Field(
        "sqlite:///.tidepost/ledger.db",
        description="The ledger's database, SQLite or PostgreSQL, as a SQLAlchemy URL; a relative SQLite path begins "
        "at the root. A password is given by reference. `TIDEPOST_LEDGER` overrides it.",
        examples=[
            "${TIDEPOST_LEDGER_URL}",
            "${airflow:ledger}",
            "postgresql+psycopg://tidepost:${PGPASSWORD}@db/tidepost",
        ],
    )
    staging: Referring = Field(
        ".tidepost/staging",
        description="Where staged files are: a folder, relative to the root, or `s3://bucket/prefix`. "
        "`TIDEPOST_STAGING` overrides it.",
        examples=["/data/staging", "s3://bucket/prefix"],
    )
    s3: SecretReference | None = Field(
        None,
        description="Who reads and writes a staging in S3, by reference: one of Airflow's connections of the type "
        "`aws`, or a variable that holds such a connection's URI. By default, whom boto3 finds.",
        examples=["${airflow:staging}"],
    )
    defaults: DefaultsDefinition = Field(
        DefaultsDefinition(), description="What every job begins with; a job's own values win, mapping by mapping."
    )


@dataclass(frozen=True, slots=True)
class Definitions:
    """All jobs of a project that can be used, by name, and what is wrong with the files of the others.

    broken: the same problems by their files; two files of one name are one problem, of the first
    """

    jobs: tuple[Job, ...]
    problems: tuple[Misconfigured, ...]
    broken: Mapping[Path, Misconfigured] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Project:
    """A project's root and settings. Its texts are safe to print: references in them are not resolved.

    root:     the absolute folder of `tidepost.yaml`
    ledger:   the ledger's URL; without references, a SQLite path in it is absolute
    staging:  the staging's URL or, without references, absolute folder
    s3:       the reference to who reads and writes a staging in S3; None: whom boto3 finds
    defaults: what is merged under every job
    places:   where each default is in `tidepost.yaml`, by its path in a job
    """

    root: Path
    ledger: str
    staging: str
    defaults: Mapping[str, Value] = field(default_factory=dict, repr=False, hash=False)
    places: Places = field(default=Places({}), repr=False, hash=False)
    s3: Secret | None = None

    def ledger_url(self, env: Mapping[str, str] | None = None) -> str:
        """The ledger's URL to connect to, references resolved: it may hold a password, so it is not for printing.

        Misconfigured: a variable is missing, or it is no ledger's URL; a value is never named.
        """
        where = f"{PROJECT_FILE}: ledger"
        return _ledger_url(self.root, resolve(self.ledger, env, where=where), where)

    def ledger_file(self, env: Mapping[str, str] | None = None) -> Path | None:
        """The file of a SQLite ledger; None for a server's. Raises as `ledger_url` does."""
        scheme, _, rest = self.ledger_url(env).partition(":///")
        return Path(rest.partition("?")[0]) if scheme.startswith("sqlite") else None

    def staging_url(self, env: Mapping[str, str] | None = None) -> str:
        """The staging's URL or absolute folder, references resolved. Misconfigured: a variable is missing."""
        return absolute(self.root, resolve(self.staging, env, where=f"{PROJECT_FILE}: staging"))

    def scratch(self, env: Mapping[str, str] | None = None) -> Path:
        """The absolute folder of unfinished files where the staging is no folder itself: `TIDEPOST_SCRATCH`, or
        `.tidepost/scratch`."""
        env = os.environ if env is None else env
        return Path(absolute(self.root, env.get("TIDEPOST_SCRATCH") or ".tidepost/scratch"))

    def files(self) -> tuple[Path, ...]:
        """The job files, `jobs/*.yaml` and `jobs/*.yml`, by name; hidden files are none."""
        found = (path for path in (self.root / JOBS_FOLDER).glob("*") if path.suffix in (".yaml", ".yml"))
        return tuple(sorted(path for path in found if not path.name.startswith(".")))

    def job(self, name: str) -> Job:
        """The job of that name; of the other files only their names are looked at.

        Misconfigured: there is none, its file is wrong, or another file has the same name.
        """
        named, unread = self._named()
        if name not in named:
            near = difflib.get_close_matches(name, [known for known in named if isinstance(known, str)], n=1)
            guess = f"; did you mean {near[0]}?" if near else ""
            hint = "\n  ".join(error.message for error in unread.values())
            raise Misconfigured(f'no job "{name}" in {self.root / JOBS_FOLDER}{guess}', hint=hint)
        if len(named[name]) > 1:
            raise self._shared(name, named[name])
        path, document = named[name][0]
        return define_job(path, document, self)

    def jobs(self) -> tuple[Job, ...]:
        """Every job whose file is right and whose name is its alone, by name."""
        return self.definitions().jobs

    def problems(self) -> tuple[Misconfigured, ...]:
        """What is wrong with the other files, one error each."""
        return self.definitions().problems

    def definitions(self) -> Definitions:
        """`jobs()` and `problems()` in one reading: a broken file does not hide the others."""
        named, broken = self._named()
        jobs = []
        for name, found in named.items():
            if name is not None and len(found) > 1:
                broken[found[0][0]] = self._shared(name, found)
                continue
            for path, document in found:
                try:
                    jobs.append(define_job(path, document, self))
                except Misconfigured as error:
                    broken[path] = error
        return Definitions(tuple(sorted(jobs, key=lambda job: job.name)), tuple(broken.values()), broken)

    def _named(self) -> tuple[dict[Value, list[tuple[Path, Document]]], dict[Path, Misconfigured]]:
        """The files that are YAML, by the name that they claim, and the errors of those that are not."""
        named: dict[Value, list[tuple[Path, Document]]] = {}
        unread: dict[Path, Misconfigured] = {}
        for path in self.files():
            try:
                document = read_yaml(path, str(path.relative_to(self.root)))
            except Misconfigured as error:
                unread[path] = error
                continue
            name = document.data.get("name")
            named.setdefault(name if isinstance(name, str) else None, []).append((path, document))
        return named, unread

    def _shared(self, name: Value, found: list[tuple[Path, Document]]) -> Misconfigured:
        files = " and ".join(path.relative_to(self.root).as_posix() for path, _ in found)
        return Misconfigured(
            f'{files}: both are named "{name}"; a name belongs to one job',
            safe="Neither is run: two jobs of one name would share their marks.",
        )


def find_project(start: Path | None = None, env: Mapping[str, str] | None = None) -> Project:
    """The project that `start` (a folder or a file; default: the working directory) belongs to.

    It is the folder that `TIDEPOST_PROJECT` names, else the nearest one from `start` upwards, with a
    `tidepost.yaml`. `TIDEPOST_LEDGER` and `TIDEPOST_STAGING` take the place of what that file says.

    env: default: the process's environment
    Misconfigured: there is none, or its `tidepost.yaml` is wrong; every problem of the file is named.
    """
    env = os.environ if env is None else env
    if given := env.get("TIDEPOST_PROJECT"):
        root = Path(given).resolve()
        if not (root / PROJECT_FILE).is_file():
            raise Misconfigured(f"TIDEPOST_PROJECT names {root}, where there is no {PROJECT_FILE}", hint=_INIT)
        return load_project(root, env)
    start = (start or Path.cwd()).resolve()
    for root in (start, *start.parents):
        if (root / PROJECT_FILE).is_file():
            return load_project(root, env)
    raise Misconfigured(f"no {PROJECT_FILE} in {start} or any folder above it", hint=_INIT)


_INIT: Final = "Make a project:  tidepost init DIR"


def load_project(root: Path, env: Mapping[str, str] | None = None) -> Project:
    """The project whose root is `root`, an absolute folder with a `tidepost.yaml`; otherwise as `find_project`."""
    env = os.environ if env is None else env
    document = read_yaml(root / PROJECT_FILE, PROJECT_FILE)
    found = validated(ProjectDefinition, document)
    defaults = _defaults(document)
    ledger = "${TIDEPOST_LEDGER}" if env.get("TIDEPOST_LEDGER") else found.ledger
    staging = "${TIDEPOST_STAGING}" if env.get("TIDEPOST_STAGING") else found.staging
    where = f"{document.places.of(('ledger',))}: ledger"
    return Project(
        root=root,
        ledger=ledger if "${" in ledger else _ledger_url(root, ledger, where),
        staging=staging if "${" in staging else absolute(root, staging),
        defaults=defaults.data,
        places=defaults.places,
        s3=found.s3,
    )


def _defaults(document: Document) -> Document:
    """The defaults as part of a job; Misconfigured: any job would be wrong by them, whatever it adds."""
    data = document.data.get("defaults")
    if not isinstance(data, dict):
        return Document({}, Places({}))
    places = {path[1:]: place for path, place in document.places.found.items() if path[:1] == ("defaults",)}
    defaults = Document(data, Places(places))
    wrong = [_faults_of(one, defaults) for one in _kinds(data)]
    if problems := min(wrong, key=len):
        raise misconfigured(Problem(one.place, ("defaults", *one.path), one.text) for one in problems)
    return defaults


def _kinds(data: dict[str, Value]) -> Iterator[dict[str, Value]]:
    """The defaults, once for each kind of destination where they leave it to the jobs to say it."""
    to = data.get("destination")
    if isinstance(to, dict) and "type" not in to:
        for kind in DESTINATIONS:
            yield {**data, "destination": {"type": kind, **to}}
    else:
        yield data


def _faults_of(data: dict[str, Value], defaults: Document) -> list[Problem]:
    try:
        Job.model_validate(data)
    except ValidationError as error:
        return faults(error, Job, defaults, gaps=False)
    return []


def _ledger_url(root: Path, url: str, where: str) -> str:
    """`url` with an absolute path if it is SQLite's."""
    scheme, found, rest = url.partition("://")
    if not found or scheme.partition("+")[0] not in LEDGERS:
        raise Misconfigured(f"{where}: is no URL of a ledger; write sqlite:///PATH or postgresql://HOST/DATABASE")
    if not scheme.startswith("sqlite"):
        return url
    path, mark, options = rest.partition("?")
    if not path.startswith("/") or path == "/" or path.endswith(":memory:"):
        raise Misconfigured(f"{where}: names no file; write sqlite:///PATH, as a ledger must outlive its run")
    return f"{scheme}:///{absolute(root, path[1:])}{mark}{options}"

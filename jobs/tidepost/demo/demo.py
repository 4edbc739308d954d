"""The demo run: a real log, a platform on this machine, and the proof that every row arrived once.

Whatever was killed at whatever moment, the same call again ends with the same numbers.
"""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tidepost.cursor import HOUR, format_instant, to_datetime, to_nanoseconds
from tidepost.demo.flights import NEW_YORK, day_start, write_log
from tidepost.demo.growing import LogSummary
from tidepost.errors import Misconfigured, Retryable
from tidepost.model import MICROSECONDS_AN_HOUR, Stream, StreamName
from tidepost.ranges import Range
from tidepost.sandbox import SandboxProcess
from tidepost.sql import quote_identifier

if TYPE_CHECKING:
    from tidepost.world import World

JOB: Final = "flights"
PORT: Final = 8765
KEY: Final = "demo"
"""The sandbox takes any key; the demo's own is no secret, and a real one is never sent to it."""
SETTLED: Final = timedelta(hours=1)
"""From the end of the log to the demo's clock: longer than the job's settle, so that every row may be read."""
_HOST: Final = "127.0.0.1"
_MODEL: Final = "arthur_model.json"
_ASKING_SECONDS: Final = 2.0
_STAYING_SECONDS: Final = 1.0
_ENDING_SECONDS: Final = 10.0
_READY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a demo goes: the log holds what was logged before `until`, and the run's clock stands at `clock`."""

    until: int
    clock: float

    @classmethod
    def after(cls, days: int) -> Moment:
        end = day_start(days)
        return cls(to_nanoseconds(end), (end + SETTLED).timestamp())

    @classmethod
    def at(cls, nanoseconds: int) -> Moment:
        return cls(nanoseconds, to_datetime(nanoseconds).timestamp())


def create_project(root: Path) -> tuple[Path, ...]:
    """Put the demo's project into a folder; files that are there stay as they are. Returns what was created."""
    created = []
    with as_file(files("tidepost.demo") / "project") as template:
        for source in sorted(path for path in template.rglob("*") if path.is_file()):
            target = root / source.relative_to(template)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                created.append(target)
    return tuple(created)


def log_flights(root: Path, moment: Moment) -> LogSummary:
    """Bring the project's log of flights up to the moment. Raises Misconfigured without the package of flights."""
    return write_log(root / "log" / JOB, until=to_datetime(moment.until))


# ------------------------------------------------------------------------------------------------- platform


@contextmanager
def platform(data: Path, port: int) -> Iterator[str]:
    """The URL of a sandbox on `data`: one that runs there already, else one of our own, which ends with the block.

    It keeps rows that come twice, so that a second copy would be seen. Raises Misconfigured where the port is taken
    by something else, or where the data are in use by a sandbox on another port.
    """
    data = data.resolve()
    deadline = time.monotonic() + _ENDING_SECONDS
    while True:
        if port and (found := _identity(port)) is not None:
            if found.get("name") != "tidepost sandbox" or found.get("data") != str(data):
                what = f"a sandbox on {found['data']}" if found.get("data") else "something else"
                raise Misconfigured(
                    f"port {port} is taken by {what}", hint="Name another port:  tidepost demo --port 8766"
                )
            if _goes_away(port):
                continue
            yield f"http://{_HOST}:{port}"
            return
        sandbox = SandboxProcess(data, port=port, on_repeat="keep")
        try:
            sandbox.start()
        except Misconfigured as error:
            if "another sandbox" not in error.message:
                raise
            # The sandbox of a demo that was killed ends by itself, a moment after it.
            if time.monotonic() > deadline:
                hint = "Stop it, or name the port that it serves:  tidepost demo --port PORT"
                raise Misconfigured(error.message.splitlines()[0], hint=hint) from None
            time.sleep(0.2)
            continue
        try:
            yield sandbox.url
        finally:
            sandbox.stop()
        return


def _goes_away(port: int) -> bool:
    """Whether a sandbox is about to end: that of a demo that was just killed still answers for a moment."""
    until = time.monotonic() + _STAYING_SECONDS
    while time.monotonic() < until:
        time.sleep(_STAYING_SECONDS / 5)
        if _identity(port) is None:
            return True
    return False


def _identity(port: int) -> dict[str, Any] | None:
    """What answers at a port: a sandbox's name and data, an empty mapping for something else, None for nothing."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=_ASKING_SECONDS)
    try:
        connection.request("GET", "/sandbox")
        found = json.loads(connection.getresponse().read())
    except ConnectionError:
        return None
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return found if isinstance(found, dict) else {}


def register_model(url: str) -> bool:
    """Register the model that the flights are inferences of. False where it was there. Raises Retryable."""
    definition = (files("tidepost.demo") / _MODEL).read_bytes()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=_READY_SECONDS)
    headers = {"Authorization": KEY, "Content-Type": "application/json"}
    try:
        connection.request("POST", "/api/v3/models", body=definition, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Retryable(f"the sandbox at {url} does not answer: {error}", hint="Run the demo again.") from error
    finally:
        connection.close()
    if answer.status not in (http.HTTPStatus.CREATED, http.HTTPStatus.CONFLICT):
        raise Misconfigured(f"the sandbox did not take the model: {answer.status} {text[:200]}")
    return answer.status == http.HTTPStatus.CREATED


def environment(url: str, env: Mapping[str, str]) -> dict[str, str]:
    """The environment that the demo's job is wired in: its sandbox, and a key of its own."""
    return {**env, "SANDBOX_URL": url, "ARTHUR_API_KEY": KEY}


# ---------------------------------------------------------------------------------------------------- proof


@dataclass(frozen=True, slots=True)
class Day:
    """Rows whose flights leave on one date in New York."""

    date: date
    logged: int
    published: int
    arrived: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What the log holds, what was published and what the platform holds, day by day.

    missing: ids of the log that the platform does not hold
    unknown: ids that the platform holds and the log does not
    twice:   rows at the platform beyond the first of their id
    """

    days: tuple[Day, ...]
    missing: int
    unknown: int
    twice: int

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
    def equal(self) -> bool:
        """Whether every row of the log arrived, once."""
        same = all(day.logged == day.published == day.arrived for day in self.days)
        return same and not (self.missing or self.unknown or self.twice)


def prove(world: World, stream: Stream, up_to: int) -> Proof:
    """Count the log's rows with cursors below `up_to` (nanoseconds), the published ones by the ledger, and ask the
    platform for what it holds: counts by hour, and every id. Raises Retryable where the platform does not answer."""
    (destination,) = world.destinations
    logged, ids = _log(world, up_to)
    published = Counter[int]()
    for one in world.ledger.slices.published(stream, None).parts:
        published.update(one.part.hours)
    hours = sorted({*logged, *published})
    arrived: Mapping[int, int] = {}
    there: Counter[str] = Counter()
    if hours:
        window = Range(hours[0], hours[-1] + 1)
        arrived = destination.counts(StreamName.INFERENCES, window)
        micros = Range(window.start * MICROSECONDS_AN_HOUR, window.end * MICROSECONDS_AN_HOUR)
        for some in destination.ids(StreamName.INFERENCES, micros):
            there.update(some)
    by_day = [_by_date(of) for of in (logged, published, arrived)]
    dates = sorted({day for of in by_day for day in of})
    return Proof(
        days=tuple(Day(day, *(of[day] for of in by_day)) for day in dates),
        missing=len(ids - there.keys()),
        unknown=len(there.keys() - ids),
        twice=there.total() - len(there),
    )


def _log(world: World, up_to: int) -> tuple[dict[int, int], set[str]]:
    """The log's rows by hour of their event, and their ids, read past everything that the engine does with them."""
    mapping, cursor = world.job.mapping, quote_identifier(world.job.cursor.column)
    id_ = mapping.partner_inference_id.sql(world.source.columns(), quote_identifier)
    event = quote_identifier(mapping.inference_timestamp.column)
    names = list(world.job.source.files or ())
    with world.engine.connect() as connection:
        rows = connection.execute(
            f"SELECT epoch_us({event}) // {MICROSECONDS_AN_HOUR} AS hour, {id_} AS id "
            f"FROM read_parquet($names) WHERE {cursor} < CAST($up_to AS TIMESTAMPTZ)",
            {"names": names, "up_to": format_instant(up_to)},
        ).to_arrow_table()
    hours = Counter(rows.column("hour").to_pylist())
    return dict(hours), set(rows.column("id").to_pylist())


def _by_date(hours: Mapping[int, int]) -> Counter[date]:
    """Rows by date in New York: its midnights are whole hours in UTC, so no hour belongs to two dates."""
    found: Counter[date] = Counter()
    for hour, rows in hours.items():
        found[to_datetime(hour * HOUR).astimezone(NEW_YORK).date()] += rows
    return found

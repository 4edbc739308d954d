"""The example of the documentation, as it stands there, keeps the contract of sources and takes a run."""

from __future__ import annotations

import itertools
import re
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.source_contract import Holding, SourceContract, execute
from tests.world import World, ns, rows

from tidepost import run as engine
from tidepost.errors import Retryable
from tidepost.ports import Source

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"


def example() -> Any:
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(found, str(PAGE), "exec"), names)
    return names["SqliteSource"]


def fill(file: Path, definition: str, of: list[tuple[Any, ...]]) -> None:
    database = sqlite3.connect(file)
    with database:
        database.execute(f"CREATE TABLE log ({definition})")
        if of:
            database.executemany(f"INSERT INTO log VALUES ({', '.join('?' * len(of[0]))})", of)
    database.close()


class TestSqlite(SourceContract):
    types = ("TIMESTAMPTZ",)

    @pytest.fixture
    def holding(self, tmp_path: Path) -> Holding:
        numbers, of = itertools.count(), example()

        def hold(sql: str, zone: str | None = None) -> Source:
            assert zone is None
            file = tmp_path / f"{next(numbers)}.db"
            fill(file, "id TEXT, c INTEGER, v INTEGER", execute(f"SELECT id, epoch_us(c), v FROM ({sql})"))
            source: Source = of(file, "log", "c")
            return source

        return hold


def test_the_documented_source_uploads_every_row_once(world: World) -> None:
    file = world.root / "log.db"
    names = ("id", "at", "logged_at", "distance", "carrier", "score", "note")
    world.define(
        source={"files": "log.db/*.parquet"},
        mapping={"inference_timestamp": "logged_at"},
    )
    with world.wired() as wired:
        source = replace(wired, source=example()(file, "log", "logged_at"))
        with pytest.raises(Retryable, match="unable to open"):
            engine.run(source, world.ask(), notice=lambda _: None, stop=threading.Event())
        logged = [{**one, "at": None, "logged_at": ns(one["logged_at"]) // 1000} for one in rows(300)]
        kinds = "id TEXT, at TEXT, logged_at INTEGER, distance INTEGER, carrier TEXT, score REAL, note TEXT"
        fill(file, kinds, [tuple(one[name] for name in names) for one in logged])
        outcome = engine.run(source, world.ask(), notice=lambda _: None, stop=threading.Event())
    assert (outcome.errors, outcome.arrived) == ([], 300)
    assert world.everything_arrived_once(300)

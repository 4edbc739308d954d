"""Files in S3 as a source: the contract, and what is their own. The server is a real one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contracts.source_contract import CASES, Holding, NaiveTimesContract, SourceContract
from tests.contracts.test_source_duckdb import TEXTUAL, split_over_files
from tests.s3 import NewPlace

from tidepost.engine import Engine
from tidepost.ports import Source
from tidepost.s3 import Store
from tidepost.sources.duckdb import DuckDBSource, Origin

ZONED = CASES[0]

Upload = Callable[[Path], str]


def in_s3(pattern: str, engine: Engine, format: str = "parquet", zone: str | None = None) -> DuckDBSource:  # noqa: A002
    return DuckDBSource(Origin(files=(pattern,), format=format), engine, column="c", zone=zone)


@pytest.fixture
def uploaded(new_place: NewPlace) -> Upload:
    """Uploads what a folder holds to a place of its own, and gives its address."""

    def upload(folder: Path) -> str:
        place = new_place()
        store = Store.at(place)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                store.upload(path.relative_to(folder).as_posix(), path)
        return place

    return upload


class ObjectContract(SourceContract):
    format, suffix, options = "parquet", "parquet", "FORMAT parquet"

    @pytest.fixture
    def holding(self, tmp_path: Path, engine: Engine, uploaded: Upload) -> Holding:
        number = itertools.count()

        def make(sql: str, *, zone: str | None = None) -> Source:
            folder = tmp_path / f"log {next(number)}"
            folder.mkdir()
            split_over_files(folder, self.suffix, self.options, sql)
            return in_s3(f"{uploaded(folder)}/*.{self.suffix}", engine, self.format, zone)

        return make


class TestParquetInS3(ObjectContract, NaiveTimesContract):
    types = ("TIMESTAMPTZ", "TIMESTAMP", "DATE", "BIGINT")


class TestCsvInS3(ObjectContract):
    format, suffix, options = "csv", "csv", "FORMAT csv, HEADER"
    types = TEXTUAL[:1]


class TestGzippedCsvInS3(ObjectContract):
    format, suffix, options = "csv", "csv.gz", "FORMAT csv, HEADER, COMPRESSION gzip"
    types = TEXTUAL[:1]


class TestJsonInS3(ObjectContract):
    format, suffix, options = "json", "jsonl", "FORMAT json"
    types = ("DATE",)


class TestJsonWithZstdInS3(ObjectContract):
    format, suffix, options = "json", "jsonl.zst", "FORMAT json, COMPRESSION zstd"
    types = ("DATE",)

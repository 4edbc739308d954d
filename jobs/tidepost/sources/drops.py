"""Files that somebody drops, on disk or in S3: which there are, since when, and how DuckDB reads one of them."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from tidepost.errors import Misconfigured
from tidepost.paths import PathTemplate
from tidepost.ports import Drop
from tidepost.sources.duckdb import store_of
from tidepost.sources.files import READERS, described
from tidepost.sources.listing import Store, listed
from tidepost.sql import quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from tidepost.s3.connection import Connection

_SUFFIXES: Final = {"jsonl": "json", "ndjson": "json"}


class DroppedFiles:
    """Satisfies `ports.Drops`.

    paths:  globs that begin at `/` or `s3://`
    format: of all files: parquet, csv or json; None: the suffix of each says it
    s3:     how buckets are reached; None: as boto3 finds out
    """

    def __init__(
        self,
        paths: Sequence[str],
        format: str | None,  # noqa: A002 - it is what definitions call it
        s3: Connection | None = None,
    ) -> None:
        self._paths = tuple(paths)
        self._format = format
        self._s3 = s3
        self._stores: dict[str, Store] = {}

    def found(self) -> Iterator[Drop]:
        for path in self._paths:
            yield from self._listed(PathTemplate(path))

    def now(self, path: str) -> Drop | None:
        """See `Drops.now`."""
        return next(self._listed(PathTemplate(glob.escape(path))), None)

    def rows(self, connection: DuckDBPyConnection, drop: Drop) -> tuple[str, dict[str, str]]:
        """See `Drops.rows`."""
        self._store(PathTemplate(glob.escape(drop.path))).readable(connection)
        sql = f"SELECT * FROM {READERS[self._format_of(drop.path)]}({quote_literal(glob.escape(drop.path))})"
        return sql, described(connection, sql)

    def _listed(self, template: PathTemplate) -> Iterator[Drop]:
        store = self._store(template)
        for file in listed(store, template, None):
            yield Drop(file.path, file.version, store.modified(file))

    def _store(self, template: PathTemplate) -> Store:
        return self._stores.setdefault(template.root, store_of(template.root, self._s3))

    def _format_of(self, path: str) -> str:
        if self._format is not None:
            return self._format
        name = path.lower().removesuffix(".gz").removesuffix(".zst")
        suffix = name.rpartition(".")[2]
        found = _SUFFIXES.get(suffix, suffix)
        if found not in READERS:
            raise Misconfigured(
                f"{path}: its name does not say whether it is parquet, CSV or JSON",
                hint="Name it so, or say ground_truth.files.format.",
            )
        return found
